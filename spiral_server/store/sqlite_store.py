"""`RunStore` with SQLite: one database per run directory, one thread that writes to all of them.

The thread gathers what arrives within `GATHER_SECONDS` into one commit per run, because a commit costs a sync of the
disk and not the rows in it. Commands are not kept waiting: old frames are packed in parts, between which they come.
"""

from __future__ import annotations

import fcntl
import os
import queue
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from spiral_core.wire.messages import CommandRecord, HeatMaps
from spiral_core.wire.parts import RunSummary
from spiral_server.store import mending, migrations
from spiral_server.store.catalog import Catalog
from spiral_server.store.errors import LogdirInUseError, StoreError, UnknownRunError
from spiral_server.store.protocol import Damage, Entry, History, SeriesQuery, SeriesRead, check_run_id
from spiral_server.store.rebuild import view_of
from spiral_server.store.run_reader import RunReader
from spiral_server.store.run_writer import RunWriter
from spiral_server.store.schema import RUN_FILE, UNREADABLE

log = structlog.get_logger(__name__)

LOCK_FILE = "server.lock"
GATHER_SECONDS = 0.02
"""Longest time that a message waits for others to share its commit."""
GATHER_JOBS = 256
"""Most jobs of one commit: bounds how long a command can wait for the commit before it."""
MEND_SECONDS = 30.0
"""Longest time that a reading waits for the mending of what it has found damaged."""
OPEN_RUNS = 16
"""Databases kept open for writing."""


@dataclass
class _Job:
    """Something to write to a run, and whom to tell."""

    run: str
    work: Callable[[RunWriter], Any]
    urgent: bool
    alone: bool = False
    """Not inside a transaction; such a job is urgent."""
    appends: bool = False
    """Part of a gapless sequence: not to be written when the part before it could not be."""
    done: Future[Any] = field(default_factory=Future)


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
        self._current: set[str] = set()
        """Runs whose database is known to be up to date."""
        self._running = False
        self._hopeless: dict[str, set[Damage]] = {}
        """Damage that could not be mended when it was read."""
        try:
            self._catalog = Catalog(logdir, self._summary)
        except BaseException:
            os.close(self._lock)
            raise
        self._runs = dict(self._catalog.runs)
        self._unsettled: set[str] = set()
        self._writers: OrderedDict[str, RunWriter] = OrderedDict()
        self._broken: set[str] = set()
        self._jobs: queue.SimpleQueue[_Job | RunSummary | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="spiral-store", daemon=True)
        self._thread.start()
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
        history = self._reader(run).history()
        if self._mended(run, history.damage):
            history = self._reader(run).history()
        self._warn(run, history.damage)
        return history

    def _warn(self, run: str, found: Sequence[Damage]) -> None:
        for damage in found:
            log.warning("damaged data is left out", run=run, step=damage.first_step, reason=damage.reason)

    def _mended(self, run: str, found: Sequence[Damage]) -> bool:
        """Mend what a reading has found, where that has not been tried in vain; tell whether to read again."""
        new = set(found) - self._hopeless.get(run, set())
        # While the list of runs is made, nobody writes yet.
        if not any(damage.kind in mending.MENDABLE for damage in new) or not self._running:
            return False
        self._hopeless.setdefault(run, set()).update(new)
        try:
            self._mend(run, new).result(MEND_SECONDS)
        except (StoreError, TimeoutError) as error:
            log.error("damaged data could not be mended", run=run, error=str(error))
            return False
        return True

    def _mend(self, run: str, damage: Iterable[Damage]) -> Future[None]:
        folder = self._path(run).parent
        return self._submit(_Job(run, lambda writer: mending.mend(writer, folder, damage), urgent=True))

    # --- upkeep

    def verify(self, run: str, *, repair: bool = False) -> list[Damage]:
        """Read everything of a run and give what is damaged; ``repair``: after mending it from the run log."""
        reader = self._reader(run)
        found = mending.verify(reader)
        if repair and found:
            self._mend(run, found).result()
            self._hopeless.pop(run, None)
            found = mending.verify(reader)
        return found

    def compact(self, run: str) -> tuple[int, int]:
        """Pack what is loose and give free space back; give the bytes before and after."""
        self._reader(run)
        before = _bytes_of(self._path(run))
        self._submit(_Job(run, RunWriter.pack_all, urgent=True)).result()
        self._submit(_Job(run, RunWriter.shrink, urgent=True, alone=True)).result()
        return before, _bytes_of(self._path(run))

    def delete(self, run: str) -> None:
        """Delete a run with everything in its directory."""
        path = self._path(run)
        if not path.is_file():
            raise UnknownRunError(f"there is no run {run!r} in {self._logdir}")
        self._submit(_Job(run, lambda _: self._let_go(run), urgent=True, alone=True)).result()
        self._runs.pop(run, None)
        self._current.discard(run)
        # First out of the way as a whole: a kill leaves a run or none, never half of one.
        doomed = path.parent.with_name(f".deleted-{run}")
        try:
            path.parent.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise StoreError(f"run {run} cannot be deleted: {error}") from error

    def series(self, run: str, query: SeriesQuery) -> SeriesRead:
        """Read points, decimated."""
        read = self._reader(run).series(query)
        if self._mended(run, read.damage):
            read = self._reader(run).series(query)
        self._warn(run, read.damage)
        return read

    def heat_maps(self, run: str, step: int | None) -> HeatMaps | None:
        """Read the newest heat maps at or before a step; None for the newest of all."""
        return self._reader(run).heat_maps(step)

    # --- writing

    def stored(self, run: str, incarnation: int) -> Future[int]:
        """Give the last sequence number on disk, -1 for none, once all that was given before is written or failed."""

        def work(writer: RunWriter) -> int:
            # A disk that was full must have room again before the engine is asked for more.
            writer.probe()
            self._broken.discard(run)
            return writer.stored(incarnation)

        return self._submit(_Job(check_run_id(run), work, urgent=True))

    def append(self, run: str, entries: Sequence[Entry]) -> Future[None]:
        """Keep messages; the future is resolved when they are on disk."""
        return self._submit(_Job(check_run_id(run), lambda writer: writer.append(entries), urgent=False, appends=True))

    def journal(self, record: CommandRecord) -> Future[None]:
        """Keep a command; the future is resolved when it is on disk."""
        return self._submit(_Job(check_run_id(record.run), lambda writer: writer.journal(record), urgent=True))

    def note(self, summary: RunSummary) -> None:
        """Keep a line of the list of runs, some time soon."""
        self._runs[check_run_id(summary.id)] = summary
        if not self._closed:
            self._jobs.put(summary)

    def _submit(self, job: _Job) -> Future[Any]:
        # What was handed in is done, also when whoever waits for it goes away: nobody can cancel it any more.
        job.done.set_running_or_notify_cancel()
        if self._closed:
            job.done.set_exception(StoreError("the store is closed"))
        else:
            self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Write what waits, then let go of the directory."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        for writer in self._writers.values():
            writer.close()
        for run in self._unsettled & self._runs.keys():
            self._catalog.note(self._runs[run], settled=True)
        self._catalog.close()
        os.close(self._lock)

    # --- the writing thread

    def _write(self) -> None:
        running = True
        while running:
            jobs, summaries, running = self._gather()
            by_run: dict[str, list[_Job]] = {}
            for job in jobs:
                by_run.setdefault(job.run, []).append(job)
            for run, batch in by_run.items():
                self._commit(run, batch)
            for summary in summaries.values():
                self._settle(partial(self._catalog.note, summary, settled=False))

    def _gather(self) -> tuple[list[_Job], dict[str, RunSummary], bool]:
        """Wait for work, then for more of it; the last value tells whether to go on."""
        jobs: list[_Job] = []
        summaries: dict[str, RunSummary] = {}
        deadline: float | None = None
        while len(jobs) < GATHER_JOBS:
            try:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                item = self._jobs.get(timeout=wait)
            except queue.Empty:
                break
            if item is None:
                return jobs, summaries, False
            if deadline is None:
                deadline = time.monotonic() + GATHER_SECONDS
            if isinstance(item, RunSummary):
                summaries[item.id] = item
                continue
            jobs.append(item)
            if item.urgent:
                break
        return jobs, summaries, True

    def _commit(self, run: str, batch: list[_Job]) -> None:
        if batch[-1].alone:
            # It is urgent, so nothing was gathered behind it.
            *batch, last = batch
            if batch:
                self._commit(run, batch)
            self._do_alone(run, last)
            return
        results: list[Any] = []
        try:
            writer = self._writer(run)
            with writer.transaction():
                for job in batch:
                    if job.appends and run in self._broken:
                        raise StoreError("what came before is missing")
                    results.append(job.work(writer))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._fail(run, batch, error)
            return
        for job, result in zip(batch, results, strict=True):
            job.done.set_result(result)
        while writer.compactable and (self._jobs.empty() or writer.overdue):
            if not self._settle(writer.compact_some):
                break

    def _do_alone(self, run: str, job: _Job) -> None:
        try:
            job.done.set_result(job.work(self._writer(run)))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fail(run, [job], error)

    def _let_go(self, run: str) -> None:
        """Close a run's database and forget its line of the list."""
        self._writers.pop(run).close()
        self._unsettled.discard(run)
        self._catalog.forget(run)

    def _fail(self, run: str, batch: list[_Job], error: Exception) -> None:
        _complain("a commit failed", run=run, error=str(error))
        if any(job.appends for job in batch):
            self._broken.add(run)
        for job in batch:
            job.done.set_exception(StoreError(f"run {run} cannot be written: {error}"))

    def _settle(self, work: Callable[[], None]) -> bool:
        """Do work that nobody waits for and that may be done again later; tell whether it was done."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the writing thread must outlive it
            _complain("upkeep of the store failed", error=str(error))
            return False
        return True

    def _writer(self, run: str) -> RunWriter:
        writer = self._writers.get(run)
        if writer is None:
            while len(self._writers) >= OPEN_RUNS:
                self._writers.popitem(last=False)[1].close()
            writer = self._writers[run] = RunWriter(run, self._path(run))
        self._writers.move_to_end(run)
        if run not in self._unsettled:
            self._unsettled.add(run)
            summary = self._runs.get(run)
            if summary is not None:
                self._catalog.note(summary, settled=False)
        return writer


def _complain(event: str, **details: str) -> None:
    """Say what went wrong, where that can be written: the log may lie on the very disk that is full."""
    with suppress(OSError):
        log.error(event, **details)


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
