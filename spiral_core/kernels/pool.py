"""Runs a kernel over numbered chunks, on the calling thread and a few workers.

The chunks are cut by size alone, never by the number of threads, and each writes its own partial result, so every
result is bit-identical whatever the number of threads. Workers run kernels that release the interpreter lock and
nothing else. BLAS is held to one thread: two thread pools that fight cost several times what they bring.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeAlias

# Imported before the limit is set, because the limit reaches only libraries that are already loaded: this one is what
# compiled code calls for matrix products.
import scipy.linalg.cython_blas  # noqa: F401
from threadpoolctl import threadpool_limits

from spiral_core.errors import ArgumentError

P = ParamSpec("P")

RangedKernel: TypeAlias = Callable[Concatenate[int, int, int, P], None]
"""``kernel(start, stop, slot, *args)``: does the chunks ``start <= k < stop`` with the scratch of ``slot``."""

_Job: TypeAlias = tuple[Callable[..., None], int, int, int, tuple[Any, ...], dict[str, Any]]

_BLAS_LIMIT = threadpool_limits(limits=1, user_api="blas")


class _Worker:
    """One thread that waits for jobs; ``done`` receives None or the exception of each job."""

    def __init__(self, index: int) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        thread = threading.Thread(target=self._serve, name=f"spiral-kernel-{index}", daemon=True)
        thread.start()

    def _serve(self) -> None:
        while (job := self.jobs.get()) is not None:
            function, start, stop, slot, arguments, named = job
            try:
                function(start, stop, slot, *arguments, **named)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                self.done.put(error)
            else:
                self.done.put(None)
            # Not to keep the arrays of the last job alive while waiting.
            del job, arguments, named


def _default_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available - 1)


class _Pool:
    """The workers of this process; ``busy`` is held while a kernel is spread over them."""

    def __init__(self) -> None:
        self.threads = _default_threads()
        self.workers: list[_Worker] = []
        self.busy = threading.Lock()

    def resize(self, threads: int) -> None:
        with self.busy:
            self.threads = threads
            while len(self.workers) > threads - 1:
                self.workers.pop().jobs.put(None)

    def hire(self, count: int) -> list[_Worker]:
        while len(self.workers) < count:
            self.workers.append(_Worker(len(self.workers) + 1))
        return self.workers[:count]

    def dismiss(self) -> None:
        """Let the workers end after the job at hand; the next run hires others."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.jobs.put(None)

    def forget(self) -> None:
        """After a fork the threads are gone and the lock may be held by nobody."""
        self.workers = []
        self.busy = threading.Lock()


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)


def set_num_threads(threads: int) -> None:
    """Set how many threads run kernels, the calling thread included; 1 means no pool at all.

    Raises
    ------
    ArgumentError
        Not an integer of at least 1. The number stays as it was.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ArgumentError(f"threads must be an integer >= 1, got {threads!r}")
    _POOL.resize(threads)


def get_num_threads() -> int:
    """Return how many threads run kernels; at first the number of cores minus one, and at least 1."""
    return _POOL.threads


def run(kernel: RangedKernel[P], chunks: int, *args: P.args, **kwargs: P.kwargs) -> None:
    """Run ``kernel(start, stop, slot, *args)`` so that the ranges cover ``0 <= k < chunks`` once.

    Parameters
    ----------
    kernel : callable
        A kernel whose chunks do not depend on each other. Scratch arrays have a leading axis of at least
        `get_num_threads` entries, indexed by ``slot``.
    chunks : int
        How many chunks there are.

    Notes
    -----
    A second thread that calls this while the pool is busy does its work alone.
    """
    share = min(_POOL.threads, chunks)
    if share <= 1 or not _POOL.busy.acquire(blocking=False):
        kernel(0, chunks, 0, *args, **kwargs)
        return
    collected = False
    try:
        workers = _POOL.hire(share - 1)
        edges = [chunks * index // share for index in range(share + 1)]
        try:
            for index, worker in enumerate(workers, start=1):
                worker.jobs.put((kernel, edges[index], edges[index + 1], index, args, kwargs))
            try:
                kernel(0, edges[1], 0, *args, **kwargs)
            finally:
                failures = [worker.done.get() for worker in workers]
                collected = True
        finally:
            # An interrupt (Ctrl-C) came before every answer was in: one left behind would end a later run too early.
            if not collected:
                _POOL.dismiss()
        for failure in failures:
            if failure is not None:
                raise failure
    finally:
        _POOL.busy.release()
