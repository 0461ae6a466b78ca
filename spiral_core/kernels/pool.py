"""Runs a kernel over numbered chunks, on the calling thread and a few workers.

The chunks are cut by size alone, never by the number of threads, and each writes its own partial result, so every
result is bit-identical whatever the number of threads. Workers run kernels that release the interpreter lock and
nothing else; between kernels that follow each other closely they wait without sleeping (`spiral_core.kernels.team`).
BLAS is held to one thread: two thread pools that fight cost several times what they bring.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVarTuple

import numpy as np

# Imported before the limit is set, because the limit reaches only libraries that are already loaded: this one is what
# compiled code calls for matrix products.
import scipy.linalg.cython_blas  # noqa: F401
from numpy.typing import DTypeLike
from threadpoolctl import threadpool_limits

from spiral_core.errors import ArgumentError
from spiral_core.kernels import team
from spiral_core.kernels.accelerate import FLOAT, KernelEntry, entry_of
from spiral_core.kernels.atomic import WORD

Ts = TypeVarTuple("Ts")

RangedKernel: TypeAlias = Callable[[int, int, int, *Ts], None]
"""``kernel(start, stop, slot, *args)``: does the chunks ``start <= k < stop`` with the scratch of ``slot``."""

LOOKS = 50_000
"""How often a worker looks for the next job before it sleeps: one millisecond, about, which is longer than what lies
between two kernels of a training step."""

_BLAS_LIMIT = threadpool_limits(limits=1, user_api="blas")


class _Team:
    """The workers and the block of words that they share with whoever calls."""

    def __init__(self, threads: int) -> None:
        # Lines of a cache are 64 bytes; words on two of them are never written by accident together.
        whole = np.zeros(team.words(threads) + team.LINE, np.int64)
        skipped = -(whole.ctypes.data // WORD) % team.LINE
        self.words = whole[skipped : skipped + team.words(threads)]
        self.block = int(self.words.ctypes.data)
        self.words[team.SHARE_OUT] = team.address_of(team.share_out, team.SHARE_OUT_SIGNATURE)
        self.asleep: list[threading.Lock] = []
        self.workers = [
            threading.Thread(target=self._serve, args=(slot,), name=f"spiral-kernel-{slot}", daemon=True)
            for slot in range(1, threads)
        ]
        team.address_of(team.serve, team.SERVE_SIGNATURE)
        for worker in self.workers:
            worker.start()

    def _serve(self, slot: int) -> None:
        bell = threading.Lock()
        bell.acquire()
        while not self.words[team.STOP]:
            team.serve(self.block, slot, LOOKS)
            self.asleep.append(bell)
            # Rung once for each time that it was put on the list.
            bell.acquire()

    def wake(self) -> None:
        while self.asleep:
            self.asleep.pop().release()

    def dismiss(self) -> None:
        self.words[team.STOP] = 1
        for worker in self.workers:
            while worker.is_alive():
                self.wake()
                worker.join(0.01)


def _default_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available - 1)


class _Pool:
    """The team of this process; ``busy`` is held while a kernel is spread over it."""

    def __init__(self) -> None:
        self.threads = _default_threads()
        self.team: _Team | None = None
        self.busy = threading.Lock()

    def resize(self, threads: int) -> None:
        with self.busy:
            self._dismiss()
            self.threads = threads

    def hire(self) -> _Team:
        if self.team is None:
            self.team = _Team(self.threads)
        return self.team

    def _dismiss(self) -> None:
        gone, self.team = self.team, None
        if gone is not None:
            gone.dismiss()

    def close(self) -> None:
        """At exit: a thread in compiled code when the interpreter is taken down would end the process with a crash."""
        if self.busy.acquire(timeout=1):
            self._dismiss()

    def forget(self) -> None:
        """After a fork the threads are gone and the lock may be held by nobody."""
        self.team = None
        self.busy = threading.Lock()


_POOL = _Pool()
atexit.register(_POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)


class _Way:
    """How a kernel is reached by a team, for each float type that it was compiled for."""

    def __init__(self, entry: KernelEntry) -> None:
        if not entry.ranged:
            raise ArgumentError(f"kernel {entry.name!r} does no range of chunks: call it as it is")
        self.entry = entry
        # Which argument tells the float type; the first three are start, stop and slot.
        kinds = entry.kinds()[3:]
        self.telling = next((index for index, kind in enumerate(kinds) if kind.startswith(f"{FLOAT}[")), None)
        self.forms: dict[str, tuple[Callable[..., int], int]] = {}

    def form(self, args: tuple[Any, ...]) -> tuple[Callable[..., int], int]:
        char = "f" if self.telling is None else args[self.telling].dtype.char
        return self.forms.get(char) or self.compile(char)

    def compile(self, dtype: DTypeLike) -> tuple[Callable[..., int], int]:
        char = np.dtype(dtype).char
        if char not in self.forms:
            signature = self.entry.signature(char)
            self.forms[char] = team.entrance(self.entry, signature), team.address_of(self.entry.dispatcher, signature)
        return self.forms[char]


_WAYS: dict[Callable[..., None], _Way] = {}


def way_of(kernel: Callable[..., None]) -> _Way:
    """Return how a team reaches a kernel.

    Raises
    ------
    ArgumentError
        Not declared as a kernel, or one that does no range of chunks.
    """
    way = _WAYS.get(kernel)
    if way is None:
        way = _WAYS[kernel] = _Way(entry_of(kernel))
    return way


def set_num_threads(threads: int) -> None:
    """Set how many threads run kernels, the calling thread included; 1 means no workers at all.

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


def run(kernel: RangedKernel[*Ts], chunks: int, *args: *Ts) -> None:
    """Run ``kernel(start, stop, slot, *args)`` so that the ranges cover ``0 <= k < chunks`` once.

    Parameters
    ----------
    kernel : callable
        A declared kernel whose chunks do not depend on each other. Scratch arrays have a leading axis of at least
        `get_num_threads` entries, indexed by ``slot``.
    chunks : int
        How many chunks there are.

    Raises
    ------
    ArgumentError
        Not a declared kernel, or one that does no range of chunks.
    RuntimeError
        The kernel failed; some chunks may be missing.

    Notes
    -----
    A second thread that calls this while the team is busy does its work alone. A worker that sleeps is woken, and the
    work goes on without it until it is there.
    """
    threads = min(_POOL.threads, chunks)
    if threads <= 1 or not _POOL.busy.acquire(blocking=False):
        kernel(0, chunks, 0, *args)
        return
    try:
        spread, function = (_WAYS.get(kernel) or way_of(kernel)).form(args)
        crew = _POOL.team or _POOL.hire()
        if crew.asleep:
            crew.wake()
        failed = spread(crew.block, function, chunks, threads, *args)
    finally:
        _POOL.busy.release()
    if failed:
        raise RuntimeError(f"kernel {kernel.__name__!r} failed: is there memory left?")
