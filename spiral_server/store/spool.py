"""Reads the run logs that lie in a run directory: what a damaged database is mended from.

A run that was trained on another machine has none here; `spiral sync` from there brings it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from spiral_core.errors import DecodeError
from spiral_core.wire import codec, records
from spiral_core.wire.messages import Logged, Thinned
from spiral_server.store.protocol import Entry

log = structlog.get_logger(__name__)

_READ_BYTES = 1 << 20
_THINNED = str(Thinned.__struct_config__.tag).encode()


def logs(folder: Path) -> dict[int, list[Path]]:
    """Give the files of the run logs in a run directory, by incarnation, oldest first."""
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("frames*.log*"):
        name = records.LOG_NAME.fullmatch(path.name)
        if name is not None:
            found.setdefault(int(name["incarnation"] or 0), {})[int(name["part"] or 0)] = path
    return {incarnation: [found[incarnation][part] for part in sorted(found[incarnation])] for incarnation in found}


def entries(folder: Path, incarnation: int, wanted: Callable[[int], bool]) -> Iterator[Entry]:
    """Give the messages of an incarnation whose sequence numbers are wanted, as far as its log holds.

    What says that the log was thinned out is given in any case.
    """
    for path in logs(folder).get(incarnation, []):
        try:
            for data in _messages(path):
                if wanted(codec.sequence_number(data)) or _THINNED in data:
                    message = codec.decode(data)
                    if isinstance(message, Logged) and message.incarnation == incarnation:
                        yield Entry(message, data)
        except (DecodeError, OSError) as error:
            log.warning("a run log is damaged or cannot be read", path=str(path), error=str(error))


def _messages(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if file.read(len(records.MAGIC)) != records.MAGIC:
            raise DecodeError("not a run log")
        rest = b""
        while more := file.read(_READ_BYTES):
            rest += more
            offset = 0
            while (found := records.parse(rest, offset)) is not None:
                offset = found.end
                yield found.data
            rest = rest[offset:]
