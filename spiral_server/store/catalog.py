"""The list of runs, kept beside them so that a start need not open every run.

Only a cache: `Catalog` reads a run anew when it was not settled, and all of them when the file is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from spiral_core.errors import SpiralError
from spiral_core.wire.parts import RunSummary
from spiral_server.store.protocol import is_run_id
from spiral_server.store.schema import (
    CATALOG_FILE,
    CATALOG_TABLES,
    CATALOG_VERSION,
    RUN_FILE,
    UNREADABLE,
    open_for_writing,
)

log = structlog.get_logger(__name__)


class Catalog:
    """The catalogue of one directory of runs.

    Parameters
    ----------
    logdir : Path
        The directory.
    read : callable
        Reads the summary of a run from its own database.
    """

    def __init__(self, logdir: Path, read: Callable[[str], RunSummary]) -> None:
        self._logdir = logdir
        self._connection = self._open()
        self.runs = self._refresh(read)

    def _open(self) -> sqlite3.Connection:
        path = self._logdir / CATALOG_FILE
        try:
            connection = open_for_writing(path, CATALOG_TABLES, CATALOG_VERSION)
        except UNREADABLE as error:
            log.warning("the catalogue is damaged and is made anew", path=str(path), error=str(error))
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            connection = open_for_writing(path, CATALOG_TABLES, CATALOG_VERSION)
        # The catalogue can be rebuilt: it need not survive the loss of power to the last line.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _refresh(self, read: Callable[[str], RunSummary]) -> dict[str, RunSummary]:
        known = dict(self._settled())
        runs: dict[str, RunSummary] = {}
        for run in self._directories():
            summary = known.get(run)
            if summary is None:
                try:
                    summary = read(run)
                except SpiralError as error:
                    log.warning("a run cannot be read", run=run, error=str(error))
                    runs[run] = self._unreadable(run, str(error))
                    continue
                self.note(summary, settled=True)
            runs[run] = summary
        self._connection.executemany("DELETE FROM runs WHERE id = ?", [(run,) for run in known.keys() - runs.keys()])
        return runs

    def _unreadable(self, run: str, reason: str) -> RunSummary:
        """Make the line of a run of which no more is known than that it is there; it is read anew at the next start."""
        written = (self._logdir / run / RUN_FILE).stat().st_mtime
        return RunSummary(
            id=run,
            name=run,
            status="lost",
            step=0,
            total_steps=0,
            model="",
            data="",
            created=written,
            updated=written,
            detail="",
            connected=False,
            trouble=reason,
        )

    def _directories(self) -> Iterator[str]:
        for path in sorted(self._logdir.iterdir()):
            if is_run_id(path.name) and (path / RUN_FILE).is_file():
                yield path.name

    def _settled(self) -> Iterator[tuple[str, RunSummary]]:
        for run, data in self._connection.execute("SELECT id, data FROM runs WHERE settled = 1"):
            try:
                yield run, msgspec.msgpack.decode(data, type=RunSummary)
            except msgspec.MsgspecError:
                continue

    def note(self, summary: RunSummary, *, settled: bool) -> None:
        """Write a line; one that is not settled is read anew at the next start."""
        data = msgspec.msgpack.encode(summary)
        self._connection.execute("REPLACE INTO runs VALUES (?, ?, ?)", (summary.id, data, settled))

    def forget(self, run: str) -> None:
        """Take a run from the list."""
        self._connection.execute("DELETE FROM runs WHERE id = ?", (run,))

    def close(self) -> None:
        """Close the catalogue."""
        self._connection.close()
