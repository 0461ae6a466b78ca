"""Large matrix products, cut into ranges of rows that threads share; the cut depends on sizes alone."""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel

ROWS = 128
"""Rows of one chunk of a product: enough for the library's full speed."""

PART_ROWS = 512
"""Rows that one partial sum of `multiply_parts` runs over."""


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[:,::1], boolean, {f}[:,::1])")
def multiply(start: int, stop: int, slot: int, a: Float, b: Float, turned: bool, out: Float) -> None:
    """Multiply chunks ``start`` to ``stop`` of `ROWS` rows of ``a`` by ``b``.

    Parameters
    ----------
    a : (R, K)
    b : (K, D), or (D, K) when ``turned``
    turned : bool       multiply by the transpose of ``b``
    out : (R, D)        written
    """
    for chunk in range(start, stop):
        rows = slice(chunk * ROWS, min((chunk + 1) * ROWS, a.shape[0]))
        if turned:
            np.dot(a[rows], b.T, out[rows])
        else:
            np.dot(a[rows], b, out[rows])


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[:,:,::1])")
def multiply_parts(start: int, stop: int, slot: int, a: Float, b: Float, parts: Float) -> None:
    """Multiply the transpose of ``a`` by ``b``, one partial sum for each chunk of `PART_ROWS` rows.

    Parameters
    ----------
    a : (R, K)
    b : (R, D)
    parts : (chunks, K, D)   written; their sum is the product
    """
    for chunk in range(start, stop):
        rows = slice(chunk * PART_ROWS, min((chunk + 1) * PART_ROWS, a.shape[0]))
        np.dot(a[rows].T, b[rows], parts[chunk])
