from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core.arrays import Float
from spiral_core.zspace import poincare

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 2e-4, np.float64: 1e-11}
"""Relative to the ball's radius, for points within nine tenths of it."""

laws = pytest.mark.parametrize("dtype", DTYPES)
cases = given(
    seed=st.integers(0, 10_000),
    curvature=st.sampled_from([-0.01, -0.3, -1.0, -4.0, -100.0]),
    radius=st.sampled_from([1e-9, 1e-3, 0.3, 0.9]),
)
few = settings(max_examples=40, deadline=None, derandomize=True)


def points(seed: int, curvature: float, radius: float, dtype: type[np.floating], many: int = 3) -> list[Float]:
    draws = np.random.default_rng(seed)
    found = []
    for _ in range(many):
        x = draws.standard_normal((4, 5))
        x *= radius * draws.uniform(0, 1, 5) / np.linalg.norm(x, axis=0) / np.sqrt(-curvature)
        found.append(x.astype(dtype))
    return found


def close(ours: Float, expected: Float, curvature: float, dtype: type[np.floating], factor: float = 1) -> None:
    assert ours.dtype == dtype
    np.testing.assert_allclose(
        ours * np.sqrt(-curvature), expected * np.sqrt(-curvature), rtol=0, atol=factor * TOLERANCE[dtype]
    )


@laws
@cases
@few
def test_addition_has_a_zero_an_inverse_and_cancels_from_the_left(
    dtype: type[np.floating], seed: int, curvature: float, radius: float
) -> None:
    x, y, _ = points(seed, curvature, radius, dtype)
    zero = np.zeros_like(x)
    np.testing.assert_allclose(poincare.add(x, zero, curvature), x, rtol=20 * np.finfo(dtype).eps, atol=0)
    np.testing.assert_allclose(poincare.add(zero, x, curvature), x, rtol=20 * np.finfo(dtype).eps, atol=0)
    close(poincare.add(x, -x, curvature), zero, curvature, dtype)
    close(poincare.add(-x, poincare.add(x, y, curvature), curvature), y, curvature, dtype)


@laws
@cases
@few
def test_gyration_repairs_associativity_and_commutativity_and_keeps_lengths(
    dtype: type[np.floating], seed: int, curvature: float, radius: float
) -> None:
    x, y, w = points(seed, curvature, radius, dtype)
    left = poincare.add(x, poincare.add(y, w, curvature), curvature)
    turned = poincare.gyrate(x, y, w, curvature)
    close(left, poincare.add(poincare.add(x, y, curvature), turned, curvature), curvature, dtype)
    swapped = poincare.gyrate(x, y, poincare.add(y, x, curvature), curvature)
    close(poincare.add(x, y, curvature), swapped, curvature, dtype)
    close(poincare.norms(turned), poincare.norms(w), curvature, dtype)


@laws
@cases
@few
def test_distance_is_symmetric_and_an_isometry_and_the_exponential_map_goes_as_far_as_it_is_told(
    dtype: type[np.floating], seed: int, curvature: float, radius: float
) -> None:
    x, y, w = points(seed, curvature, min(radius, 0.5), dtype)
    d = poincare.distance(x, y, curvature)
    np.testing.assert_array_equal(d, poincare.distance(y, x, curvature))
    np.testing.assert_array_equal(poincare.distance(x, x, curvature), 0)
    moved = poincare.distance(poincare.add(w, x, curvature), poincare.add(w, y, curvature), curvature)
    close(moved, d, curvature, dtype, 10)
    through = poincare.distance(x, w, curvature) + poincare.distance(w, y, curvature)
    assert (through - d >= -TOLERANCE[dtype] / np.sqrt(-curvature)).all()
    v = w
    told = poincare.conformal(x, curvature) * poincare.norms(v)
    close(poincare.distance(x, poincare.exponential(x, v, curvature), curvature), told[0], curvature, dtype, 10)


@laws
@cases
@few
def test_transport_keeps_riemannian_lengths_and_comes_back(
    dtype: type[np.floating], seed: int, curvature: float, radius: float
) -> None:
    x, y, v = points(seed, curvature, radius, dtype)
    there = poincare.transport(x, y, v, curvature)
    length = [poincare.conformal(p, curvature) * poincare.norms(u) for p, u in ((x, v), (y, there))]
    np.testing.assert_allclose(length[0], length[1], rtol=50 * TOLERANCE[dtype], atol=TOLERANCE[dtype])
    close(poincare.transport(y, x, there, curvature), v, curvature, dtype, 10)
    velocity = poincare.transport(x, poincare.exponential(x, v / 8, curvature), v, curvature)
    reached = poincare.exponential(x, v / 4, curvature)
    half = poincare.exponential(x, v / 8, curvature)
    close(poincare.exponential(half, velocity / 8, curvature), reached, curvature, dtype, 10)


@laws
@pytest.mark.parametrize("exponent", range(-15, 1))
def test_near_the_boundary_everything_stays_finite_and_inside(dtype: type[np.floating], exponent: int) -> None:
    for curvature in (-0.01, -1.0, -100.0):
        s = np.sqrt(-curvature)
        raw = np.array([[1 - 10.0**exponent, 1 - 1e-3], [0, 0]], dtype) / dtype(s)
        x = poincare.project_inside(raw, curvature)
        assert not poincare.outside(x, curvature).any()
        assert np.isfinite(poincare.conformal(x, curvature)).all()
        for size in (1e-30, 1e-3, 1.0, 1e20):
            for direction in (np.ones_like(x), -np.ones_like(x), x):
                y = poincare.exponential(x, (direction * dtype(size)).astype(dtype), curvature)
                assert np.isfinite(y).all()
                assert not poincare.outside(y, curvature).any()
                assert np.isfinite(poincare.distance(x, y, curvature)).all()


@laws
def test_the_farthest_point_is_where_the_margin_says(dtype: type[np.floating]) -> None:
    far = poincare.project_inside(np.array([[5.0], [0.0]], dtype), -4.0)
    reached = poincare.distance(far, np.zeros_like(far), -4.0)
    assert reached[0] == pytest.approx(np.log(2 / poincare.boundary_margin(far.dtype)) / 2, rel=1e-3)


@laws
def test_a_projection_moves_nothing_that_is_inside(dtype: type[np.floating]) -> None:
    x = points(3, -2.0, 0.99, dtype)[0]
    assert poincare.project_inside(x, -2.0).tobytes() == x.tobytes()
    assert poincare.exponential(x, np.zeros_like(x), -2.0).tobytes() == x.tobytes()
    once = poincare.project_inside(x * dtype(10), -2.0)
    assert not poincare.outside(once, -2.0).any()
    assert poincare.outside(x * dtype(1e3), -2.0).all()


def test_the_riemannian_gradient_is_the_steepest_descent_of_the_distance() -> None:
    x, y, _ = points(5, -1.5, 0.9, np.float64)
    step = 1e-6
    grad = np.zeros_like(x)
    for k in range(4):
        e = np.zeros_like(x)
        e[k] = step
        grad[k] = (poincare.distance(x + e, y, -1.5) - poincare.distance(x - e, y, -1.5)) / (2 * step)
    steepest = poincare.riemannian_gradient(x, grad, -1.5)
    # The distance to a point has a gradient of Riemannian length one.
    np.testing.assert_allclose(poincare.conformal(x, -1.5) * poincare.norms(steepest), 1, rtol=1e-6)
    nearer = poincare.exponential(x, -0.01 * steepest, -1.5)
    np.testing.assert_allclose(poincare.distance(x, y, -1.5) - poincare.distance(nearer, y, -1.5), 0.01, rtol=1e-6)
