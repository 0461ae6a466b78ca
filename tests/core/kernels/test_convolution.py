from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import layers_twin
from spiral_core import kernels, nn
from spiral_core.arrays import Float
from spiral_core.kernels import plane, winograd

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
"""Absolute, for sums of at most a few hundred products of standard normal numbers."""

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def draw(shape: tuple[int, ...], dtype: type[np.floating], seed: int) -> Float:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check(layer: nn.Conv2d, x: Float, workspace: nn.Workspace, tolerance: float) -> None:
    """Compare forward and all three gradients with the twin."""
    layer.bias.value[:] = np.arange(layer.out_channels)
    layer.zero_grad()
    geometry = (layer.stride, layer.padding, layer.dilation)
    wide = [array.astype(np.float64) for array in (x, layer.weight.value, layer.bias.value)]
    out = layer.forward(x, workspace)
    np.testing.assert_allclose(out, layers_twin.convolve(*wide, *geometry), rtol=0, atol=tolerance)
    grad = draw(out.shape, x.dtype.type, 9)
    grad_x = layer.backward(x, grad, workspace)
    expected = layers_twin.convolve_backward(wide[0], wide[1], grad.astype(np.float64), *geometry)
    for ours, twin in zip((grad_x, layer.weight.grad, layer.bias.grad), expected, strict=True):
        # Gradients of the parameters are sums over every pixel of the batch.
        np.testing.assert_allclose(ours, twin, rtol=tolerance, atol=tolerance * max(1.0, np.abs(twin).max()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(PAIRS, PAIRS, st.tuples(st.integers(0, 2), st.integers(0, 2)), PAIRS, st.data())
def test_convolution_and_its_gradients_are_their_slow_twins(
    taps: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    data: st.DataObject,
) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(taps, padding, dilation, strict=True)]
    size = [data.draw(st.integers(n, n + 4)) for n in least]
    channels, filters = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    x = draw((data.draw(st.integers(1, 3)), *size, channels), dtype, 1)
    layer = nn.Conv2d("c", channels, filters, taps, stride=stride, padding=padding, dilation=dilation, dtype=dtype)
    check(layer, x, nn.Workspace(), TOLERANCE[dtype])


@pytest.mark.parametrize("images", [1, 2, 3, 5, 9])
def test_convolution_is_right_at_the_boundaries_of_its_chunks_of_images(images: int) -> None:
    # Two images of 28 x 28 share one partial sum of the weight's gradient.
    layer = nn.Conv2d("c", 1, 3)
    assert layer._geometry((64, 28, 28, 1))[-1] == 2
    check(layer, draw((images, 28, 28, 1), np.float32, 2), nn.Workspace(), 5e-5)


def test_an_image_larger_than_a_chunk_is_a_chunk_of_its_own() -> None:
    layer = nn.Conv2d("c", 2, 2, (5, 5), padding=(2, 2))
    x = draw((2, 80, 81, 2), np.float32, 3)
    assert layer._geometry(x.shape)[-1] == 1
    check(layer, x, nn.Workspace(), 2e-4)


@pytest.mark.parametrize(("channels", "filters"), [(1, 16), (16, 32), (3, 33), (17, 48), (32, 49)])
@pytest.mark.parametrize("width", [1, 3, 7, 12])
def test_every_size_of_block_is_right(channels: int, filters: int, width: int) -> None:
    layer = nn.Conv2d("c", channels, filters, dtype=np.float64)
    check(layer, draw((2, 3, width, channels), np.float64, 5), nn.Workspace(), 1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [((1, 1), (1, 1), (1, 1)), ((2, 3), (0, 2), (2, 1))])
def test_gray_images_under_nine_taps_are_convolved_as_all_others(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], dtype: type[np.floating]
) -> None:
    layer = nn.Conv2d("c", 1, 32, stride=stride, padding=padding, dilation=dilation, dtype=dtype)
    x = draw((11, 9, 8, 1), dtype, 2)
    assert plane.is_plane(layer._geometry(x.shape), 32)
    check(layer, x, nn.Workspace(), 5 * TOLERANCE[dtype])


@pytest.mark.parametrize("geometry", [(5, 5, 2, 3, 3), (5, 5, 1, 3, 2), (5, 5, 1, 2, 3)])
def test_only_gray_images_under_nine_taps_have_loops_of_their_own(geometry: tuple[int, ...]) -> None:
    rest = (1, 1, 1, 1, 1, 1, 5, 5, 1)
    for is_plane in (plane.is_plane, kernels.python_function(plane.is_plane)):
        assert not is_plane((*geometry, *rest), 16)
        assert not is_plane((5, 5, 1, 3, 3, *rest), 17)
        assert is_plane((5, 5, 1, 3, 3, *rest), 48)


def test_gray_images_get_the_bits_that_blocks_would_give() -> None:
    image, grad = draw((6 * 9,), np.float32, 1), draw((4 * 7 * 16,), np.float32, 2)
    weight, bias = draw((9 * 16,), np.float32, 3), draw((16,), np.float32, 4)
    geometry = (4, 7, 1, 3, 3, 1, 1, 1, 1, 1, 1, 4, 7, 1)
    out, expected = np.empty_like(grad), np.empty_like(grad)
    plane.correlate_plane(image, weight, bias, geometry, out)
    for i in range(4):
        walk = (i * 9, 1, 3, 9, 3, 1, 0, 16, 0, 0, i * 7 * 16, 16)
        kernels.product(image, weight, bias, expected, walk, 7, 16)
    np.testing.assert_array_equal(out, expected)
    totals, wanted, shift = np.ones(144, np.float32), np.ones(144, np.float32), np.ones(16)
    plane.correlate_plane_backward(image, grad, geometry, totals, shift)
    for a in range(3):
        walk = (9 * a, 1, 4, 9, 7, 1, 0, 16, 48 * a, 16, 48 * a, 16)
        kernels.product(image, grad, wanted, wanted, walk, 3, 16)
    np.testing.assert_array_equal(totals, wanted)
    np.testing.assert_allclose(shift, 1 + grad.reshape(-1, 16).sum(axis=0, dtype=np.float64), rtol=1e-5)


def test_the_border_stays_zero_when_images_change_their_shape_but_not_their_padded_size() -> None:
    # (4 + 2) * (6 + 2) == (6 + 2) * (4 + 2): the same scratch, with its border elsewhere.
    layer, workspace = nn.Conv2d("c", 2, 3, dtype=np.float64), nn.Workspace()
    for size in ((4, 6), (6, 4), (4, 6), (5, 5)):
        check(layer, draw((3, *size, 2), np.float64, 4), workspace, 1e-12)


def test_scratch_follows_the_number_of_threads(threads: None) -> None:
    layer, workspace = nn.Conv2d("c", 2, 3, dtype=np.float64), nn.Workspace()
    for count in (1, 3, 2, 1):
        kernels.set_num_threads(count)
        check(layer, draw((3, 5, 5, 2), np.float64, 4), workspace, 1e-12)


def test_a_nan_reaches_exactly_the_outputs_that_see_it() -> None:
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2, 0] = np.nan
    out = nn.Conv2d("c", 1, 1).forward(x)[0, :, :, 0]
    seen = np.zeros((5, 5), bool)
    seen[1:4, 1:4] = True
    np.testing.assert_array_equal(np.isnan(out), seen)


@pytest.mark.parametrize("dilation", [(1, 1), (2, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_the_compiled_convolution_is_the_python_loop(stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    layer = nn.Conv2d("c", 2, 17, (3, 2), stride=stride, padding=(1, 2), dilation=dilation)
    x = draw((3, 6, 5, 2), np.float32, 1)
    shape = layer.output_shape(x.shape)
    grad = draw((3, math.prod(shape[1:])), np.float32, 4)
    geometry = layer._geometry(x.shape)
    rows, columns = 6 + 2 * dilation[0], 5 + dilation[1]
    turned = np.ascontiguousarray(layer.weight.value[::-1, ::-1].transpose(0, 1, 3, 2)).reshape(-1)
    results = []
    for of in (lambda function: function, kernels.python_function):
        padded, spread = np.zeros((1, 8 * 9 * 2), np.float32), np.zeros((1, rows * columns * 17), np.float32)
        out, grad_x = np.empty_like(grad), np.empty((3, 60), np.float32)
        grad_weight, grad_bias = np.empty((1, 3 * 2 * 2 * 17), np.float32), np.empty((1, 1, 17))
        lanes, zeros, none = np.empty((1, 1, 34), np.float32), np.zeros(2, np.float32), np.empty((0, 0), np.float32)
        flat, weight = x.reshape(3, -1), layer.weight.value.reshape(-1)
        no_moments, no_taps = np.empty((0, 2, 17)), np.empty((0, 0), np.uint8)
        no_tiles = np.empty((1, 0), np.float32)
        of(kernels.convolve)(0, 3, 0, flat, weight, layer.bias.value, geometry, padded, no_tiles, out, none, no_moments)
        of(kernels.convolve_backward)(
            0, 1, 0, flat, turned, zeros, grad, geometry, none, no_taps, none, none, padded, no_tiles,
            lanes, spread, grad_weight, grad_bias, grad_x,
        )  # fmt: skip
        results.append((out, grad_weight, grad_bias, grad_x))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3),
    st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_a_correlation_in_tiles_and_its_gradients_are_their_slow_twins(
    images: int,
    down: int,
    across: int,
    channels: int,
    filters: int,
    padding: tuple[int, int],
    dtype: type[np.floating],
) -> None:
    h, w = (max(2 * half, 4 if pad == 0 else 2) for half, pad in zip((down, across), padding, strict=True))
    layer = nn.Conv2d("c", 16 * channels, 16 * filters, padding=padding, dtype=dtype)
    x = draw((images, h, w, 16 * channels), dtype, 7)
    assert winograd.scratch_size(layer._geometry(x.shape), 16 * filters) > 0
    check(layer, x, nn.Workspace(), 1e-4 if dtype is np.float32 else 1e-11)


@pytest.mark.parametrize("pixel", [(0, 0), (3, 4), (4, 3), (5, 5), (7, 0), (7, 7)])
def test_a_nan_reaches_exactly_the_outputs_that_see_it_in_tiles_too(pixel: tuple[int, int]) -> None:
    layer, workspace = nn.Conv2d("c", 16, 16), nn.Workspace()
    x = draw((2, 8, 8, 16), np.float32, 3)
    clean = layer.forward(x, workspace).copy()
    x[0, *pixel, 5] = np.nan
    seen = np.zeros(clean.shape, bool)
    i, j = pixel
    seen[0, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2] = True
    found = layer.forward(x, workspace)
    np.testing.assert_array_equal(np.isnan(found), seen)
    np.testing.assert_array_equal(found[~seen], clean[~seen])
    x[0, *pixel, 5] = np.inf
    np.testing.assert_array_equal(np.isfinite(layer.forward(x, workspace)), ~seen)


@pytest.mark.parametrize(
    "other",
    [
        {"channels": 8},
        {"filters": 24},
        {"taps": (3, 5)},
        {"taps": (1, 3)},
        {"stride": (2, 1)},
        {"stride": (1, 2)},
        {"dilation": (2, 1)},
        {"dilation": (1, 2)},
        {"size": (7, 8)},
        {"size": (8, 7)},
    ],
)
def test_what_tiles_do_not_fit_goes_without(other: dict[str, Any]) -> None:
    words = {
        "channels": 16,
        "filters": 16,
        "taps": (3, 3),
        "stride": (1, 1),
        "dilation": (1, 1),
        "size": (8, 8),
        **other,
    }
    layer = nn.Conv2d(
        "c", words["channels"], words["filters"], words["taps"],
        stride=words["stride"], dilation=words["dilation"], padding=(2, 2),
    )  # fmt: skip
    x = draw((2, *words["size"], words["channels"]), np.float32, 3)
    assert winograd.scratch_size(layer._geometry(x.shape), words["filters"]) == 0
    assert winograd.scratch_size((8, 8, 16, 3, 3, 1, 1, 2, 2, 1, 1, 10, 10, 2), 16) > 0
    check(layer, x, nn.Workspace(), 1e-4)


def test_one_workspace_serves_images_with_and_without_tiles() -> None:
    layer, workspace = nn.Conv2d("c", 16, 16), nn.Workspace()
    for size in ((8, 8), (7, 8), (4, 6), (8, 8), (12, 10), (5, 5)):
        check(layer, draw((2, *size, 16), np.float32, 3), workspace, 1e-4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(1, 16), st.integers(1, 50), st.integers(1, 3), st.integers(1, 5), st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_a_product_with_strides_is_the_sum_that_it_promises(
    rows: int, columns: int, outer: int, inner: int, accumulate: bool, dtype: type[np.floating]
) -> None:
    x_row, x_outer, x_inner, w_row, out_row = 3, 7, 2, columns + 1, columns + 2
    x = draw((2 + rows * x_row + outer * x_outer + inner * x_inner,), dtype, 1)
    w = draw((1 + outer * inner * w_row,), dtype, 2)
    out = draw((4 + rows * out_row,), dtype, 3)
    start = out if accumulate else draw((5 + columns,), dtype, 4)
    start_at, start_row = (4, out_row) if accumulate else (5, 0)
    r, d = np.ogrid[:rows, :columns]
    wide = x.astype(np.float64), w.astype(np.float64)
    expected = start.astype(np.float64)[start_at + r * start_row + d]
    for o in range(outer):
        for i in range(inner):
            k = o * inner + i
            expected = expected + wide[0][2 + r * x_row + o * x_outer + i * x_inner] * wide[1][1 + k * w_row + d]
    untouched = np.setdiff1d(np.arange(out.size), 4 + r * out_row + d)
    before = out[untouched]
    walk = (2, x_row, outer, x_outer, inner, x_inner, 1, w_row, start_at, start_row, 4, out_row)
    kernels.product(x, w, start, out, walk, rows, columns)
    np.testing.assert_allclose(out[4 + r * out_row + d], expected, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(out[untouched], before)
