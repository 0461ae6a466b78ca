from __future__ import annotations

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.kernels.elementwise import CHUNK

SIZES = [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
DTYPES = [np.float32, np.float64]


def draw(size: int, dtype: type[np.floating], seed: int = 0) -> Float:
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_rectify_is_the_maximum_with_zero_at_every_chunk_boundary(size: int, dtype: type[np.floating]) -> None:
    x, grad = draw(size, dtype), draw(size, dtype, 1)
    chunks = -(-size // CHUNK)
    out, grad_x = np.full_like(x, np.nan), np.full_like(x, np.nan)
    kernels.run(kernels.rectify, chunks, x, out)
    kernels.run(kernels.rectify_backward, chunks, x, grad, grad_x)
    np.testing.assert_array_equal(out, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(grad_x, np.where(x > 0, grad, 0))


def test_rectify_lets_nan_and_its_gradient_through() -> None:
    x = np.array([np.nan, -1, 0, -0.0, np.inf, -np.inf], np.float32)
    out, grad_x = np.empty_like(x), np.empty_like(x)
    kernels.rectify(0, 1, 0, x, out)
    kernels.rectify_backward(0, 1, 0, x, np.full_like(x, 7), grad_x)
    np.testing.assert_array_equal(out, [np.nan, 0, 0, 0, np.inf, 0])
    np.testing.assert_array_equal(grad_x, [7, 0, 0, 0, 7, 0])


def test_the_compiled_rectifier_is_the_python_loop() -> None:
    x, grad = draw(40, np.float32), draw(40, np.float32, 1)
    results = []
    for forward, backward in (
        (kernels.rectify, kernels.rectify_backward),
        (kernels.python_function(kernels.rectify), kernels.python_function(kernels.rectify_backward)),
    ):
        out, grad_x = np.empty_like(x), np.empty_like(x)
        forward(0, 1, 0, x, out)
        backward(0, 1, 0, x, grad, grad_x)
        results.append((out, grad_x))
    np.testing.assert_array_equal(results[0], results[1])
