"""The thread of a store that writes: gathers what arrives within `GATHER_SECONDS` into one commit for each run.

A commit costs a sync of the disk and not the rows in it. Commands are not kept waiting: they are put down by
themselves as they come (`redo`), old frames are packed in parts, between which they come, and while one is under way
nothing is begun that can wait (`WritingThread.hold`). Where commands follow each other, what had to wait is done right
behind the acknowledgement of one (`WritingThread.rest`), and not when the next one may come.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from spiral_core.wire.messages import CommandRecord
from spiral_core.wire.parts import RunSummary
from spiral_server.store.catalog import Catalog
from spiral_server.store.complaint import complain
from spiral_server.store.errors import StoreError
from spiral_server.store.redo import Disk, Redo
from spiral_server.store.run_writer import RunWriter

GATHER_SECONDS = 0.05
"""Longest time that a message waits for others to share its commit."""
HELD_SECONDS = 0.1
"""Longest time that a message waits while commands come one behind the other."""
STEERING_SECONDS = 0.5
"""Whoever has given a command soon gives another one: for so long packing is begun behind acknowledgements alone."""
REST_SECONDS = 0.006
"""Packing is begun for so long behind an acknowledgement and the commit that follows it; its parts take 1 to 3 ms."""
LOOK_SECONDS = 0.5
"""Between two looks whether what was left of packing can be done."""
GATHER_JOBS = 256
"""Most jobs of one commit: bounds how long a command can wait for the commit before it."""
OPEN_RUNS = 16
"""Databases kept open for writing."""


class _Rest:
    """Says that a command is over."""


@dataclass
class Job:
    """Something to write to a run, and whom to tell."""

    run: str
    work: Callable[[RunWriter], Any] | None
    """None lets go of the run, which need not be readable for that."""
    urgent: bool = True
    alone: bool = False
    """Not inside a transaction; such a job is urgent."""
    ahead: bool = False
    """Owes nothing to what is being gathered, and somebody waits: is done at once."""
    appends: bool = False
    """Part of a gapless sequence: not to be written when the part before it could not be."""
    done: Future[Any] = field(default_factory=Future)


class WritingThread:
    """Writes to all runs of a directory.

    Parameters
    ----------
    path : callable
        Gives the file of a run's database.
    runs : Mapping
        The list of runs as it is now.
    catalog : Catalog
        Used by this thread alone until it is closed.
    """

    def __init__(self, path: Callable[[str], Path], runs: Mapping[str, RunSummary], catalog: Catalog) -> None:
        self._path = path
        self._runs = runs
        self._catalog = catalog
        self._disk = Disk()
        self._unsettled: set[str] = set()
        self._writers: OrderedDict[str, RunWriter] = OrderedDict()
        self._broken: set[str] = set()
        self._jobs: queue.SimpleQueue[Job | RunSummary | _Rest | None] = queue.SimpleQueue()
        self._held = 0.0
        self._resting = False
        """Whether what was gathered last was behind an acknowledgement."""
        self._rest = 0.0
        """Until when packing may be begun there."""
        self._left: set[str] = set()
        """Runs of which some was left."""
        self._steered = 0.0
        """Until when it may be begun there alone."""
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="spiral-store", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Have something done; the future is resolved when it is on disk."""
        # What was handed in is done, also when whoever waits for it goes away: nobody can cancel it any more.
        job.done.set_running_or_notify_cancel()
        if self._closed:
            job.done.set_exception(StoreError("the store is closed"))
        else:
            self._jobs.put(job)
        return job.done

    def journal(self, record: CommandRecord, *, at_once: bool) -> Future[Any]:
        """Have a command put down; the future is resolved when it is on disk.

        ``at_once``: before this returns, where the disk is quick. Then it overtakes what was handed in before.
        """
        writer = None if self._closed else self._writers.get(record.run)
        if writer is not None and writer.redo.crowded:
            # Whoever trains or watches has the run written before; here nobody does.
            self.submit(Job(record.run, lambda _: None, urgent=False))
        job = Job(record.run, lambda writer: writer.redo.append(record), alone=True, ahead=True)
        try:
            if at_once and writer is not None and writer.redo.append_soon(record):
                job.done.set_result(None)
                return job.done
        except Exception as error:  # noqa: BLE001 - as on the thread: whoever waits must hear of it
            self._fail(record.run, [job], error)
            return job.done
        return self.submit(job)

    def pending(self, run: str) -> Redo | None:
        """Give the commands of a run that are not in their table yet; None where it is not open."""
        writer = self._writers.get(run)
        return None if writer is None else Redo(writer.redo.pending, writer.redo.damage, 0)

    def note(self, summary: RunSummary) -> None:
        """Keep a line of the list of runs, some time soon."""
        if not self._closed:
            self._jobs.put(summary)

    def hold(self, seconds: float) -> None:
        """Begin nothing that nobody waits for, for so long from now: a command is under way."""
        now = time.monotonic()
        self._held = now + seconds
        self._steered = now + STEERING_SECONDS

    def rest(self, seconds: float) -> None:
        """Do what waits, so long from now: the command is over."""
        self._held = time.monotonic() + seconds
        if not self._closed:
            self._jobs.put(_Rest())

    def forgive(self, run: str) -> None:
        """Take appends to a run again after one that failed; called by a job."""
        self._broken.discard(run)

    def close(self) -> None:
        """Write what waits, then close all databases and the catalogue."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        for writer in self._writers.values():
            writer.close()
        for run in self._unsettled & self._runs.keys():
            self._catalog.note(self._runs[run], settled=not self._runs[run].trouble)
        self._catalog.close()

    def _write(self) -> None:
        running = True
        while running:
            jobs, summaries, running = self._gather()
            by_run: dict[str, list[Job]] = {}
            for job in jobs:
                by_run.setdefault(job.run, []).append(job)
            for run, batch in by_run.items():
                self._commit(run, batch)
            if self._resting:
                self._rest = time.monotonic() + REST_SECONDS
            self._left = {run for run in {*by_run, *self._left} if run in self._writers and self._compact(run)}
            for summary in summaries.values():
                self._settle(partial(self._catalog.note, summary, settled=False))

    def _gather(self) -> tuple[list[Job], dict[str, RunSummary], bool]:
        """Wait for work, then for more of it; the last value tells whether to go on."""
        jobs: list[Job] = []
        summaries: dict[str, RunSummary] = {}
        begun: float | None = None
        self._resting = False
        while len(jobs) < GATHER_JOBS:
            try:
                item = self._jobs.get(timeout=self._patience(begun))
            except queue.Empty:
                if begun is None or self._patience(begun) == 0.0:
                    break
                continue
            if item is None:
                return jobs, summaries, False
            if isinstance(item, Job) and item.ahead:
                self._commit(item.run, [item])
                # What was gathered is not to wait until no more of them come.
                if self._patience(begun) == 0.0:
                    break
                continue
            if begun is None:
                begun = time.monotonic()
            if isinstance(item, _Rest):
                self._resting = True
                continue
            if isinstance(item, RunSummary):
                summaries[item.id] = item
                continue
            jobs.append(item)
            if item.urgent:
                break
        return jobs, summaries, True

    def _patience(self, begun: float | None) -> float | None:
        """Give the seconds to wait for more than what has been gathered since then."""
        if begun is None:
            return LOOK_SECONDS if self._left else None
        until = max(begun + (0.0 if self._resting else GATHER_SECONDS), min(self._held, begun + HELD_SECONDS))
        return max(0.0, until - time.monotonic())

    def _commit(self, run: str, batch: list[Job]) -> None:
        if batch[-1].alone:
            *batch, last = batch
            if batch:
                self._commit(run, batch)
            self._do_alone(run, last)
            return
        refused = [job for job in batch if job.appends] if run in self._broken else []
        if refused:
            # They harm nobody else: what a person asks for in the same moment is written.
            self._fail(run, refused, StoreError("what came before is missing"))
            batch = [job for job in batch if not job.appends]
        if not batch:
            return
        try:
            writer = self._writer(run)
            with writer.transaction():
                results = [None if job.work is None else job.work(writer) for job in batch]
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._fail(run, batch, error)
            return
        for job, result in zip(batch, results, strict=True):
            job.done.set_result(result)

    def _compact(self, run: str) -> bool:
        """Pack while nobody waits; tell whether something is left that can be packed later."""
        writer = self._writers[run]
        while writer.compactable:
            if not (writer.overdue or self._is_quiet()):
                return True
            if not self._settle(writer.compact_some):
                break
        return False

    def _is_quiet(self) -> bool:
        """Tell whether nobody waits, nor is likely to before a part of packing is done."""
        now = time.monotonic()
        return self._jobs.empty() and now >= self._held and (now < self._rest or now >= self._steered)

    def _do_alone(self, run: str, job: Job) -> None:
        try:
            if job.work is None:
                self._let_go(run)
                job.done.set_result(None)
                return
            writer = self._writer(run)
            job.done.set_result(job.work(writer))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fail(run, [job], error)

    def _let_go(self, run: str) -> None:
        """Close a run's database and forget its line of the list."""
        writer = self._writers.pop(run, None)
        if writer is not None:
            writer.close()
        self._unsettled.discard(run)
        self._broken.discard(run)
        self._catalog.forget(run)

    def _fail(self, run: str, batch: list[Job], error: Exception) -> None:
        complain("a commit failed", run=run, error=str(error))
        if any(job.appends for job in batch):
            self._broken.add(run)
        for job in batch:
            job.done.set_exception(StoreError(f"run {run} cannot be written: {error}"))

    def _settle(self, work: Callable[[], None]) -> bool:
        """Do work that nobody waits for and that may be done again later; tell whether it was done."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the writing thread must outlive it
            complain("upkeep of the store failed", error=str(error))
            return False
        return True

    def _writer(self, run: str) -> RunWriter:
        writer = self._writers.get(run)
        if writer is None:
            while len(self._writers) >= OPEN_RUNS:
                self._writers.popitem(last=False)[1].close()
            writer = self._writers[run] = RunWriter(run, self._path(run), self._disk)
        self._writers.move_to_end(run)
        if run not in self._unsettled:
            self._unsettled.add(run)
            summary = self._runs.get(run)
            if summary is not None:
                self._catalog.note(summary, settled=False)
        return writer
