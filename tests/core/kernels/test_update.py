from __future__ import annotations

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
