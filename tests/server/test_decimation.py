"""Laws of decimation: fewer points, same picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spiral_core.arrays import F64, I64, AnyArray
from spiral_server.live.decimation import MIN_POINTS, Points, apart, decimate, decimate_many, in_order, lined_up

VALUES = arrays.arrays(
    np.float64, st.integers(1, 400), elements=st.floats(allow_nan=True, allow_infinity=True, width=32)
)


def steps_of(values: F64, gaps: int = 1) -> F64:
    return np.cumsum(1 + np.arange(len(values)) % gaps).astype(np.float64)


@given(VALUES, st.integers(1, 60), st.integers(1, 5))
def test_no_spike_is_lost_in_any_pixel_column(values: F64, points: int, gaps: int) -> None:
    steps = steps_of(values, gaps)
    kept = decimate(steps, values, points)
    finite = np.isfinite(values)
    width = (max(points, 8) - 2) // 2
    edges = np.linspace(steps[0], steps[-1], width + 1)
    for left, right in pairwise(edges):
        # Half a step of tolerance: a point on an edge may be drawn in either of two neighbouring pixels.
        inside = finite & (steps > left + 0.5) & (steps < right - 0.5)
        drawn = np.isfinite(kept.values) & (kept.steps >= left - 0.5) & (kept.steps <= right + 0.5)
        if inside.any():
            assert kept.values[drawn].max() >= values[inside].max()
            assert kept.values[drawn].min() <= values[inside].min()


@given(VALUES, st.integers(1, 60))
def test_every_point_kept_is_a_point_given_and_the_ends_stay(values: F64, points: int) -> None:
    steps = steps_of(values)
    kept = decimate(steps, values, points)
    assert np.all(np.diff(kept.steps) > 0)
    places = np.searchsorted(steps, kept.steps)
    np.testing.assert_array_equal(values[places], kept.values)
    assert (kept.steps[0], kept.steps[-1]) == (steps[0], steps[-1])
    assert kept.reduced == (len(kept.steps) < len(steps)) or not kept.reduced


@given(VALUES, st.integers(1, 60))
def test_the_number_of_finite_points_is_bounded_and_every_other_point_is_drawn(values: F64, points: int) -> None:
    kept = decimate(steps_of(values), values, points)
    assert np.count_nonzero(np.isfinite(kept.values)) <= max(points, 8)
    for kind in (np.isnan, np.isposinf, np.isneginf):
        assert np.count_nonzero(kind(kept.values)) == np.count_nonzero(kind(values))


@given(VALUES, st.integers(1, 60))
def test_decimating_parts_first_keeps_the_extremes_of_the_whole(values: F64, points: int) -> None:
    steps = steps_of(values)
    half = len(values) // 2
    parts = [decimate(steps[a:b], values[a:b], points) for a, b in ((0, half), (half, len(values))) if b > a]
    together = decimate(*in_order([(part.steps, part.values) for part in parts]), points)
    finite = values[np.isfinite(values)]
    if len(finite):
        drawn = together.values[np.isfinite(together.values)]
        assert (drawn.min(), drawn.max()) == (finite.min(), finite.max())


def test_a_million_points_of_nothing_but_nan_stay_bounded_and_visible() -> None:
    kept = decimate(np.arange(1e6), np.full(1_000_000, np.nan), 2000)
    assert 999 <= len(kept.values) <= 2000
    assert np.isnan(kept.values).all()


def test_one_spike_and_one_nan_in_a_million_steps_are_drawn() -> None:
    values = np.sin(np.arange(1e6) / 1e4)
    values[123_457], values[654_321] = 50.0, np.nan
    kept = decimate(np.arange(1e6), values, 200)
    assert 50.0 in kept.values
    assert kept.steps[np.isnan(kept.values)].tolist() == [654_321]


def test_of_equal_steps_the_last_one_stays() -> None:
    steps, values = in_order([(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])), (np.array([2.0, 4]), np.array([9.0, 4]))])
    assert steps.tolist() == [1, 2, 3, 4]
    assert values.tolist() == [1, 9, 3, 4]


def by_itself(steps: F64, values: F64, points: int, nonfinite: int) -> Points:
    """Reduce one series with no thought of others."""
    points = max(points, MIN_POINTS)
    finite = np.isfinite(values)
    count = int(np.count_nonzero(finite))
    if count <= points and len(values) - count <= nonfinite:
        return Points(steps, values, False)
    span, buckets = float(steps[-1] - steps[0]), (points - 2) // 2
    bucket = np.zeros(len(steps), dtype=np.int64)
    if span > 0:
        bucket = np.minimum(((steps - steps[0]) * (buckets / span)).astype(np.int64), buckets - 1)
    keep = finite.copy()
    if count > points:
        keep[:] = False
        keep[extremes(bucket, values, np.flatnonzero(finite))] = True
    if len(values) - count <= nonfinite:
        keep |= ~finite
    else:
        for kind in (np.isnan(values), np.isposinf(values), np.isneginf(values)):
            for run in runs(bucket, np.flatnonzero(kind)):
                keep[[run[0], run[-1]]] = True
    keep[0] = keep[-1] = True
    return Points(steps[keep], values[keep], True)


def runs(bucket: I64, places: AnyArray) -> list[list[int]]:
    """Part places where the bucket changes from one to the next."""
    found: list[list[int]] = []
    for place in places.tolist():
        if found and bucket[found[-1][-1]] == bucket[place]:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def extremes(bucket: I64, values: F64, places: AnyArray) -> list[int]:
    return [choose(run, key=lambda place: values[place]) for run in runs(bucket, places) for choose in (min, max)]


@st.composite
def one_series(draw: st.DrawFn) -> tuple[F64, F64]:
    """Series with equal values, zeros of both signs, steps that repeat or fall, and any share of values not finite."""
    length = draw(st.one_of(st.integers(0, 3), st.integers(0, 120)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    least = draw(st.sampled_from([1, 1, 1, 0, -2]))
    steps = 1000.0 + np.cumsum(random.integers(least, draw(st.sampled_from([least + 1, 3])), size=length))
    values = random.integers(-3, 4, size=length) * random.choice([1.0, -0.5, 1e300], size=length)
    odd = random.choice([np.nan, np.inf, -np.inf], size=length)
    return steps, np.where(random.random(length) < draw(st.sampled_from([0, 0, 0.1, 0.8, 1])), odd, values)


def same(one: Points, other: Points) -> bool:
    """Tell whether nothing differs, not even the sign of a zero."""
    return one.reduced == other.reduced and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one[:2], other[:2], strict=True)
    )


FALLING = (np.array([9.0, 1.0, *range(10, 30)]), np.array([np.nan, *range(21)]))
"""A step below the first one, behind a first value that is not finite."""
ENDED = (np.arange(20.0), np.arange(20.0))


@given(st.lists(one_series(), min_size=1, max_size=6), st.integers(1, 40), st.sampled_from([0, 1, 5, 32, 1000]))
@example([ENDED, FALLING], 10, 32)
def test_many_series_at_once_are_reduced_to_the_bits_that_each_gives_by_itself(
    series: list[tuple[F64, F64]], points: int, nonfinite: int
) -> None:
    many = decimate_many(*lined_up([one] for one in series), points, nonfinite=nonfinite)
    parted = apart(many.steps, many.values, many.lengths.tolist())
    assert len(parted) == len(many.reduced) == len(series)
    for one, kept, reduced in zip(series, parted, many.reduced.tolist(), strict=True):
        expected = by_itself(*one, points, nonfinite)
        assert same(Points(*kept, reduced), expected)
        assert same(decimate(*one, points, nonfinite=nonfinite), expected)


def test_no_series_at_all_is_reduced_to_none() -> None:
    many = decimate_many(*lined_up([]), 18)
    assert [len(part) for part in many] == [0, 0, 0, 0]


def test_what_is_short_enough_is_given_back_as_it_is() -> None:
    steps, values = np.arange(1500.0), np.full(1500, 2.0)
    kept = decimate(steps, values, 2000)
    assert kept.steps is steps
    assert kept.values is values


@pytest.mark.parametrize("count", [1, 2, 7])
def test_parts_of_a_series_are_lined_up_in_their_order(count: int) -> None:
    parts = [(np.array([float(i)]), np.array([10.0 * i])) for i in range(count)]
    steps, values, lengths = lined_up([parts, [], parts[:1]])
    assert steps.tolist() == [*range(count), 0]
    assert values.tolist() == [10 * i for i in [*range(count), 0]]
    assert lengths.tolist() == [count, 0, 1]
