"""Rectifier over flat arrays, in chunks of a fixed number of elements."""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel

CHUNK = 32768
"""Elements in one chunk: 128 KiB of float32, which stays in a core's second-level cache."""


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
