from __future__ import annotations

import math

import numpy as np
import pytest

from spiral_core import kernels, nn
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


def smooth(kind: str, dtype: type[np.floating]) -> nn.Module:
    if kind == "tanh":
        return nn.Tanh("a", dtype)
    return nn.GELU("a", dtype, approximate="tanh" if kind == "gelu tanh" else "none")


def twin(kind: str, x: float) -> float:
    if kind == "tanh":
        return math.tanh(x)
    if kind == "gelu":
        return x * math.erfc(-x / math.sqrt(2)) / 2
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["tanh", "gelu", "gelu tanh"])
def test_smooth_activations_are_their_formulas_at_every_chunk_boundary(kind: str, dtype: type[np.floating]) -> None:
    x = draw(CHUNK + 3, dtype) * dtype(3)
    out = smooth(kind, dtype).forward(x)
    expected = [twin(kind, float(v)) for v in x]
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-6 if dtype == np.float32 else 1e-14)


def test_the_exact_form_keeps_its_digits_far_to_the_left() -> None:
    x = np.array([-8.0, -5.0], np.float32)
    np.testing.assert_allclose(nn.GELU("a").forward(x), [twin("gelu", -8), twin("gelu", -5)], rtol=2e-7)


@pytest.mark.parametrize("kind", ["tanh", "gelu", "gelu tanh"])
def test_smooth_activations_let_nan_through_and_saturate(kind: str) -> None:
    x = np.array([np.nan, 30, -30], np.float32)
    layer = smooth(kind, np.float32)
    out, grad_x = layer.forward(x), layer.backward(x, np.full_like(x, 2))
    np.testing.assert_array_equal(out, [np.nan, 1, -1] if kind == "tanh" else [np.nan, 30, 0])
    np.testing.assert_array_equal(grad_x, [np.nan, 0, 0] if kind == "tanh" else [np.nan, 2, 0])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", ["tanh", "gelu", "gelu tanh"])
def test_smooth_activations_are_bit_identical_on_any_number_of_threads(kind: str) -> None:
    x, grad, layer = draw(2 * CHUNK + 5, np.float32), draw(2 * CHUNK + 5, np.float32, 1), smooth(kind, np.float32)
    bits = set()
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        bits.add(layer.forward(x).tobytes() + layer.backward(x, grad).tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("exact", [None, True, False])
def test_the_compiled_smooth_activations_are_the_python_loops(exact: bool | None) -> None:
    pair = (
        (kernels.squash, kernels.squash_backward)
        if exact is None
        else (kernels.gaussian_gate, kernels.gaussian_gate_backward)
    )
    form = () if exact is None else (exact,)
    x, grad = draw(40, np.float32), draw(40, np.float32, 1)
    results = []
    for forward, backward in (pair, tuple(map(kernels.python_function, pair))):
        out, grad_x = np.empty_like(x), np.empty_like(x)
        forward(0, 1, 0, x, *form, out)
        backward(0, 1, 0, x, grad, *form, grad_x)
        results.append((out, grad_x))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
