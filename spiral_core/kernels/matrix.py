"""Large matrix products, cut into panels of columns.

An operand is packed into panels first. In a wide matrix the rows of a panel lie so far apart that they fall on the same
few places of the first-level cache; packed they are neighbors.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.tile import product
from spiral_core.kernels.vector import LANES, load, spread, store

PANEL = 32
"""Columns of one panel; the last one may be narrower."""

TALL = 8
"""Rows of a block of a product whose left operand is packed: half of what `LANES` columns of that operand become."""

DEPTH = 160
"""Rows of a panel of a product that is added up block by block: a panel of either operand and the block of sums stay in
the first-level cache together."""


@kernel("void({f}[:,::1], int64, int64, int64, int64, int64, {f}[::1])")
def pack(b: Float, top: int, high: int, first: int, last: int, wide: int, packed: Float) -> None:
    """Copy a part of a matrix into panels.

    Parameters
    ----------
    b : (K, D)
    top, high : int               the part's first row, and how many
    first, last : int             its columns
    wide : int                    columns of one panel, a multiple of `LANES`; the last one may be narrower
    packed : flat                 written: panel by panel, each (high, columns of the panel)
    """
    flat, columns = b.reshape(-1), b.shape[1]
    rest = (last - first) % wide
    full = last - rest
    for k in range(high):
        row = (top + k) * columns
        to = k * wide
        for d in range(first, full, wide):
            for j in range(0, wide, LANES):
                store(packed, to + j, load(flat, row + d + j))
            to += high * wide
        to = (full - first) * high + k * rest
        for j in range(rest):
            packed[to + j] = flat[row + full + j]


@kernel("void({f}[:,::1], {f}[::1])")
def pack_transposed(b: Float, packed: Float) -> None:
    """Copy the transpose of a matrix into panels of `PANEL` columns.

    Parameters
    ----------
    b : (D, K)
    packed : (K*D,)    written: panel by panel, each (K, columns of the panel)
    """
    columns, inner = b.shape
    flat = b.reshape(-1)
    for d in range(0, columns, PANEL):
        wide = min(PANEL, columns - d)
        # A few rows at a time, because these are walked through side by side.
        for begin in range(0, wide, LANES):
            high = min(LANES, wide - begin)
            for i in range(inner):
                # Unsigned, so that no index is taken for one from the end, which would be asked of each.
                to, place = np.uint64(d * inner + i * wide + begin), np.uint64((d + begin) * inner + i)
                for j in range(high):
                    packed[to + np.uint64(j)] = flat[place + np.uint64(j * inner)]


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
    packed : (K*D,)               b, in panels of `PANEL` columns
    start : flat                  of (r, d) at ``start_at + r*start_row + d``; it may be ``out``
    start_at, start_row : int
    out : flat                    of (r, d) at ``out_at + r*D + d``, written
    out_at, columns : int         ``columns`` is D
    """
    for d in range(0, columns, PANEL):
        wide = min(PANEL, columns - d)
        walk = (at, inner, 1, 0, inner, 1, d * inner, wide, start_at + d, start_row, out_at + d, columns)
        product(a, packed, start, out, walk, rows, wide)


@kernel("void({f}[::1], int64, int64, {f}[::1], int64, int64, {f}[:,::1], int64)")
def add_block(a: Float, rows: int, high: int, b: Float, at: int, wide: int, out: Float, d: int) -> None:
    """Add a product of packed operands to a panel of columns of ``out``.

    Parameters
    ----------
    a : flat           left operand, transposed: (high, rows) in panels of `LANES` columns
    rows, high : int
    b : flat           right operand: (high, wide) from ``at`` on
    at, wide : int
    out : (rows, D)    columns ``d`` to ``d + wide`` are added to
    d : int
    """
    target, columns = out.reshape(-1), out.shape[1]
    for c in range(0, rows, TALL):
        begin = c - c % LANES
        step = min(LANES, rows - begin)
        spot = c * columns + d
        walk = (begin * high + c - begin, 1, 1, 0, high, step, at, wide, spot, columns, spot, columns)
        product(a, b, target, target, walk, min(TALL, rows - c), wide)


@kernel("void({f}[::1], int64, int64, int64, {f}[::1], int64)")
def add_column_sums(b: Float, at: int, high: int, wide: int, sums: Float, d: int) -> None:
    """Add the sums of the columns of a panel to ``sums``.

    Parameters
    ----------
    b : flat           (high, wide) from ``at`` on
    at, high, wide : int
    sums : (D,)        entries ``d`` to ``d + wide`` are added to
    d : int
    """
    whole = wide - wide % LANES
    nothing = spread(b.dtype.type(0))
    fours = high - high % 4
    for j in range(0, whole, LANES):
        # Four sums, because the processor can begin an addition long before the last one has ended.
        one, two, three, four = nothing, nothing, nothing, nothing
        for k in range(0, fours, 4):
            place = at + k * wide + j
            one = one + load(b, place)
            two = two + load(b, place + wide)
            three = three + load(b, place + 2 * wide)
            four = four + load(b, place + 3 * wide)
        for k in range(fours, high):
            one = one + load(b, at + k * wide + j)
        store(sums, d + j, load(sums, d + j) + ((one + two) + (three + four)))
    for j in range(whole, wide):
        rest = b.dtype.type(0)
        for k in range(high):
            rest += b[at + k * wide + j]
        sums[d + j] += rest
