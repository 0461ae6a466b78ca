"""Frames of a slow viewer, merged into few points with every minimum and maximum kept.

Bounded: a series never takes more than `MERGED_POINTS` points here, however long the viewer stays away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiral_core.arrays import F64
from spiral_core.wire.messages import Frame
from spiral_core.wire.parts import Array, Column
from spiral_server.live.decimation import Points, decimate

MERGED_POINTS = 480
"""Points of one series: a quarter of a full-width chart."""
MERGED_NONFINITE = 120
"""Non-finite points of one series kept one by one."""


def columns_of(frames: Sequence[Frame]) -> dict[int, tuple[F64, F64]]:
    """Sort the numbers of frames by series.

    Returns
    -------
    dict
        Series index to steps and values, both (M,) float64, in the order of ``frames``.
    """
    if not frames:
        return {}
    indices = [frame.index.numpy() for frame in frames]
    index = np.concatenate(indices)
    if not len(index):
        return {}
    values = np.concatenate([frame.values.numpy() for frame in frames]).astype(np.float64, copy=False)
    counts = [len(part) for part in indices]
    steps = np.repeat(np.array([frame.step for frame in frames], dtype=np.float64), counts)
    order = np.argsort(index, kind="stable")
    index, steps, values = index[order], steps[order], values[order]
    starts = np.flatnonzero(np.diff(index.astype(np.int64), prepend=-1))
    ends = np.append(starts[1:], len(index))
    return {int(index[start]): (steps[start:end], values[start:end]) for start, end in zip(starts, ends, strict=True)}


def column(index: int, points: Points) -> Column:
    """Pack points for the wire."""
    return Column(
        index=index,
        steps=Array.of(points.steps, "<f8"),
        values=Array.of(points.values, "<f8"),
        reduced=points.reduced,
    )


class MergedFrames:
    """Accumulator of frames that were not sent one by one."""

    def __init__(self) -> None:
        self._series: dict[int, Points] = {}
        self.count = 0
        """Frames that are in here."""
        self.run = ""
        self.step = 0
        self.time = 0.0

    def __bool__(self) -> bool:
        return bool(self._series)

    def add(self, frames: Sequence[Frame]) -> None:
        """Merge frames, which must follow those merged before."""
        for index, (steps, values) in columns_of(frames).items():
            old = self._series.get(index)
            if old is not None:
                steps, values = np.concatenate([old.steps, steps]), np.concatenate([old.values, values])
            merged = decimate(steps, values, MERGED_POINTS, nonfinite=MERGED_NONFINITE)
            reduced = merged.reduced or (old is not None and old.reduced)
            self._series[index] = Points(merged.steps, merged.values, reduced)
        self.count += len(frames)
        if frames:
            self.run, self.step, self.time = frames[-1].run, frames[-1].step, frames[-1].time

    def take(self) -> list[Column]:
        """Give the merged points and forget them."""
        columns = [column(index, points) for index, points in sorted(self._series.items())]
        self._series, self.count = {}, 0
        return columns
