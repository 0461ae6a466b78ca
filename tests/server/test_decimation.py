"""Laws of decimation: fewer points, same picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spiral_core.arrays import F64
from spiral_server.live.decimation import decimate, in_order

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
