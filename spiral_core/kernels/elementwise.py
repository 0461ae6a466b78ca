"""Activations over flat arrays, in chunks of a fixed number of elements."""

from __future__ import annotations

import math

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.real import tanh

CHUNK = 32768
"""Elements in one chunk: 128 KiB of float32, which stays in a core's second-level cache."""

ROOT_HALF = math.sqrt(0.5)
INV_ROOT_TWO_PI = 1.0 / math.sqrt(2.0 * math.pi)
ROOT_TWO_OVER_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715
"""Weight of the cube in the tanh form of the Gaussian error linear unit; Hendrycks and Gimpel 2016, section 2."""


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1])")
def rectify(start: int, stop: int, slot: int, x: Float, out: Float) -> None:
    """Write ``max(x, 0)``; NaN stays NaN.

    Parameters
    ----------
    x : (E,)
    out : (E,)  written
    """
    zero = x.dtype.type(0)
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = out[chunk * CHUNK : (chunk + 1) * CHUNK]
        for j in range(source.size):
            v = source[j]
            target[j] = zero if v <= zero else v


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1])")
def rectify_backward(start: int, stop: int, slot: int, x: Float, grad: Float, grad_x: Float) -> None:
    """Pass the gradient where ``x`` was not at or below zero (so also where it was NaN).

    Parameters
    ----------
    x : (E,)       the input of `rectify`
    grad : (E,)    gradient of its output
    grad_x : (E,)  written
    """
    zero = x.dtype.type(0)
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        g = grad[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = grad_x[chunk * CHUNK : (chunk + 1) * CHUNK]
        for j in range(source.size):
            target[j] = zero if source[j] <= zero else g[j]


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1])")
def squash(start: int, stop: int, slot: int, x: Float, out: Float) -> None:
    """Write ``tanh(x)``; NaN stays NaN.

    Parameters
    ----------
    x : (E,)
    out : (E,)  written
    """
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = out[chunk * CHUNK : (chunk + 1) * CHUNK]
        for j in range(source.size):
            target[j] = tanh(source[j])


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1])")
def squash_backward(start: int, stop: int, slot: int, x: Float, grad: Float, grad_x: Float) -> None:
    """Multiply the gradient by ``1 - tanh(x)**2``.

    Parameters
    ----------
    x : (E,)       the input of `squash`
    grad : (E,)    gradient of its output
    grad_x : (E,)  written
    """
    one = x.dtype.type(1)
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        g = grad[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = grad_x[chunk * CHUNK : (chunk + 1) * CHUNK]
        for j in range(source.size):
            t = tanh(source[j])
            target[j] = g[j] * (one - t) * (one + t)


@kernel("void(int64, int64, int64, {f}[::1], boolean, {f}[::1])")
def gaussian_gate(start: int, stop: int, slot: int, x: Float, exact: bool, out: Float) -> None:
    """Write ``x P(x)``, with P the share of a standard normal below x, or its tanh form.

    Parameters
    ----------
    x : (E,)
    exact : bool  ``erfc(-x / sqrt(2)) / 2`` of the C library, in float64; else ``(1 + tanh(u)) / 2``
    out : (E,)    written
    """
    dtype = x.dtype.type
    half, one, root, cubic = dtype(0.5), dtype(1), dtype(ROOT_TWO_OVER_PI), dtype(CUBIC)
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = out[chunk * CHUNK : (chunk + 1) * CHUNK]
        if exact:
            for j in range(source.size):
                wide = float(source[j])
                target[j] = 0.5 * wide * math.erfc(-wide * ROOT_HALF)
        else:
            for j in range(source.size):
                v = source[j]
                target[j] = half * v * (one + tanh(root * v * (one + cubic * v * v)))


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], boolean, {f}[::1])")
def gaussian_gate_backward(start: int, stop: int, slot: int, x: Float, grad: Float, exact: bool, grad_x: Float) -> None:
    """Differentiate `gaussian_gate`.

    Parameters
    ----------
    x : (E,)       the input of `gaussian_gate`
    grad : (E,)    gradient of its output
    exact : bool   as there
    grad_x : (E,)  written
    """
    dtype = x.dtype.type
    half, one, three = dtype(0.5), dtype(1), dtype(3)
    root, cubic = dtype(ROOT_TWO_OVER_PI), dtype(CUBIC)
    for chunk in range(start, stop):
        source = x[chunk * CHUNK : (chunk + 1) * CHUNK]
        g = grad[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = grad_x[chunk * CHUNK : (chunk + 1) * CHUNK]
        if exact:
            for j in range(source.size):
                wide = float(source[j])
                density = INV_ROOT_TWO_PI * math.exp(-0.5 * wide * wide)
                target[j] = g[j] * (0.5 * math.erfc(-wide * ROOT_HALF) + wide * density)
        else:
            for j in range(source.size):
                v = source[j]
                t = tanh(root * v * (one + cubic * v * v))
                slope = root * (one + three * cubic * v * v)
                target[j] = g[j] * half * ((one + t) + v * slope * (one - t) * (one + t))
