from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import layers_twin
from spiral_core import kernels, nn

TAPS = st.tuples(st.integers(1, 4), st.integers(1, 4))
STRIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(TAPS, STRIDES, st.data(), st.sampled_from([np.float32, np.float64]))
def test_max_pooling_is_its_slow_twin_with_ties_and_padding(
    taps: tuple[int, int], stride: tuple[int, int], data: st.DataObject, dtype: type[np.floating]
) -> None:
    padding = (data.draw(st.integers(0, taps[0] // 2)), data.draw(st.integers(0, taps[1] // 2)))
    size = [data.draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip(taps, padding, strict=True)]
    shape = (data.draw(st.integers(1, 3)), *size, data.draw(st.integers(1, 9)))
    draws = np.random.default_rng(shape[0] + 10 * shape[3])
    # Few different values, so that many windows hold equal ones.
    x = draws.integers(-3, 3, shape).astype(dtype)
    layer, workspace = nn.MaxPool2d("pool", taps, stride=stride, padding=padding, dtype=dtype), nn.Workspace()
    out = layer.forward(x, workspace)
    grad = draws.integers(-9, 9, out.shape).astype(dtype)
    expected, winners = layers_twin.max_pool(x, taps, stride, padding)
    # Small integers add up without rounding, so equality is exact in both dtypes.
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(
        layer.backward(x, grad, workspace),
        layers_twin.max_pool_backward(shape, grad, winners, taps, stride, padding),
    )


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_nan_wins_its_window_wherever_it_stands_and_no_other(place: int) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    x[0, place // 2, place % 2, 0] = np.nan
    layer, workspace = nn.MaxPool2d("pool"), nn.Workspace()
    out = layer.forward(x, workspace)[0, :, :, 0]
    np.testing.assert_array_equal(out, [[np.nan, 7], [13, 15]])
    grad_x = layer.backward(x, np.ones((1, 2, 2, 1), np.float32), workspace)
    assert grad_x[0, place // 2, place % 2, 0] == 1
    assert grad_x.sum() == 4


def test_a_window_of_minus_infinities_gives_minus_infinity() -> None:
    x = np.full((1, 2, 2, 1), -np.inf, np.float32)
    assert nn.MaxPool2d("pool").forward(x).item() == -np.inf


def test_the_compiled_pooling_is_the_python_loop() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    geometry = (3, 2, 2, 1, 1, 1)
    shape = (2, *layers_twin.output_size((5, 4), (3, 2), (2, 1), (1, 1)), 3)
    results = []
    for forward, backward in (
        (kernels.max_pool, kernels.max_pool_backward),
        (kernels.python_function(kernels.max_pool), kernels.python_function(kernels.max_pool_backward)),
    ):
        out, taps, grad_x = np.empty(shape, np.float32), np.empty(shape, np.uint8), np.empty_like(x)
        forward(0, 2, 0, x, geometry, out, taps)
        backward(0, 2, 0, out, taps, geometry, grad_x)
        results.append((out, taps, grad_x))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(TAPS, STRIDES, st.data(), st.sampled_from([np.float32, np.float64]))
def test_average_pooling_is_its_slow_twin_with_padding(
    taps: tuple[int, int], stride: tuple[int, int], data: st.DataObject, dtype: type[np.floating]
) -> None:
    padding = (data.draw(st.integers(0, taps[0] // 2)), data.draw(st.integers(0, taps[1] // 2)))
    size = [data.draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip(taps, padding, strict=True)]
    shape = (data.draw(st.integers(1, 3)), *size, data.draw(st.integers(1, 9)))
    draws = np.random.default_rng(shape[0] + 10 * shape[3])
    x = draws.standard_normal(shape).astype(dtype)
    layer, workspace = nn.AvgPool2d("pool", taps, stride=stride, padding=padding, dtype=dtype), nn.Workspace()
    out = layer.forward(x, workspace)
    grad = draws.standard_normal(out.shape).astype(dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(out, layers_twin.average_pool(x, taps, stride, padding), rtol=0, atol=tolerance)
    expected = layers_twin.average_pool_backward(shape, grad, taps, stride, padding)
    np.testing.assert_allclose(layer.backward(x, grad, workspace), expected, rtol=0, atol=tolerance)


def test_a_nan_reaches_the_averages_of_its_windows_alone() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    x[0, 1, 2, 0] = np.nan
    np.testing.assert_array_equal(nn.AvgPool2d("pool").forward(x)[0, :, :, 0], [[2.5, np.nan], [10.5, 12.5]])


def test_the_compiled_average_is_the_python_loop() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    geometry = (3, 2, 2, 1, 1, 1)
    shape = (2, *layers_twin.output_size((5, 4), (3, 2), (2, 1), (1, 1)), 3)
    results = []
    for forward, backward in (
        (kernels.average_pool, kernels.average_pool_backward),
        (kernels.python_function(kernels.average_pool), kernels.python_function(kernels.average_pool_backward)),
    ):
        out, grad_x = np.empty(shape, np.float32), np.empty_like(x)
        forward(0, 2, 0, x, geometry, out)
        backward(0, 2, 0, out, geometry, grad_x)
        results.append((out, grad_x))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d, nn.GlobalAveragePool2d])
def test_pooling_is_bit_identical_on_one_two_and_three_threads(kind: type[nn.Module], dtype: type[np.floating]) -> None:
    draws = np.random.default_rng(0)
    # Seven images, so that two and three threads get shares of different sizes.
    x = draws.standard_normal((7, 9, 8, 5)).astype(dtype)
    windows = {} if kind is nn.GlobalAveragePool2d else {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}
    results = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        layer, workspace = kind("pool", dtype=dtype, **windows), nn.Workspace()
        out = layer.forward(x, workspace)
        grad = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
        results.append([out.tobytes(), layer.backward(x, grad, workspace).tobytes()])
    assert results[0] == results[1] == results[2]
