"""Fewer points, same picture: every spike and every non-finite point survives.

A chart of W pixel columns cannot show more than the least and the greatest value in each column; this keeps exactly
those. The result of decimating decimated parts still holds the extremes of the whole, so that stored summaries can be
decimated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from spiral_core.arrays import F64, I64, AnyArray, Bools

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


class Many(NamedTuple):
    """Points of many series, one series behind the other.

    ``steps`` and ``values`` are (M,) float64, ``lengths`` (S,) says how many points each series has, and ``reduced``
    (S,) whether points of it were left out.
    """

    steps: F64
    values: F64
    lengths: I64
    reduced: Bools


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
    few = len(values) <= max(points, MIN_POINTS)
    if few and (len(values) <= nonfinite or np.count_nonzero(np.isfinite(values)) >= len(values) - nonfinite):
        return Points(steps, values, False)
    many = decimate_many(steps, values, np.array([len(values)]), points, nonfinite=nonfinite)
    return Points(many.steps, many.values, bool(many.reduced[0]))


def decimate_many(steps: F64, values: F64, lengths: I64, points: int, *, nonfinite: int = NONFINITE_POINTS) -> Many:
    """Reduce many series at once, each as `decimate` does it: for short series far cheaper than one by one.

    Parameters
    ----------
    steps, values : (M,)
        One series behind the other, the steps of each ascending.
    lengths : (S,)
        How many points each series has; 0 is allowed.
    points, nonfinite : int
        As for `decimate`, for each series.

    Returns
    -------
    Many
        The same series in the same order.
    """
    points = max(points, MIN_POINTS)
    finite = np.isfinite(values)
    ends = np.cumsum(lengths)
    odd = np.diff(np.searchsorted(np.flatnonzero(~finite), ends), prepend=0)
    dense, crowded = lengths - odd > points, odd > nonfinite
    reduced = dense | crowded
    if not reduced.any():
        return Many(steps, values, lengths, reduced)
    # An empty series has no first point and no last one; its neighbors' are marked instead, which stay anyway.
    starts = np.minimum(ends - lengths, len(values) - 1)
    bucket = _buckets(steps, lengths, starts, ends, (points - 2) // 2)
    keep = np.where(finite, _spread(~dense, lengths), _spread(~crowded, lengths))
    keep[starts] = keep[ends - 1] = True
    if dense.any():
        places = np.flatnonzero(finite & _spread(dense, lengths))
        keep[_extremes(bucket, values, places, (lengths - odd)[dense])] = True
    for start, end in zip(starts[crowded], ends[crowded], strict=True):
        own = values[start:end]
        for kind in (np.isnan(own), np.isposinf(own), np.isneginf(own)):
            keep[start + _ends(bucket[start:end], np.flatnonzero(kind))] = True
    places = np.flatnonzero(keep)
    left = np.diff(np.searchsorted(places, ends), prepend=0)
    return Many(steps[places], values[places], left, reduced)


def lined_up(series: Iterable[Sequence[tuple[F64, F64]]]) -> tuple[F64, F64, I64]:
    """Put series, each given in parts that follow one another, one behind the other, as `decimate_many` takes them.

    Returns
    -------
    tuple
        Steps and values (M,) of all, and how many points each series has (S,).
    """
    parts: list[tuple[F64, F64]] = []
    lengths: list[int] = []
    for own in series:
        parts += own
        lengths.append(sum([len(steps) for steps, _ in own]))
    empty = [] if parts else [np.empty(0)]
    steps = np.concatenate(empty + [steps for steps, _ in parts])
    values = np.concatenate(empty + [values for _, values in parts])
    return steps, values, np.array(lengths, dtype=np.int64)


def apart(steps: F64, values: F64, lengths: Sequence[int]) -> list[tuple[F64, F64]]:
    """Part series that stand one behind the other; what it gives are views."""
    starts = accumulate(lengths, initial=0)
    return [(steps[at : at + size], values[at : at + size]) for at, size in zip(starts, lengths, strict=False)]


def _spread(each: AnyArray, lengths: I64) -> AnyArray:
    """Give what stands for each series once for each of its points; one series alone is left to broadcasting."""
    return each if len(lengths) == 1 else np.repeat(each, lengths)


def _buckets(steps: F64, lengths: I64, starts: I64, ends: I64, count: int) -> I64:
    """Give the number of the bucket of each step in its series, 0 to ``count - 1``."""
    first = steps[starts]
    span = steps[ends - 1] - first
    scale = np.divide(count, span, out=np.zeros(len(span)), where=span > 0)
    numbers: I64 = ((steps - _spread(first, lengths)) * _spread(scale, lengths)).astype(np.int64)
    return np.minimum(numbers, count - 1, out=numbers)


def _extremes(bucket: I64, values: F64, places: I64, lengths: I64) -> I64:
    """Give the places of the least and of the greatest value in each bucket.

    Only ``places`` count; ``lengths`` says how many of them each series has, none of them 0.
    """
    if len(places) < len(values):
        bucket, values = bucket[places], values[places]
    turns = np.empty(len(places), dtype=np.bool_)
    np.not_equal(bucket[1:], bucket[:-1], out=turns[1:])
    # Neighbors may end and begin in buckets of the same number.
    turns[np.cumsum(lengths) - lengths] = True
    starts = np.flatnonzero(turns)
    widths = np.diff(starts, append=len(places))
    found = []
    for ufunc in (np.minimum, np.maximum):
        hits = np.flatnonzero(values == np.repeat(ufunc.reduceat(values, starts), widths))
        found.append(hits[np.searchsorted(hits, starts)])
    return places[np.concatenate(found)]


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
