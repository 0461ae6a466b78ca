"""What is kept of each engine that a server has started: ``LOGDIR/server.engines/<launch>.json`` and ``.stderr``.

Written by the minder of the engine alone, whole or not at all, and readable by this user only. A server that is started
again reads them and knows its engines; the files of those that have ended tell how they did.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from spiral_server.launch.private import write_private
from spiral_server.launch.process import Process

log = structlog.get_logger(__name__)

FOLDER = "server.engines"
KEPT = 200
"""Engines that have ended and are still remembered."""
TAIL_BYTES = 4000
TAIL_LINES = 12
"""Of what an engine said on standard error; the reason of its end is in the last lines."""


class LaunchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One engine that was started, from its first moment to its end."""

    launch: str
    server: str
    """Address that its courier reports to."""
    begun: float
    """Seconds since 1970."""
    minder: Process
    engine: Process | None = None
    """None before it was started."""
    run: str = ""
    """Empty until the engine has said it."""
    error: str = ""
    """Why the engine did not take what it was asked for."""
    field: str = ""
    """The field that is to blame, where it is one."""
    ended: float | None = None
    status: int | None = None
    """Exit status; negative for the signal that ended it. None while it runs, or where nobody was there to see."""

    @property
    def living(self) -> bool:
        """Whether the engine runs, or is about to."""
        return self.ended is None and (self.minder.alive or (self.engine is not None and self.engine.alive))


def path_of(logdir: Path, launch: str) -> Path:
    """Name the file of a launch."""
    return logdir / FOLDER / f"{launch}.json"


def stderr_of(path: Path) -> Path:
    """Name the file beside a record that its engine's standard error goes to."""
    return path.with_suffix(".stderr")


def write(path: Path, record: LaunchRecord) -> None:
    """Write a record, whole or not at all."""
    write_private(path, msgspec.to_builtins(record))


def read(path: Path) -> LaunchRecord | None:
    """Read a record; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LaunchRecord)
    except OSError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("a record of an engine cannot be read and is left out", path=str(path), error=str(error))
        return None


def tail(path: Path) -> list[str]:
    """Give the last lines that an engine said on standard error."""
    try:
        with stderr_of(path).open("rb") as said:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - TAIL_BYTES))
            lines = said.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    if size > TAIL_BYTES:
        lines = lines[1:]
    return [line for line in lines if line.strip()][-TAIL_LINES:]


def forget(path: Path) -> None:
    """Remove what is kept of a launch."""
    for one in (path, stderr_of(path)):
        with suppress(OSError):
            one.unlink()
