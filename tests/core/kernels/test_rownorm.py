from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles import layers_twin
from spiral_core import kernels, nn
from spiral_core.arrays import F64, Float
from spiral_core.kernels.rownorm import ROWS
from spiral_core.kernels.rowwise import BLOCK, GROUP
from spiral_core.kernels.vector import PAIR
from spiral_core.kernels.znorm import SATURATED

TOLERANCE = {np.float32: 5e-6, np.float64: 1e-11}
"""Absolute, for whitened values of order one; float32 covers the rational tanh and the roundings of the output."""


class Case(NamedTuple):
    rows: int
    features: int
    curvature: float
    gain: float
    dtype: type[np.floating]


CASES = st.builds(
    Case,
    st.integers(1, 3 * ROWS),
    st.sampled_from([1, 2, 3, 5, 16, 31, 257, 32, 96, 1056]),
    st.sampled_from([-0.25, -1.0, -4.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([np.float32, np.float64]),
)


def draw(case: Case) -> tuple[Float, Float, Float, Float]:
    """Return input, gradient, gamma and beta."""
    draws = np.random.default_rng(case.rows * 1000 + case.features)
    shape = (case.rows, case.features)
    x = draws.standard_normal(shape) * draws.uniform(0.5, 2, (case.rows, 1)) + draws.normal(0, 3, (case.rows, 1))
    gamma, beta = draws.uniform(0.5, 1.5, case.features), draws.normal(size=case.features)
    values = (x, draws.standard_normal(shape), gamma, beta)
    x32, grad, gamma32, beta32 = (value.astype(case.dtype) for value in values)
    return x32, grad, gamma32, beta32


def close(ours: Float, twin: F64, case: Case, scale: float = 1.0) -> None:
    np.testing.assert_allclose(ours, twin, rtol=0, atol=TOLERANCE[case.dtype] * max(scale, float(np.abs(twin).max())))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CASES)
@example(Case(ROWS, 8, -1.0, 0.5, np.float32))
@example(Case(ROWS + 1, 8, -1.0, 1.0, np.float32))
@example(Case(1, 1, -1.0, 1.0, np.float32))
# Pairs of vectors: one, one row of more than a block, and a chunk and a row.
@example(Case(1, PAIR, -4.0, 1.0, np.float32))
@example(Case(3, BLOCK + PAIR, -1.0, 0.5, np.float32))
@example(Case(ROWS + 1, 3 * PAIR, -1.0, 0.5, np.float32))
@example(Case(ROWS + GROUP + 1, PAIR, -1.0, 1.0, np.float64))
def test_the_layer_norms_are_their_slow_twins(case: Case) -> None:
    x, grad, gamma, beta = draw(case)
    kind = {"dtype": case.dtype}
    bent = nn.ZSpaceLayerNorm("z", case.features, case.curvature, projector_gain=case.gain, **kind)
    plain = nn.LayerNorm("l", case.features, case.curvature, **kind)
    wide = [value.astype(np.float64) for value in (x, gamma, beta)]
    for layer, gain in ((bent, case.gain), (plain, 0.0)):
        layer.gamma.value[:], layer.beta.value[:] = gamma, beta
        out = layer.forward(x)
        twin = layers_twin.layer_norm(*wide, case.curvature, gain, 1e-5)
        close(out, np.array([one.y for one in twin]), case)
        expected = layers_twin.layer_norm_backward(twin, grad.astype(np.float64), wide[1], case.curvature, 1e-5)
        scale = max(float(1 / np.sqrt(one.variance + 1e-5)) for one in twin)
        close(layer.backward(x, grad), expected[0], case, scale)
        close(layer.gamma.grad, expected[1], case, scale=case.rows**0.5)
        close(layer.beta.grad, expected[2], case, scale=case.rows**0.5)
    twin = layers_twin.layer_norm(*wide, case.curvature, case.gain, 1e-5)
    telemetry = bent.telemetry()
    for field in ("normed", "projected", "jacobian"):
        close(getattr(telemetry, field), np.array([getattr(one, field) for one in twin]), case)


@pytest.mark.parametrize("offset", [0.0, 100.0, 10_000.0])
def test_a_row_far_from_zero_loses_only_what_its_own_rounding_lost(offset: float) -> None:
    # E[x^2] - E[x]^2 in float32 would lose everything at offset 10,000.
    x = (np.random.default_rng(0).standard_normal((3, 5000)) + offset).astype(np.float32)
    layer = nn.ZSpaceLayerNorm("z", 5000)
    layer.forward(x)
    seen = layer.telemetry()
    wide = x.astype(np.float64)
    np.testing.assert_allclose(seen.mean, wide.mean(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.inv_std, (wide.var(axis=1) + 1.1e-5) ** -0.5, rtol=1e-10)
    expected = (wide - wide.mean(axis=1, keepdims=True)) * seen.inv_std[:, None]
    np.testing.assert_allclose(seen.normed, expected, rtol=1e-6, atol=1e-6)


def test_axes_before_the_last_are_samples() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    deep, flat = (nn.ZSpaceLayerNorm("z", 3) for _ in range(2))
    assert deep.forward(x).tobytes() == flat.forward(x.reshape(20, 3)).tobytes()
    grad = np.roll(x, 1)
    assert deep.backward(x, grad).shape == x.shape
    assert deep.backward(x, grad).tobytes() == flat.backward(x.reshape(20, 3), grad.reshape(20, 3)).tobytes()
    assert deep.telemetry().radius.shape == (20,)


def test_a_nan_stays_in_its_row() -> None:
    x = np.random.default_rng(0).standard_normal((ROWS + 2, 3)).astype(np.float32)
    x[1, 2] = np.nan
    x[ROWS, 0] = np.inf
    layer = nn.ZSpaceLayerNorm("z", 3)
    out = layer.forward(x)
    assert np.flatnonzero(np.isnan(out).all(axis=1)).tolist() == [1, ROWS]
    assert np.isnan(out).sum() == 6
    assert np.isnan(layer.observe().blended_mean)
    assert np.flatnonzero(np.isnan(layer.telemetry().blended_radius)).tolist() == [1, ROWS]
    grad_x = layer.backward(x, np.ones_like(x))
    assert np.flatnonzero(np.isnan(grad_x).any(axis=1)).tolist() == [1, ROWS]
    assert np.isnan(layer.gamma.grad).all()
    np.testing.assert_array_equal(layer.beta.grad, np.full(3, ROWS + 2.0, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_row_norm_is_the_python_loop(dtype: type[np.floating]) -> None:
    rows, features = ROWS + 3, 5
    draws = np.random.default_rng(3)
    x, grad = (draws.standard_normal((rows, features)).astype(dtype) for _ in range(2))
    affine = draws.uniform(0.5, 1.5, (2, features)).astype(dtype)
    s, g = dtype(1.5), dtype(0.7)

    def results(of: Any) -> list[Float]:
        mean, inv_std = np.empty(rows), np.empty(rows)
        normed, tangent, out, grad_x = (np.empty_like(x) for _ in range(4))
        across, down, sums = np.empty((4, rows)), np.empty((2, features)), np.empty((2, 2, features))
        of(kernels.row_statistics)(0, 2, 0, x, 1e-3, mean, inv_std)
        of(kernels.row_norm)(0, 2, 0, x, mean, inv_std, affine, s, g, normed, tangent, out, across, down)
        of(kernels.row_norm_backward)(0, 2, 0, normed, tangent, grad, inv_std, affine[0], s, g, grad_x, sums)
        return [mean, inv_std, normed, tangent, out, grad_x, across, down, sums]

    compiled, plain = results(lambda function: function), results(kernels.python_function)
    tolerance = 5e-6 if dtype is np.float32 else 1e-13
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    # And both are the sums that the docstrings promise.
    n, t = compiled[2].astype(np.float64), compiled[3].astype(np.float64)
    expected = [np.abs(t).sum(1), np.abs(n).sum(1), (t * t).sum(1), (np.abs(t) > SATURATED).sum(1)]
    np.testing.assert_allclose(compiled[6], expected, rtol=1e-12)
    np.testing.assert_allclose(compiled[7].sum(axis=0), np.abs(t).sum(0), rtol=1e-12)
