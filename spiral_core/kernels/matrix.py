"""Large matrix products, cut into panels of columns.

An operand is packed into panels first. In a wide matrix the rows of a panel lie so far apart that they fall on the same
few places of the first-level cache; packed they are neighbors.
"""

from __future__ import annotations

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
    wide : int                    columns of one panel
    packed : flat                 written: panel by panel, each (high, columns of the panel)
    """
    flat, columns = b.reshape(-1), b.shape[1]
    for k in range(high):
        row = (top + k) * columns
        for d in range(first, last, wide):
            here = min(wide, last - d)
            to = (d - first) * high + k * here
            whole = here - here % LANES
            for j in range(0, whole, LANES):
                store(packed, to + j, load(flat, row + d + j))
            for j in range(whole, here):
                packed[to + j] = flat[row + d + j]


@kernel("void({f}[:,::1], {f}[::1])")
def pack_transposed(b: Float, packed: Float) -> None:
    """Copy the transpose of a matrix into panels of `PANEL` columns.

    Parameters
    ----------
    b : (D, K)
    packed : (K*D,)    written: panel by panel, each (K, columns of the panel)
    """
    columns, inner = b.shape
    for d in range(0, columns, PANEL):
        wide = min(PANEL, columns - d)
        # In squares, because one of the two is walked through across its rows.
        for k in range(0, inner, LANES):
            for j in range(wide):
                for i in range(k, min(k + LANES, inner)):
                    packed[d * inner + i * wide + j] = b[d + j, i]


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
    for j in range(0, whole, LANES):
        total = spread(b.dtype.type(0))
        for k in range(high):
            total = total + load(b, at + k * wide + j)
        store(sums, d + j, load(sums, d + j) + total)
    for j in range(whole, wide):
        rest = b.dtype.type(0)
        for k in range(high):
            rest += b[at + k * wide + j]
        sums[d + j] += rest
