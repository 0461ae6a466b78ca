from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.differences import central_difference
from spiral_core import zspace
from spiral_core.errors import ArgumentError

CURVATURES = st.floats(-50, -0.01)
GAINS = st.floats(0, 1)
FEW = settings(max_examples=30, deadline=None, derandomize=True)


@FEW
@given(CURVATURES, GAINS)
def test_the_projector_has_the_jacobian_that_it_states_and_stays_in_the_ball(curvature: float, gain: float) -> None:
    n = np.linspace(-4, 4, 9) + 0.1
    projected, jacobian, radius = zspace.project(n, curvature, gain)
    slopes = central_difference(lambda: float(zspace.project(n, curvature, gain).projected.sum()), n)
    np.testing.assert_allclose(jacobian, slopes, rtol=0, atol=2e-6)
    assert (radius <= 1 / zspace.root_curvature(curvature)).all()
    # The projector pulls towards the origin, never across it.
    assert (np.sign(projected) == np.sign(n)).all()
    assert (np.abs(projected) <= np.abs(n) * (1 + 1e-12)).all()


@FEW
@given(CURVATURES)
def test_gain_zero_is_the_identity_and_gain_one_the_ball(curvature: float) -> None:
    n = np.linspace(-4, 4, 9)
    assert (zspace.project(n, curvature, 0.0).projected == n).all()
    whole = zspace.project(n, curvature, 1.0)
    np.testing.assert_allclose(np.abs(whole.projected), whole.radius, rtol=1e-14)
    # The radius does not depend on the gain.
    np.testing.assert_array_equal(zspace.project(n, curvature, 0.0).radius, whole.radius)


def test_a_gain_below_the_rounding_of_float32_is_zero() -> None:
    assert zspace.effective_gain(zspace.GAIN_FLOOR) == 0.0
    assert zspace.effective_gain(2 * zspace.GAIN_FLOOR) == 2 * zspace.GAIN_FLOOR


@FEW
@given(CURVATURES, st.floats(0, 0.999))
def test_the_conformal_factor_grows_from_two_to_infinity_at_the_boundary(curvature: float, relative: float) -> None:
    reach = 1 / zspace.root_curvature(curvature)
    assert zspace.conformal_factor(relative * reach, curvature) == pytest.approx(2 / (1 - relative**2), rel=1e-9)
    assert zspace.conformal_factor(0.0, curvature) == 2.0
    assert zspace.conformal_factor(1.0001 * reach, curvature) == math.inf
    assert math.isnan(zspace.conformal_factor(math.nan, curvature))


@pytest.mark.parametrize("curvature", [0.0, 1.0, math.nan, -math.inf, "flat", None])
def test_a_curvature_that_is_not_negative_and_finite_is_refused_by_name(curvature: float) -> None:
    for call in (
        lambda: zspace.check_curvature(curvature),
        lambda: zspace.root_curvature(curvature),
        lambda: zspace.conformal_factor(0.5, curvature),
        lambda: zspace.project(np.zeros(1), curvature, 0.5),
    ):
        with pytest.raises(ArgumentError, match="curvature"):
            call()


@pytest.mark.parametrize("gain", [-0.001, 1.001, math.nan, math.inf, "much", None])
def test_a_gain_outside_zero_to_one_is_refused_by_name(gain: float) -> None:
    for call in (lambda: zspace.check_gain(gain), lambda: zspace.project(np.zeros(1), -1.0, gain)):
        with pytest.raises(ArgumentError, match="gain"):
            call()
