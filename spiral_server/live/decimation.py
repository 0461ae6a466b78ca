"""Fewer points, same picture: every spike and every non-finite point survives.

A chart of W pixel columns cannot show more than the least and the greatest value in each column; this keeps exactly
those. The result of decimating decimated parts still holds the extremes of the whole, so that stored summaries can be
decimated again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from spiral_core.arrays import F64, I64, AnyArray

MIN_POINTS = 8
"""Least number of points that may be asked for: three buckets of two, and both ends."""

NONFINITE_POINTS = 1000
"""Most non-finite points kept one by one: half of a wide chart. Beyond: first and last of each kind per bucket."""


class Points(NamedTuple):
    """Points of one series, steps ascending.

    ``steps`` and ``values`` are (M,) float64; ``reduced`` tells whether points were left out.
    """

    steps: F64
    values: F64
    reduced: bool


def decimate(steps: F64, values: F64, points: int, *, nonfinite: int = NONFINITE_POINTS) -> Points:
    """Reduce a series to about ``points`` points.

    Parameters
    ----------
    steps : (M,)
        Ascending.
    values : (M,)
        May hold NaN and infinities.
    points : int
        Finite points wanted at most; at least `MIN_POINTS` are given.
    nonfinite : int
        Non-finite points kept one by one at most.

    Returns
    -------
    Points
        In each of equally wide buckets of steps the least and the greatest finite value (the earliest of equals), the
        first and the last point of all, and the non-finite points.
    """
    points = max(points, MIN_POINTS)
    finite = np.isfinite(values)
    count = int(np.count_nonzero(finite))
    odd = len(values) - count
    if count <= points and odd <= nonfinite:
        return Points(steps, values, False)
    bucket = _buckets(steps, (points - 2) // 2)
    keep = np.zeros(len(values), dtype=np.bool_)
    keep[0] = keep[-1] = True
    places = np.flatnonzero(finite)
    if count > points:
        keep[_extremes(bucket[places], values[places], places)] = True
    else:
        keep[places] = True
    if odd <= nonfinite:
        keep |= ~finite
    else:
        for kind in (np.isnan(values), np.isposinf(values), np.isneginf(values)):
            keep[_ends(bucket, np.flatnonzero(kind))] = True
    return Points(steps[keep], values[keep], True)


def _buckets(steps: F64, count: int) -> I64:
    """Give the number of the bucket of each step, 0 to ``count - 1``."""
    span = float(steps[-1] - steps[0])
    if span <= 0:
        return np.zeros(len(steps), dtype=np.int64)
    numbers: I64 = ((steps - steps[0]) * (count / span)).astype(np.int64)
    return np.minimum(numbers, count - 1, out=numbers)


def _extremes(bucket: I64, values: F64, places: AnyArray) -> AnyArray:
    """Give the places of the least and of the greatest value in each bucket."""
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    lengths = np.diff(starts, append=len(bucket))
    found = []
    for ufunc in (np.minimum, np.maximum):
        hits = np.flatnonzero(values == np.repeat(ufunc.reduceat(values, starts), lengths))
        first = np.flatnonzero(np.diff(bucket[hits], prepend=-1))
        found.append(places[hits[first]])
    return np.concatenate(found)


def _ends(bucket: I64, places: AnyArray) -> AnyArray:
    """Give the first and the last of ``places`` in each bucket."""
    if len(places) == 0:
        return places
    turns = np.flatnonzero(np.diff(bucket[places]))
    return np.concatenate([places[:1], places[turns], places[turns + 1], places[-1:]])


def in_order(parts: Iterable[tuple[F64, F64]]) -> tuple[F64, F64]:
    """Join parts of a series, older first, into one with ascending steps; of equal steps the last one stays."""
    together = list(parts)
    steps = np.concatenate([part[0] for part in together])
    values = np.concatenate([part[1] for part in together])
    if np.all(steps[1:] > steps[:-1]):
        return steps, values
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return steps[last], values[last]
