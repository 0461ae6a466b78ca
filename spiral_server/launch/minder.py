"""The process that minds one engine: starts it, writes down how it fares, and outlives the server.

A server that is killed cannot see how its engines end, and one that is started again is not their parent. So each
engine has a parent of its own that does nothing but wait. Should the minder be killed, the lifeline between the two
ends the engine in order.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from spiral_server.launch import records
from spiral_server.launch.engine import EngineProcess
from spiral_server.launch.process import identified
from spiral_server.launch.records import LaunchRecord

LOOK_SECONDS = 5.0
"""Between two looks at the size of what the engine says."""
SAID_BYTES = 256 * 1024
"""An engine that goes on for months, on a bad network, must not fill the disk with its complaints."""


def mind(path: Path, server: str, token: str, words: Sequence[str]) -> int:
    """Start an engine, follow it to its end and write that down; give its exit status.

    Parameters
    ----------
    path : Path
        Of the record.
    server, token
        What its courier reports to.
    words : sequence of str
        Options of ``spiral train``.
    """
    me = identified(os.getpid())
    assert me is not None  # noqa: S101 - we run
    record = LaunchRecord(launch=path.stem, server=server, begun=time.time(), minder=me)
    records.write(path, record)
    read_end, write_end = os.pipe()
    engine = EngineProcess(words, server=server, token=token, report=write_end)
    os.close(write_end)
    signal.signal(signal.SIGTERM, lambda _number, _frame: engine.terminate())
    record = msgspec.structs.replace(record, engine=identified(engine.pid))
    _note(path, record)
    record = msgspec.structs.replace(record, **_told(read_end))
    _note(path, record)
    status = _wait(engine, records.stderr_of(path))
    if not record.run and not record.error:
        said = records.tail(path)
        record = msgspec.structs.replace(record, error=said[-1] if said else f"the engine ended with status {status}")
    _note(path, msgspec.structs.replace(record, ended=time.time(), status=status))
    engine.finish()
    return status


def _note(path: Path, record: LaunchRecord) -> None:
    # A disk that is full ends no engine: it trains on, and its end is seen although not how it came.
    with suppress(OSError):
        records.write(path, record)


def _told(pipe: int) -> dict[str, str]:
    """Wait for what the engine says of its start; nothing where it dies before."""
    with os.fdopen(pipe, "rb") as report:
        try:
            told = json.loads(report.readline() or b"{}")
        except ValueError:
            return {}
    return {name: str(told[name]) for name in ("run", "error", "field") if name in told}


def _wait(engine: EngineProcess, said: Path) -> int:
    while True:
        status = engine.wait(LOOK_SECONDS)
        if status is not None:
            return status
        with suppress(OSError):
            if said.stat().st_size > SAID_BYTES:
                _shorten(said)


def _shorten(said: Path) -> None:
    """Keep the end of what was said; whoever writes appends, so that it goes on behind."""
    with said.open("rb+") as file:
        file.seek(-SAID_BYTES // 4, os.SEEK_END)
        rest = file.read()
        file.truncate(0)
        file.seek(0)
        file.write(rest)


def main(words: Sequence[str]) -> int:
    """Mind an engine: ``RECORD SERVER OPTION...``, with the token in ``SPIRAL_TOKEN``."""
    # What ends a terminal's programs is not meant for an engine that is to outlive its server.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path, server, *options = words
    return mind(Path(path), server, os.environ.get("SPIRAL_TOKEN", ""), options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) and 1)
