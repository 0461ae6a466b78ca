"""`RunStore` with SQLite: one database per run directory, and one thread that writes to all of them (`writing`).

A command may be written by whoever gives it (`redo`).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import structlog

from spiral_core.wire.messages import CommandRecord, HeatMaps
from spiral_core.wire.parts import RunSummary
from spiral_server.store import mending, migrations, redo
from spiral_server.store.attempts import Attempts
from spiral_server.store.catalog import Catalog
from spiral_server.store.errors import LogdirInUseError, StoreError, UnknownRunError
from spiral_server.store.protocol import Damage, Entry, History, SeriesQuery, SeriesRead, check_run_id
from spiral_server.store.rebuild import view_of
from spiral_server.store.run_reader import RunReader
from spiral_server.store.run_writer import RunWriter
from spiral_server.store.schema import RUN_FILE, UNREADABLE
from spiral_server.store.series_reading import FOREVER
from spiral_server.store.writing import Job, WritingThread

log = structlog.get_logger(__name__)

LOCK_FILE = "server.lock"
_DELETED = ".deleted-"
MEND_SECONDS = 30.0
"""Longest time that a reading waits for the mending of what it has found damaged."""

Readable = TypeVar("Readable", History, SeriesRead)


class SqliteStore:
    """Runs in a directory.

    Parameters
    ----------
    logdir : Path
        Created when it is missing; held exclusively until `close`.

    Raises
    ------
    LogdirInUseError
        Another server holds the directory.
    """

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._lock = _lock(logdir)
        for left in logdir.glob(f"{_DELETED}*"):
            # By a server that was killed in the middle of it.
            shutil.rmtree(left, ignore_errors=True)
        self._current: set[str] = set()
        """Runs whose database is known to be up to date."""
        self._running = False
        self._attempts = Attempts()
        try:
            self._catalog = Catalog(logdir, self._summary)
        except BaseException:
            os.close(self._lock)
            raise
        self._runs = dict(self._catalog.runs)
        self._writing = WritingThread(self._path, self._runs, self._catalog)
        self._running = True

    def _path(self, run: str) -> Path:
        return self._logdir / check_run_id(run) / RUN_FILE

    def _reader(self, run: str) -> RunReader:
        path = self._path(run)
        if not path.is_file():
            raise UnknownRunError(f"there is no run {run!r} in {self._logdir}")
        if run not in self._current:
            # An older Spiral may have written it; one at a time brings it up to date.
            try:
                migrations.open_current(path).close()
            except UNREADABLE as error:
                raise StoreError(f"the data of run {run} cannot be read: {error}") from error
            self._current.add(run)
        return RunReader(run, path)

    def _summary(self, run: str) -> RunSummary:
        return view_of(run, self.history(run)).summary

    # --- reading

    def runs(self) -> list[RunSummary]:
        """List the runs, as they were when last noted."""
        return list(self._runs.values())

    def knows(self, run: str) -> bool:
        """Tell whether there is such a run."""
        return run in self._runs

    def history(self, run: str) -> History:
        """Read what the view of a run is rebuilt from."""
        # First, for they may be entered in the table at any moment.
        pending, damage = self._pending(run)
        history = self._mended(run, lambda: self._reader(run).history())
        # The newer state of a command takes the place of the older one.
        commands = {one.id: one for one in [*history.commands, *pending]}
        history.commands = sorted(commands.values(), key=lambda one: one.number)
        history.damage += damage
        return history

    def _pending(self, run: str) -> tuple[list[CommandRecord], list[Damage]]:
        """Read the commands that are not in their table yet, and what is wrong behind them."""
        left = self._writing.pending(run) if self._running else None
        if left is None:
            left = redo.read(self._path(run).with_name(redo.REDO_FILE))
        return left.records, [Damage(run, 0, 0, left.damage, "command")] if left.damage else []

    def _mended(self, run: str, read: Callable[[], Readable]) -> Readable:
        """Read; mend what is found damaged, where that has not been tried in vain, and read again."""
        got = read()
        mendable = [damage for damage in got.damage if damage.kind in mending.MENDABLE]
        # While the list of runs is made, nobody writes yet.
        claimed = self._attempts.claim(run, mendable) if mendable and self._running else set()
        if claimed:
            try:
                self._mend(run, claimed).result(MEND_SECONDS)
                got = read()
            except (StoreError, TimeoutError) as error:
                self._attempts.failed(run, claimed)
                log.error("damaged data could not be mended", run=run, error=str(error))
            else:
                self._attempts.tried(run, claimed, got.damage)
        for damage in got.damage:
            log.warning("damaged data is left out", run=run, step=damage.first_step, reason=damage.reason)
        return got

    def _mend(self, run: str, damage: Iterable[Damage]) -> Future[None]:
        folder = self._path(run).parent
        return self._writing.submit(Job(run, lambda writer: mending.mend(writer, folder, damage)))

    # --- upkeep

    def verify(self, run: str, *, repair: bool = False) -> list[Damage]:
        """Read everything of a run and give what is damaged; ``repair``: after mending it from the run log."""
        found = self._verified(run)
        if repair and any(damage.kind in mending.MENDABLE for damage in found):
            self._mend(run, found).result()
            self._attempts.forget(run)
            found = self._verified(run)
        return found

    def _verified(self, run: str) -> list[Damage]:
        try:
            return [*mending.verify(self._reader(run)), *self._pending(run)[1]]
        except UnknownRunError:
            raise
        except StoreError as error:
            # Whoever looks for damage is told of it, and goes on with the other runs.
            return [Damage(run, 0, FOREVER, str(error))]

    def compact(self, run: str) -> tuple[int, int]:
        """Pack what is loose and give free space back; give the bytes before and after."""
        self._reader(run)
        before = _bytes_of(self._path(run))
        self._writing.submit(Job(run, RunWriter.pack_all)).result()
        self._writing.submit(Job(run, RunWriter.shrink, alone=True)).result()
        return before, _bytes_of(self._path(run))

    def delete(self, run: str) -> None:
        """Delete a run with everything in its directory."""
        path = self._path(run)
        if not path.is_file():
            raise UnknownRunError(f"there is no run {run!r} in {self._logdir}")
        self._writing.submit(Job(run, None, alone=True)).result()
        # First out of the way as a whole: a kill leaves a run or none, never half of one.
        doomed = path.parent.with_name(f"{_DELETED}{run}-{secrets.token_hex(4)}")
        try:
            path.parent.rename(doomed)
        except OSError as error:
            raise StoreError(f"run {run} cannot be deleted: {error}") from error
        self._runs.pop(run, None)
        self._current.discard(run)
        self._attempts.forget(run)
        try:
            shutil.rmtree(doomed)
        except OSError as error:
            raise StoreError(f"run {run} is deleted, but {doomed} cannot be removed: {error}") from error

    def series(self, run: str, query: SeriesQuery) -> SeriesRead:
        """Read points, decimated."""
        return self._mended(run, lambda: self._reader(run).series(query))

    def heat_maps(self, run: str, step: int | None) -> HeatMaps | None:
        """Read the newest heat maps at or before a step; None for the newest of all."""
        return self._reader(run).heat_maps(step)

    # --- writing

    def stored(self, run: str, incarnation: int) -> Future[int]:
        """Give the last sequence number on disk, -1 for none, once all that was given before is written or failed."""

        def work(writer: RunWriter) -> int:
            # A disk that was full must have room again before the engine is asked for more.
            writer.probe()
            self._writing.forgive(run)
            return writer.stored(incarnation)

        return self._writing.submit(Job(check_run_id(run), work))

    def append(self, run: str, entries: Sequence[Entry]) -> Future[None]:
        """Keep messages; the future is resolved when they are on disk."""
        return self._writing.submit(
            Job(check_run_id(run), lambda writer: writer.append(entries), urgent=False, appends=True)
        )

    def journal(self, record: CommandRecord, *, at_once: bool = False) -> Future[None]:
        """Keep a command; the future is resolved when it is on disk (see `WritingThread.journal`)."""
        check_run_id(record.run)
        return self._writing.journal(record, at_once=at_once)

    def hold(self, seconds: float) -> None:
        """Begin nothing that nobody waits for, for so long from now: a command is under way."""
        self._writing.hold(seconds)

    def rest(self, seconds: float) -> None:
        """Do what waits, so long from now: the command is over."""
        self._writing.rest(seconds)

    def note(self, summary: RunSummary) -> None:
        """Keep a line of the list of runs, some time soon."""
        self._runs[check_run_id(summary.id)] = summary
        self._writing.note(summary)

    def close(self) -> None:
        """Write what waits, then let go of the directory."""
        if self._running:
            self._running = False
            self._writing.close()
            os.close(self._lock)


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


def _lock(logdir: Path) -> int:
    """Hold the directory; the system lets go of it when the process ends, however it ends."""
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(logdir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the directory of runs {logdir} cannot be used: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise LogdirInUseError(
            f"another server holds {logdir}: stop it, or choose another directory with --logdir"
        ) from error
    return handle
