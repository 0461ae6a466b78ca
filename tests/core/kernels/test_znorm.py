from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles import layers_twin
from spiral_core import kernels, nn
from spiral_core.arrays import F64, Float
from spiral_core.kernels.stripwise import BLOCK, LEAST_CHANNELS, MOST_ROWS
from spiral_core.kernels.vector import PAIR
from spiral_core.kernels.znorm import CHUNK, SATURATED, WIDE, chunk_span, wide_row

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}
"""Absolute, for whitened values of order one; float32 covers the rational tanh and sums of 128 terms."""


class Case(NamedTuple):
    rows: int
    features: int
    curvature: float
    gain: float
    dtype: type[np.floating]


CASES = st.builds(
    Case,
    st.integers(1, 400),
    st.sampled_from([1, 2, 3, 5, 16, 31, 255, 256, 257, 300, 288, 416]),
    st.sampled_from([-0.25, -1.0, -4.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([np.float32, np.float64]),
)


def draw(case: Case) -> tuple[Float, Float, Float, Float]:
    """Return input, gradient, gamma and beta."""
    draws = np.random.default_rng(case.rows * 1000 + case.features)
    shape = (case.rows, case.features)
    x = draws.standard_normal(shape) * draws.uniform(0.5, 2, case.features) + draws.normal(0, 3, case.features)
    gamma, beta = draws.uniform(0.5, 1.5, case.features), draws.normal(size=case.features)
    values = (x, draws.standard_normal(shape), gamma, beta)
    x32, grad, gamma32, beta32 = (value.astype(case.dtype) for value in values)
    return x32, grad, gamma32, beta32


def close(ours: Float, twin: F64, case: Case, scale: float = 1.0) -> None:
    np.testing.assert_allclose(ours, twin, rtol=0, atol=TOLERANCE[case.dtype] * max(scale, float(np.abs(twin).max())))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CASES, st.booleans())
# Exactly one wide row, one chunk, one element of the next; and one row.
@example(Case(WIDE, 1, -1.0, 0.5, np.float32), True)
@example(Case(CHUNK // 16, 16, -1.0, 0.5, np.float32), True)
@example(Case(CHUNK // 16 + 1, 16, -1.0, 1.0, np.float32), True)
@example(Case(2 * CHUNK // 31, 31, -1.0, 1.0, np.float64), False)
@example(Case(1, 5, -1.0, 1.0, np.float32), True)
# Strips: two, one row, a block and a row, a last strip of one pair of vectors, and the most rows.
@example(Case(1, LEAST_CHANNELS, -1.0, 1.0, np.float32), True)
@example(Case(BLOCK + 1, LEAST_CHANNELS, -4.0, 0.5, np.float32), True)
@example(Case(70, LEAST_CHANNELS + PAIR, -1.0, 0.5, np.float32), False)
@example(Case(70, LEAST_CHANNELS + PAIR, -0.25, 1.0, np.float64), True)
@example(Case(MOST_ROWS, LEAST_CHANNELS, -1.0, 1.0, np.float32), True)
def test_the_z_space_norm_is_its_slow_twin(case: Case, training: bool) -> None:
    x, grad, gamma, beta = draw(case)
    layer = nn.ZSpaceBatchNorm1d("z", case.features, case.curvature, projector_gain=case.gain, dtype=case.dtype)
    layer.gamma.value[:], layer.beta.value[:] = gamma, beta
    layer.running_mean[:], layer.running_var[:] = 0.5, 2.0
    wide = [value.astype(np.float64) for value in (x, gamma, beta)]
    kept = None if training else (layer.running_mean.astype(np.float64), layer.running_var.astype(np.float64))
    workspace = nn.Workspace(training)
    out = layer.forward(x, workspace)
    twin = layers_twin.znorm(*wide, case.curvature, case.gain, layer.epsilon, kept)
    close(out, twin.y, case)
    telemetry = layer.telemetry(workspace)
    close(telemetry.normed, twin.normed, case)
    close(telemetry.projected, twin.projected, case)
    close(telemetry.jacobian, twin.jacobian, case)
    grad_x = layer.backward(x, grad, workspace)
    expected = layers_twin.znorm_backward(twin, grad.astype(np.float64), wide[1], layer.epsilon, training)
    close(grad_x, expected[0], case, scale=float(telemetry.inv_std.max()))
    close(layer.gamma.grad, expected[1], case, scale=case.rows**0.5)
    close(layer.beta.grad, expected[2], case, scale=case.rows**0.5)
    if training:
        close(layer.running_mean, 0.1 * twin.mean + 0.9 * 0.5, case)
        close(layer.running_var, 0.1 * twin.variance + 0.9 * 2.0, case)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(CASES, st.booleans())
@example(Case(CHUNK // 16 + 1, 16, -1.0, 0.0, np.float32), True)
@example(Case(1, 5, -1.0, 0.0, np.float32), True)
@example(Case(70, LEAST_CHANNELS + PAIR, -1.0, 0.0, np.float32), True)
@example(Case(70, LEAST_CHANNELS + PAIR, -1.0, 0.0, np.float64), False)
def test_the_plain_norm_is_the_slow_twin_without_a_projector(case: Case, training: bool) -> None:
    x, grad, gamma, beta = draw(case)
    layer = nn.BatchNorm1d("b", case.features, dtype=case.dtype)
    layer.gamma.value[:], layer.beta.value[:] = gamma, beta
    layer.running_mean[:], layer.running_var[:] = 0.5, 2.0
    wide = [value.astype(np.float64) for value in (x, gamma, beta)]
    mean, variance = (wide[0].mean(axis=0), wide[0].var(axis=0)) if training else (np.array(0.5), np.array(2.0))
    inverse = 1 / np.sqrt(variance + 1e-5)
    n = (wide[0] - mean) * inverse
    workspace = nn.Workspace(training)
    close(layer.forward(x, workspace), wide[1] * n + wide[2], case)
    d = grad.astype(np.float64) * wide[1]
    through = d.mean(axis=0) + n * (d * n).mean(axis=0) if training else 0.0
    scale = float(inverse.max())
    close(layer.backward(x, grad, workspace), inverse * (d - through), case, scale)
    close(layer.gamma.grad, (grad * n).sum(axis=0), case, scale=case.rows**0.5)
    close(layer.beta.grad, grad.sum(axis=0), case, scale=case.rows**0.5)
    if training:
        close(layer.running_mean, 0.1 * mean + 0.9 * 0.5, case)
        close(layer.running_var, 0.1 * variance + 0.9 * 2.0, case)


@pytest.mark.parametrize("offset", [0.0, 100.0, 10_000.0])
def test_the_variance_is_taken_in_two_passes(offset: float) -> None:
    # E[x^2] - E[x]^2 in float32 would lose everything at offset 10,000.
    x = (np.random.default_rng(0).standard_normal((5000, 3)) + offset).astype(np.float32)
    layer = nn.ZSpaceBatchNorm1d("z", 3, momentum=1.0)
    layer.forward(x)
    np.testing.assert_allclose(layer.running_var, x.astype(np.float64).var(axis=0), rtol=1e-4)


def test_a_wide_row_holds_whole_rows_and_a_chunk_whole_wide_rows() -> None:
    for channels in range(1, 700):
        width = wide_row(channels)
        assert width % channels == 0
        assert width >= WIDE
        assert width - channels < WIDE
        assert chunk_span(channels) % width == 0


def test_a_nan_stays_in_its_feature_in_evaluation_and_spreads_over_it_in_training() -> None:
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = np.nan
    layer = nn.ZSpaceBatchNorm1d("z", 3)
    out = layer.forward(x, nn.Workspace(training=False))
    assert np.argwhere(np.isnan(out)).tolist() == [[1, 2]]
    out = layer.forward(x, nn.Workspace(training=True))
    np.testing.assert_array_equal(np.isnan(out), [[False, False, True]] * 4)
    # The running statistics do not follow a batch that has none.
    np.testing.assert_array_equal(layer.running_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.running_var, np.ones(3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_diverged_run_can_be_stepped_and_watched_without_a_warning(value: float) -> None:
    x = np.zeros((2, 2 * CHUNK), np.float32)
    x[0, 0] = value
    for training in (True, False):
        layer, workspace = nn.ZSpaceBatchNorm1d("z", x.shape[1]), nn.Workspace(training)
        layer.forward(x, workspace)
        grad = np.zeros_like(x)
        grad[:, 0] = np.inf, -np.inf
        assert np.isnan(layer.backward(x, grad, workspace)).any()
        assert np.isnan(layer.telemetry(workspace).blended_radius[0])
        observation = layer.observe(workspace)
        assert np.isnan(observation.blended_mean)
        assert np.isnan(layer.gamma.grad[0])


def test_lanes_are_folded_into_channels() -> None:
    lanes = np.arange(24, dtype=np.float32).reshape(2, 12)
    for fold in (kernels.fold_lanes, kernels.python_function(kernels.fold_lanes)):
        sums = np.full((2, 3), np.nan)
        fold(lanes, sums)
        np.testing.assert_array_equal(sums, lanes.reshape(2, 4, 3).sum(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_norm_is_the_python_loop(dtype: type[np.floating]) -> None:
    rows, channels, width = 90, 3, 6
    span = 2 * width
    draws = np.random.default_rng(3)
    x, grad = (draws.standard_normal(rows * channels).astype(dtype) for _ in range(2))
    affine = draws.uniform(0.5, 1.5, (4, width)).astype(dtype)
    s, g = dtype(1.5), dtype(0.7)
    chunks = -(-x.size // span)

    def results(of: Any) -> list[Float]:
        lanes, sums = np.empty((1, 4, width), dtype), [np.full((chunks, 4, channels), np.nan) for _ in range(2)]
        normed, tangent, out, grad_x = (np.empty_like(x) for _ in range(4))
        moments, merged = np.full((chunks, 2, channels), np.nan), np.full((2, channels), np.nan)
        of(kernels.channel_moments)(0, chunks, 0, x, span, lanes[:, :2].copy(), moments)
        of(kernels.merge_moments)(moments, rows, span // channels, merged)
        of(kernels.znorm)(0, chunks, 0, x, affine, s, g, span, lanes, normed, tangent, out, sums[0])
        of(kernels.znorm_backward_sums)(0, chunks, 0, normed, tangent, grad, s, g, span, lanes, sums[1])
        of(kernels.znorm_backward_input)(0, chunks, 0, normed, tangent, grad, affine[:3].copy(), g, span, grad_x)
        return [merged, *sums, normed, tangent, out, grad_x]

    compiled, plain = results(lambda function: function), results(kernels.python_function)
    tolerance = 5e-6 if dtype is np.float32 else 1e-13
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    # And both are the sums that the docstrings promise.
    wide = x.reshape(rows, channels).astype(np.float64)
    t = compiled[4].reshape(rows, channels).astype(np.float64)
    n = compiled[3].reshape(rows, channels).astype(np.float64)
    expected = [np.abs(t).sum(0), np.abs(n).sum(0), (t * t).sum(0), (np.abs(t) > SATURATED).sum(0)]
    loose = 1e-5 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(compiled[0], [wide.mean(0), wide.var(0)], rtol=loose, atol=loose)
    np.testing.assert_allclose(compiled[1].sum(axis=0), expected, rtol=loose)
