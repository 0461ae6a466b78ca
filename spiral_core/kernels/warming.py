"""Compiling kernels ahead of use, and the marks that say which ones this machine has compiled already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from numpy.typing import DTypeLike

from spiral_core.kernels import pool
from spiral_core.kernels.accelerate import DIRECTORY, KernelEntry, entries_of, float_name


def compile_plan(names: Sequence[str], dtype: DTypeLike) -> list[tuple[str, str]]:
    """Return ``(name, signature)`` of each kernel that `warm` would make ready, in order and without repeats.

    Raises
    ------
    ArgumentError
        An unknown kernel name, or a dtype other than float32 and float64.
    """
    return [(entry.name, entry.signature(dtype)) for entry in entries_of(names)]


def _shared(entry: KernelEntry) -> bool:
    return entry.ranged and pool.get_num_threads() > 1


def _mark(entry: KernelEntry, dtype: DTypeLike) -> Path:
    return DIRECTORY / f"{entry.name}.{float_name(dtype)}{'.shared' if _shared(entry) else ''}.ready"


def cold_count(names: Sequence[str], dtype: DTypeLike) -> int:
    """Return how many of these kernels have not been compiled on this machine yet (0: a warm start)."""
    return sum(not _mark(entry, dtype).exists() for entry in entries_of(names))


def warm(names: Sequence[str], dtype: DTypeLike, on_progress: Callable[[int, int, str], None] | None = None) -> None:
    """Compile kernels ahead of use, or load them from the disk cache.

    Parameters
    ----------
    names : sequence of str
        Kernel names, as `spiral_core.nn.Sequential.kernels` gives them; repeats are compiled once.
    dtype : float32 or float64
    on_progress : callable, optional
        Called as ``on_progress(done, total, name)`` before each kernel, and once more at the end with
        ``done == total`` and an empty name.

    Raises
    ------
    ArgumentError
        An unknown kernel name or dtype. Nothing was compiled.
    """
    entries = entries_of(names)
    float_name(dtype)
    report = on_progress or (lambda _done, _total, _name: None)
    for done, entry in enumerate(entries):
        report(done, len(entries), entry.name)
        # The one input and output here is writing the cache, after the kernel is ready for use: a full disk costs time
        # at the next start and nothing else.
        with suppress(OSError):
            entry.dispatcher.compile(entry.signature(dtype))
            if _shared(entry):
                pool.way_of(entry.dispatcher).compile(dtype)
        _note_ready(_mark(entry, dtype))
    report(len(entries), len(entries), "")


def _note_ready(mark: Path) -> None:
    if mark.exists():
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return
