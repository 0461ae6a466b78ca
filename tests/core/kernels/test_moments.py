"""From the input of a batch norm to what whitens it, and from the sums of its backward pass to gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core import kernels, nn
from spiral_core.arrays import F64, Float

DTYPES = [np.float32, np.float64]
CLOSE = {np.float32: 2e-6, np.float64: 1e-13}

BOTH_WAYS = (lambda kernel: kernel, kernels.python_function)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 1100), st.sampled_from([16, 32, 48]), st.sampled_from(DTYPES), st.integers(0, 3))
def test_moments_of_a_span_are_those_of_its_rows_and_of_no_others(
    rows: int, channels: int, dtype: type[np.floating], before: int
) -> None:
    x = np.random.default_rng(rows).normal(50, 2, (before + rows + 2, channels)).astype(dtype)
    moments, centre = np.full((2, channels), np.nan), np.empty(channels, dtype)
    kernels.span_moments(x.reshape(-1), before * channels, (before + rows) * channels, centre, moments)
    wide = x[before : before + rows].astype(np.float64)
    np.testing.assert_allclose(moments[0], wide.mean(axis=0), rtol=CLOSE[dtype])
    squares = ((wide - wide.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(moments[1], squares, rtol=CLOSE[dtype] * 50, atol=CLOSE[dtype])


def test_a_nan_shows_in_the_moments_of_its_own_channel() -> None:
    x, moments = np.ones((9, 32), np.float32), np.zeros((2, 32))
    x[7, 20] = np.nan
    kernels.span_moments(x.reshape(-1), 0, x.size, np.empty(32, np.float32), moments)
    np.testing.assert_array_equal(np.isnan(moments), np.broadcast_to(np.arange(32) == 20, (2, 32)))


@pytest.mark.parametrize("filters", [16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_gives_the_moments_of_each_image_that_it_writes(channels: int, filters: int) -> None:
    layer, workspace = nn.Conv2d("c", channels, filters), nn.Workspace()
    layer.bias.value[:] = np.arange(filters)
    x = np.random.default_rng(1).standard_normal((5, 9, 7, channels)).astype(np.float32)
    moments = np.full((5, 2, filters), np.nan)
    out = layer.convolve(x, moments, workspace).reshape(5, -1, filters).astype(np.float64)
    np.testing.assert_allclose(moments[:, 0], out.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments[:, 1], out.var(axis=1) * 63, rtol=1e-5)
    np.testing.assert_array_equal(out, layer.forward(x).reshape(out.shape))


def whitened(of: Any, x: F64, dtype: type[np.floating], span: int, training: bool) -> list[Float]:
    """Whiten (R, C) by moments of spans; give running statistics, statistics and affine."""
    channels = x.shape[1]
    parts = [x[first : first + span] for first in range(0, len(x), span)] if training else []
    moments = np.array([[part.mean(axis=0), part.var(axis=0) * len(part)] for part in parts])
    running = np.full(channels, 2, dtype), np.full(channels, 3, dtype)
    gamma, beta = np.arange(channels, dtype=dtype), -np.arange(channels, dtype=dtype)
    statistics, affine = np.full((2, channels), np.nan), np.full((4, 3 * channels), np.nan, dtype)
    of(kernels.whiten)(
        moments.reshape(-1, 2, channels), len(x), span, 0.25, 1e-3, *running, gamma, beta, statistics, affine
    )
    return [*running, statistics, affine]


@pytest.mark.parametrize("way", BOTH_WAYS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whitening_joins_spans_moves_the_running_statistics_and_repeats_what_kernels_take(
    dtype: type[np.floating], training: bool, way: Any
) -> None:
    x = np.random.default_rng(0).normal(3, 2, (23, 5))
    mean, variance, statistics, affine = whitened(way, x, dtype, 4, training)
    expected_mean, expected_variance = (x.mean(axis=0), x.var(axis=0)) if training else (np.full(5, 2), np.full(5, 3))
    np.testing.assert_allclose(mean, 0.25 * expected_mean + 0.75 * 2 if training else 2, rtol=CLOSE[dtype])
    np.testing.assert_allclose(variance, 0.25 * expected_variance + 0.75 * 3 if training else 3, rtol=CLOSE[dtype])
    inv_std = 1 / np.sqrt(expected_variance + 1e-3)
    np.testing.assert_allclose(statistics, [expected_mean, inv_std], rtol=1e-12)
    rows = np.array([expected_mean, inv_std, np.arange(5), -np.arange(5)])
    np.testing.assert_allclose(affine, np.tile(rows, 3), rtol=CLOSE[dtype])


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_running_statistics_do_not_follow_a_batch_that_is_not_finite(odd: float) -> None:
    x = np.random.default_rng(0).normal(3, 2, (23, 5))
    x[7, 2] = odd
    with np.errstate(invalid="ignore"):
        mean, variance, statistics, affine = whitened(lambda kernel: kernel, x, np.float32, 4, True)
    assert (mean == 2).all()
    assert (variance == 3).all()
    assert np.isnan(statistics[1, 2])
    assert np.isnan(affine[1, 2])
    assert np.isfinite(np.delete(statistics, 2, axis=1)).all()


@pytest.mark.parametrize("way", BOTH_WAYS)
@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sums_of_a_backward_pass_become_gradients(
    dtype: type[np.floating], training: bool, accumulate: bool, way: Any
) -> None:
    draws = np.random.default_rng(0)
    sums, (mean, inv_std) = draws.standard_normal((7, 4, 5)), draws.uniform(0.5, 2, (2, 5))
    gamma, grad_gamma, grad_beta = draws.standard_normal((3, 5)).astype(dtype)
    before = grad_gamma.copy(), grad_beta.copy()
    affine, totals, members = np.full((5, 10), np.nan, dtype), np.empty((4, 5)), 30.0 if training else np.inf
    way(kernels.unwhiten)(sums, totals, mean, inv_std, members, gamma, accumulate, grad_gamma, grad_beta, affine)
    sum_g, sum_gp, sum_gj, sum_gjn = sums.sum(axis=0)
    scale = inv_std * gamma
    rows = np.array([mean, inv_std, scale * sum_gj / members, scale * sum_gjn / members, scale])
    np.testing.assert_allclose(affine, np.tile(rows, 2), rtol=CLOSE[dtype], atol=CLOSE[dtype])
    np.testing.assert_allclose(grad_gamma, before[0] + sum_gp * accumulate, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    np.testing.assert_allclose(grad_beta, before[1] + sum_g * accumulate, rtol=CLOSE[dtype], atol=CLOSE[dtype])


@pytest.mark.parametrize("way", BOTH_WAYS)
def test_chunks_are_added_in_their_order(way: Any) -> None:
    sums, totals = np.random.default_rng(0).standard_normal((9, 3, 4)), np.full((3, 4), np.nan)
    way(kernels.add_chunks)(sums, totals)
    expected = np.zeros((3, 4))
    for part in sums:
        expected += part
    np.testing.assert_array_equal(totals, expected)
