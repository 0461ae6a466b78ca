"""Gradients by central difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spiral_core.arrays import F64

STEP = 1e-5
"""Error of the difference: STEP^2 of the third derivative, and 1e-16 / STEP of the value; both about 1e-10."""


def central_difference(function: Callable[[], float], array: F64) -> F64:
    """Return the derivative of ``function()`` by each element of ``array``, which is moved and put back."""
    flat = array.reshape(-1)
    assert np.shares_memory(flat, array)
    gradient = np.empty_like(flat)
    for index in range(flat.size):
        value = flat[index]
        flat[index] = value + STEP
        above = function()
        flat[index] = value - STEP
        below = function()
        flat[index] = value
        gradient[index] = (above - below) / (2 * STEP)
    return gradient.reshape(array.shape)
