"""Steps on the ball are the geometry's definitions, and those of the reference system its formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.zspace import poincare

DTYPES = [np.float32, np.float64]
both = pytest.mark.parametrize("dtype", DTYPES)
CURVATURES = [-0.25, -1.0, -4.0]


def limit(dtype: type[np.floating], curvature: float) -> float:
    return (1 - poincare.boundary_margin(np.dtype(dtype))) / math.sqrt(-curvature)


def points(dtype: type[np.floating], curvature: float, far: float, seed: int = 0) -> tuple[Float, Float, Float]:
    """Return points within a relative radius, gradients and velocities, (5, 7) each."""
    draws = np.random.default_rng(seed)
    x, grad, velocity = draws.standard_normal((3, 5, 7))
    x *= far * draws.uniform(0.1, 1, 7) / np.linalg.norm(x, axis=0) / math.sqrt(-curvature)
    return x.astype(dtype), grad.astype(dtype), velocity.astype(dtype)


@both
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_with_momentum_is_gradient_exponential_and_transport(
    dtype: type[np.floating], curvature: float, momentum: float
) -> None:
    x, grad, velocity = points(dtype, curvature, 0.8)
    expected = momentum * velocity + poincare.riemannian_gradient(x, grad + dtype(0.01) * x, curvature)
    reached = poincare.exponential(x, -dtype(0.05) * expected, curvature)
    if momentum:
        expected = poincare.transport(x, reached, expected, curvature)
    tolerance = 2e-6 if dtype is np.float32 else 1e-14
    for update in (kernels.geodesic_update, kernels.python_function(kernels.geodesic_update)):
        y, v = x.copy(), velocity.copy()
        update(y, grad, v, curvature, limit(dtype, curvature), 0.05, momentum, 0.01)
        np.testing.assert_allclose(y, reached, rtol=0, atol=tolerance)
        np.testing.assert_allclose(v, expected, rtol=0, atol=10 * tolerance)


@both
@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_step_of_adam_is_gradient_means_exponential_and_transport(dtype: type[np.floating], curvature: float) -> None:
    x, grad, first = points(dtype, curvature, 0.8)
    second = np.linspace(0.1, 0.9, 7).astype(dtype)
    g = poincare.riemannian_gradient(x, grad + dtype(0.01) * x, curvature)
    mean = 0.9 * first + 0.1 * g
    moment = 0.99 * second + 0.01 * (poincare.conformal(x, curvature) * poincare.norms(g))[0] ** 2
    direction = mean / 0.5 / (np.sqrt(moment / 0.25) + 1e-8)
    reached = poincare.exponential(x, (-0.05 * direction).astype(dtype), curvature)
    mean = poincare.transport(x, reached, mean, curvature)
    tolerance = 2e-6 if dtype is np.float32 else 1e-14
    for update in (kernels.geodesic_adam_update, kernels.python_function(kernels.geodesic_adam_update)):
        y, v, u = x.copy(), first.copy(), second.copy()
        update(y, grad, v, u, curvature, limit(dtype, curvature), 0.05, 0.9, 0.99, 1e-8, 0.01, 0.5, 0.25)
        np.testing.assert_allclose(y, reached, rtol=0, atol=tolerance)
        np.testing.assert_allclose(v, mean, rtol=0, atol=10 * tolerance)
        np.testing.assert_allclose(u, moment, rtol=10 * tolerance)


@both
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_points_never_end_beyond_the_margin_and_still_ones_keep_every_bit(
    dtype: type[np.floating], curvature: float, scale: float
) -> None:
    x, grad, velocity = points(dtype, curvature, 1 - poincare.boundary_margin(np.dtype(dtype)))
    grad *= dtype(scale)
    grad[:, ::2] = 0
    before, velocity[...] = x.copy(), 0
    for _ in range(3):
        kernels.geodesic_update(x, grad, velocity, curvature, limit(dtype, curvature), 1.0, 0.0, 0.0)
    assert x[:, ::2].tobytes() == before[:, ::2].tobytes()
    assert scale < 1 or (x[:, 1::2] != before[:, 1::2]).any(axis=0).all()
    assert np.isfinite(x).all()
    assert not poincare.outside(x, curvature).any()
    assert kernels.longest_column(x) <= limit(dtype, curvature) * (1 + 4 * np.finfo(dtype).eps)


@both
def test_a_nan_stays_in_its_point_and_is_seen(dtype: type[np.floating]) -> None:
    x, grad, velocity = points(dtype, -1.0, 0.5)
    velocity[2, 3] = np.nan
    kernels.geodesic_update(x, grad, velocity, -1.0, limit(dtype, -1.0), 0.1, 0.9, 0.0)
    assert np.isnan(x).any(axis=0).tolist() == [j == 3 for j in range(7)]
    total = np.array([1.0, np.nan, 2.0], dtype)
    kernels.gather_compressed(total, np.array([1.0, 1.0, np.nan], dtype), 1.0, 1e6, 0.05)
    assert np.isnan(total).tolist() == [False, True, True]


@both
def test_the_longest_column_is_that_of_numpy_whatever_its_size(dtype: type[np.floating]) -> None:
    x = points(dtype, -1.0, 0.5)[0]
    for scale in (1e-30, 1.0, 1e30):
        for longest in (kernels.longest_column, kernels.python_function(kernels.longest_column)):
            assert longest(x * dtype(scale)) == pytest.approx(float(poincare.norms(x).max()) * scale, rel=1e-6)
    assert kernels.longest_column(np.zeros((3, 2), dtype)) == 0
    x[0, 1], x[0, 2] = np.nan, np.inf
    assert kernels.longest_column(x) == np.inf


@both
def test_gathering_compresses_and_bends_sums_that_are_too_large(dtype: type[np.floating]) -> None:
    total = np.array([0.5, 3e6, -4e6, 1e6, 0.0], dtype)
    grad = np.array([0.25, 0.5, -0.5, 0.0, 1e30], dtype)
    sums = total + np.array([0.25, 0.5, -0.5, 0, 0]) / (1 + 2 * np.array([0.25, 0.5, -0.5, 0, 0]) ** 2)
    size = np.abs(sums)
    bent = np.sign(sums) * 1e6 * (1 - 0.05 * (size - 1e6) / (size + 1e6))
    expected = np.where(size > 1e6, bent, sums)
    for gather in (kernels.gather_compressed, kernels.python_function(kernels.gather_compressed)):
        gathered = total.copy()
        gather(gathered, grad, 2.0, 1e6, 0.05)
        np.testing.assert_allclose(gathered, expected, rtol=1e-6 if dtype is np.float32 else 1e-14, atol=1e-29)


@both
@pytest.mark.parametrize(("rows", "row_stride", "stride"), [(5, 7, 1), (7, 1, 7), (1, 35, 1)])
def test_a_step_of_the_reference_system_pulls_every_row(
    dtype: type[np.floating], rows: int, row_stride: int, stride: int
) -> None:
    value, direction, _ = points(dtype, -1.0, 3.0)
    w, a = value.astype(float), direction.astype(float)
    moved = w - 0.1 / (1 + 2.0 * w * w) * a
    lined = moved if rows == 5 else moved.T if rows == 7 else moved.reshape(1, -1)
    length = np.sqrt((lined**2).sum(axis=1, keepdims=True))
    lined = lined * np.tanh(length / math.sqrt(2.0)) / length
    expected = (lined.T if rows == 7 else lined).reshape(-1)
    for update in (kernels.pull_update, kernels.python_function(kernels.pull_update)):
        got = value.reshape(-1).copy()
        update(got, direction.reshape(-1), rows, row_stride, stride, 0.1, 2.0, math.sqrt(2.0), 1e6, 0.05)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 if dtype is np.float32 else 1e-15)
    zeros = np.zeros(35, dtype)
    kernels.pull_update(zeros, zeros.copy(), rows, row_stride, stride, 0.1, 2.0, math.sqrt(2.0), 1e6, 0.05)
    assert not zeros.any()
