"""Quantiles of a sample, as curves show them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spiral_core.arrays import Float
from spiral_core.nn.observation import quantiles

SHARES = (0.05, 0.5, 0.95)


@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: arrays(dtype, st.integers(1, 90), elements=st.floats(-1e3, 1e3, width=32))
    )
)
def test_quantiles_of_magnitudes_are_those_of_numpy_and_leave_the_values_alone(values: Float) -> None:
    before = values.copy()
    expected = np.quantile(np.abs(values.astype(np.float64)), SHARES)
    assert quantiles(values, SHARES) == pytest.approx(expected, rel=1e-12, abs=1e-300)
    np.testing.assert_array_equal(values, before)


def test_a_nan_shows_and_an_infinity_stays_one() -> None:
    assert all(math.isnan(one) for one in quantiles(np.array([1.0, np.nan, 2.0]), SHARES))
    assert quantiles(np.array([-np.inf, np.inf, np.inf]), SHARES) == [np.inf] * 3
    assert quantiles(np.array([0.0, 1.0, np.inf]), (0.0, 0.5, 1.0)) == [0.0, 1.0, np.inf]
