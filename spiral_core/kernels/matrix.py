"""Large matrix products, cut into ranges of rows that threads share; the cut depends on sizes alone.

The right operand is packed into panels of `PANEL` columns first. In a wide matrix the rows of a panel lie so far apart
that they fall on the same few places of the first-level cache; packed they are neighbors.
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.tile import product

PANEL = 32
"""Columns of one panel; the last one may be narrower."""

ROWS = 64
"""Rows of one chunk of a product."""

PANEL_ROWS = 256
"""Rows of a panel of `multiply_parts`: 32 KiB of float32, which stays in the first-level cache."""

PART_ROWS = 512
"""Rows that one partial sum of `multiply_parts` runs over."""


@kernel("void({f}[:,:], int64, int64, {f}[::1])")
def pack(b: Float, first: int, last: int, packed: Float) -> None:
    """Copy columns ``first`` to ``last`` of a matrix into panels.

    Parameters
    ----------
    b : (K, D)              of any strides, so that a transpose can be packed as well
    first, last : int
    packed : (K*(last-first),)   written: panel by panel, each (K, columns of the panel)
    """
    place = 0
    for begin in range(first, last, PANEL):
        for k in range(b.shape[0]):
            for d in range(begin, min(begin + PANEL, last)):
                packed[place] = b[k, d]
                place += 1


@kernel("void({f}[::1], int64, int64, int64, {f}[::1], {f}[::1], int64, int64, {f}[::1], int64, int64)")
def multiply_rows(
    a: Float,
    at: int,
    rows: int,
    inner: int,
    packed: Float,
    start: Float,
    start_at: int,
    start_row: int,
    out: Float,
    out_at: int,
    columns: int,
) -> None:
    """Write ``start + a b`` for some rows of ``a``.

    Parameters
    ----------
    a : flat                      rows of K numbers from ``at`` on
    at, rows, inner : int         ``inner`` is K
    packed : (K*D,)               b, from `pack`
    start : flat                  of (r, d) at ``start_at + r*start_row + d``; it may be ``out``
    start_at, start_row : int
    out : flat                    of (r, d) at ``out_at + r*D + d``, written
    out_at, columns : int         ``columns`` is D
    """
    for d in range(0, columns, PANEL):
        wide = min(PANEL, columns - d)
        walk = (at, inner, 1, 0, inner, 1, d * inner, wide, start_at + d, start_row, out_at + d, columns)
        product(a, packed, start, out, walk, rows, wide)


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], {f}[:,::1])")
def multiply(start: int, stop: int, slot: int, a: Float, packed: Float, bias: Float, out: Float) -> None:
    """Multiply chunks ``start`` to ``stop`` of `ROWS` rows of ``a`` by ``b`` and add ``bias``.

    Parameters
    ----------
    a : (R, K)
    packed : (K*D,)     b, from `pack`
    bias : (D,)
    out : (R, D)        written
    """
    inner, columns = a.shape[1], out.shape[1]
    flat, target = a.reshape(-1), out.reshape(-1)
    for chunk in range(start, stop):
        first = chunk * ROWS
        rows = min(ROWS, a.shape[0] - first)
        multiply_rows(flat, first * inner, rows, inner, packed, bias, 0, 0, target, first * columns, columns)


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,:,::1])")
def multiply_parts(start: int, stop: int, slot: int, a: Float, b: Float, scratch: Float, parts: Float) -> None:
    """Multiply the transpose of ``a`` by ``b``, one partial sum for each chunk of `PART_ROWS` rows.

    Parameters
    ----------
    a : (R, K)
    b : (R, D)
    scratch : (T, PANEL_ROWS*PANEL)
    parts : (chunks, K, D)   written; their sum is the product
    """
    inner, columns = a.shape[1], b.shape[1]
    flat = a.reshape(-1)
    packed = scratch[slot]
    for chunk in range(start, stop):
        first = chunk * PART_ROWS
        rows = min(PART_ROWS, a.shape[0] - first)
        out = parts[chunk].reshape(-1)
        out[:] = 0
        for top in range(first, first + rows, PANEL_ROWS):
            high = min(PANEL_ROWS, first + rows - top)
            for d in range(0, columns, PANEL):
                wide = min(PANEL, columns - d)
                pack(b[top : top + high], d, d + wide, packed)
                walk = (top * inner, 1, 1, 0, high, inner, 0, wide, d, columns, d, columns)
                product(flat, packed, out, out, walk, inner, wide)
