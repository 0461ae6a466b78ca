from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import layers_twin
from spiral_core import kernels, nn
from spiral_core.arrays import Float

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


@pytest.mark.parametrize("images", [15, 16, 17, 33])
def test_convolution_is_right_at_the_boundaries_of_its_chunks_of_images(images: int) -> None:
    # 16 images of 28 x 28 with 9 taps fill a chunk.
    layer = nn.Conv2d("c", 1, 3)
    assert layer._geometry((64, 28, 28, 1))[-1] == 16
    check(layer, draw((images, 28, 28, 1), np.float32, 2), nn.Workspace(), 5e-5)


def test_an_image_larger_than_a_chunk_is_a_chunk_of_its_own() -> None:
    layer = nn.Conv2d("c", 8, 2, (5, 5), padding=(2, 2))
    x = draw((2, 30, 31, 8), np.float32, 3)
    assert layer._geometry(x.shape)[-1] == 1
    check(layer, x, nn.Workspace(), 5e-5)


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
@pytest.mark.parametrize("compiled", [True, False])
def test_patches_are_gathered_and_scattered_as_by_the_twin(dilation: tuple[int, int], compiled: bool) -> None:
    gather, scatter = kernels.gather_patches, kernels.scatter_patches
    if not compiled:
        gather, scatter = kernels.python_function(gather), kernels.python_function(scatter)
    image = draw((6, 5, 2), np.float64, 5)
    taps, stride, padding = (3, 2), (2, 1), (1, 2)
    expected = layers_twin.patches(image, taps, stride, padding, dilation)
    size = layers_twin.output_size((6, 5), taps, stride, padding, dilation)
    geometry = (6, 5, 2, *taps, *stride, *padding, *dilation, *size, 1)
    padded = np.zeros(8 * 9 * 2)
    patches = np.full(expected.shape, np.nan)
    gather(image.reshape(-1), padded, patches, geometry)
    np.testing.assert_array_equal(patches, expected)
    # <gather(x), p> == <x, scatter(p)>: one is the transpose of the other.
    other, back = draw(expected.shape, np.float64, 6), np.full(image.size, np.nan)
    scatter(other, np.full_like(padded, np.nan), back, geometry)
    assert np.vdot(expected, other) == pytest.approx(np.vdot(image, back), rel=1e-12)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("compiled", [True, False])
def test_with_a_single_channel_patches_are_gathered_as_columns(stride: tuple[int, int], compiled: bool) -> None:
    gather = kernels.gather_taps if compiled else kernels.python_function(kernels.gather_taps)
    image = draw((6, 8, 1), np.float64, 5)
    taps, padding, dilation = (3, 2), (1, 2), (2, 1)
    expected = layers_twin.patches(image, taps, stride, padding, dilation)
    size = layers_twin.output_size((6, 8), taps, stride, padding, dilation)
    columns = np.full((6, len(expected) + 5), np.nan)
    gather(image.reshape(-1), np.zeros(8 * 12), columns, 4, (6, 8, 1, *taps, *stride, *padding, *dilation, *size, 2))
    np.testing.assert_array_equal(columns[:, 4:-1], expected.T)
    assert np.isnan(columns[:, [0, 1, 2, 3, -1]]).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_compiled_convolution_is_the_python_loop(channels: int) -> None:
    images, size, filters = 3, (4, 5), 3
    columns = 9 * channels
    geometry = (*size, channels, 3, 3, 1, 1, 1, 1, 1, 1, *size, 2)
    x, weight = draw((images, 20 * channels), np.float32, 1), draw((columns, filters), np.float32, 2)
    bias, grad = draw((filters,), np.float32, 3), draw((images * 20, filters), np.float32, 4)
    results = []
    for forward, backward in (
        (kernels.convolve, kernels.convolve_backward),
        (kernels.python_function(kernels.convolve), kernels.python_function(kernels.convolve_backward)),
    ):
        padded, patches = np.zeros((2, 6 * 7 * channels), np.float32), np.empty((1, 40, columns), np.float32)
        out, grad_x = np.empty((images * 20, filters), np.float32), np.empty_like(x)
        grad_weight, grad_bias = np.empty((2, columns, filters), np.float32), np.empty((2, filters))
        forward(0, 2, 0, x, weight, bias, geometry, padded, patches, out)
        turned = np.ascontiguousarray(weight.T)
        backward(0, 2, 0, x, turned, grad, geometry, True, True, padded, patches, grad_weight, grad_bias, grad_x)
        results.append((out, grad_weight, grad_bias, grad_x))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
