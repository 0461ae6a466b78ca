from __future__ import annotations

import math

import numpy as np
import pytest

from spiral_core.arrays import Float
from spiral_core.kernels import kernel, python_function
from spiral_core.kernels.real import TANH_ERROR_FLOAT32, tanh


@kernel("void({f}[::1], {f}[::1])")
def tanh_of_each(x: Float, out: Float) -> None:
    """Run `tanh` inside compiled code, as the kernels do."""
    for j in range(x.size):
        out[j] = tanh(x[j])


def compiled(x: Float) -> Float:
    out = np.empty_like(x)
    tanh_of_each(x, out)
    return out


@pytest.fixture(scope="module")
def grid() -> Float:
    """Two million positive float32 up to infinity: every 1021st, the ends of every binade, and all around the clamp."""
    bits = np.arange(0, 0x7F800000, 1021, dtype=np.uint32)
    edges = np.arange(0, 0x7F800000, 1 << 23, dtype=np.uint32)
    near_one = np.arange(np.float32(8.9).view(np.uint32), np.float32(9.1).view(np.uint32), dtype=np.uint32)
    return np.unique(np.concatenate([bits, edges, edges[1:] - 1, near_one])).view(np.float32)


def test_the_float32_tanh_stays_within_its_stated_relative_error_everywhere(grid: Float) -> None:
    # Below the smallest normal number a relative error is a matter of half a unit of a subnormal.
    x = grid[grid >= np.finfo(np.float32).tiny]
    exact = np.tanh(x.astype(np.float64))
    error = np.abs(compiled(x) - exact) / exact
    assert error.max() < TANH_ERROR_FLOAT32 == 5e-7
    assert error.max() > 1e-8, "the twin is the function itself"


def test_the_float32_tanh_is_odd_to_the_last_bit(grid: Float) -> None:
    np.testing.assert_array_equal(compiled(-grid), -compiled(grid))


def test_the_float32_tanh_is_exactly_one_far_out_and_never_above(grid: Float) -> None:
    value = compiled(grid)
    assert value.max() == 1.0
    assert (value[grid > 9.4] == 1.0).all()
    assert compiled(np.array([np.inf, -np.inf], np.float32)).tolist() == [1.0, -1.0]


def test_the_float32_tanh_rises_within_its_error_bound(grid: Float) -> None:
    value = compiled(grid).astype(np.float64)
    highest_so_far = np.maximum.accumulate(value)
    assert (highest_so_far - value <= 2 * TANH_ERROR_FLOAT32 * highest_so_far).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_keeps_nan_and_zero(dtype: type[np.floating]) -> None:
    value = compiled(np.array([np.nan, 0.0, -0.0], dtype))
    assert np.isnan(value[0])
    assert value[1] == 0.0
    assert value[2] == 0.0


def test_the_float64_tanh_is_that_of_the_c_library() -> None:
    x = np.linspace(-25, 25, 4001)
    np.testing.assert_array_equal(compiled(x), [math.tanh(v) for v in x])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, TANH_ERROR_FLOAT32), (np.float64, 1e-15)])
def test_outside_compiled_code_tanh_is_the_same_function(dtype: type[np.floating], tolerance: float) -> None:
    x = np.linspace(-10, 10, 301).astype(dtype)
    out = np.empty_like(x)
    python_function(tanh_of_each)(x, out)
    np.testing.assert_allclose(out, compiled(x), rtol=tolerance)
    assert type(tanh(x[0])) in (dtype, float)
