from __future__ import annotations

import math

import numpy as np
import pytest

from spiral_core import kernels

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("size", [1, 2, 17, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_step_of_descent_is_the_formula_and_the_python_loop(size: int, dtype: type[np.floating]) -> None:
    value, grad, velocity = np.random.default_rng(size).standard_normal((3, size)).astype(dtype)
    lr, momentum, decay = dtype(0.1), dtype(0.9), dtype(0.01)
    v = 0.9 * velocity.astype(float) + grad + 0.01 * value.astype(float)
    for update in (kernels.sgd_update, kernels.python_function(kernels.sgd_update)):
        w, u = value.copy(), velocity.copy()
        update(w, grad, u, lr, momentum, decay)
        tolerance = 1e-6 if dtype is np.float32 else 1e-15
        np.testing.assert_allclose(u, v, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(w, value - 0.1 * v, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [1, 2, 17, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_step_of_adam_is_the_formula_and_the_python_loop(size: int, dtype: type[np.floating]) -> None:
    value, grad, first, second = np.random.default_rng(size).standard_normal((4, size)).astype(dtype)
    second = np.abs(second)
    g = grad + 0.01 * value.astype(float)
    m = 0.9 * first.astype(float) + 0.1 * g
    v = 0.999 * second.astype(float) + 0.001 * g * g
    expected = value - 0.02 * m / (np.sqrt(v) / 0.5 + 1e-8)
    for update in (kernels.adam_update, kernels.python_function(kernels.adam_update)):
        w, a, b = value.copy(), first.copy(), second.copy()
        update(w, grad, a, b, *(dtype(c) for c in (0.02, 0.9, 0.1, 0.999, 0.001, 1e-8, 0.01, 0.5)))
        tolerance = 2e-6 if dtype is np.float32 else 1e-14
        np.testing.assert_allclose(a, m, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(b, v, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(w, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunks", [1, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_partial_sums_are_added_to_gradients_in_their_order(chunks: int, dtype: type[np.floating]) -> None:
    draws = np.random.default_rng(chunks)
    weights, biases = draws.standard_normal((chunks, 21)).astype(dtype), draws.standard_normal((chunks, 3))
    weight, bias = draws.standard_normal(21).astype(dtype), draws.standard_normal(3).astype(dtype)
    total, shift = weights[0].copy(), biases[0].copy()
    for k in range(1, chunks):
        total, shift = total + weights[k], shift + biases[k]
    for add_parts in (kernels.add_parts, kernels.python_function(kernels.add_parts)):
        grad_weight, grad_bias = weight.copy(), bias.copy()
        add_parts(weights.copy(), biases.copy(), grad_weight, grad_bias)
        np.testing.assert_array_equal(grad_weight, weight + total)
        np.testing.assert_allclose(grad_bias, bias + shift, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_a_sum_of_squares_is_that_of_exact_arithmetic(dtype: type[np.floating], count: int) -> None:
    values = (np.random.default_rng(0).standard_normal(count) * 1e15).astype(dtype)
    exact = math.fsum(float(v) ** 2 for v in values)
    for sum_of_squares in (kernels.sum_of_squares, kernels.python_function(kernels.sum_of_squares)):
        assert sum_of_squares(values) == pytest.approx(exact, rel=1e-14)


def test_a_sum_of_squares_shows_nan_and_infinity_and_does_not_overflow_in_float32() -> None:
    assert kernels.sum_of_squares(np.full(9, 3e38, np.float32)) == pytest.approx(9 * float(np.float32(3e38)) ** 2)
    for odd in (np.nan, np.inf):
        values = np.ones(40, np.float32)
        values[17] = odd
        assert not math.isfinite(kernels.sum_of_squares(values))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_added_to_all_rows(dtype: type[np.floating]) -> None:
    matrix, row = np.random.default_rng(0).standard_normal((8, 5)).astype(dtype), np.arange(5, dtype=dtype)
    row[3] = np.inf
    for add in (kernels.add_row, kernels.python_function(kernels.add_row)):
        total = matrix.copy()
        add(total, row)
        assert total.tobytes() == (matrix + row).tobytes()
