"""Products with a matrix of at most sixteen columns: what the last layer of a classifier does.

Letters: N rows, I inputs, O <= 16 outputs. A library for large matrices spends most of its time here on preparing
blocks that it uses once. `spiral_core.kernels.tile.product` computes sixteen columns, one vector, as they lie in
memory: those that the matrix lacks are the first of the row below, and are dropped. A matrix is therefore given with
sixteen numbers behind its end that are read and never used. Whoever shares the work shares no sum, so there are no
partial sums.
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.tile import product
from spiral_core.kernels.vector import LANES, choose, greater, load, spread, store

ROWS = 14
"""Rows of one chunk of the output, which is one block of `product`."""

INPUTS = 224
"""Rows of one chunk of the weight's gradient: sixteen such blocks."""


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], {f}[::1], {f}[:,::1])")
def multiply_thin(
    start: int, stop: int, slot: int, x: Float, weight: Float, bias: Float, wide: Float, out: Float
) -> None:
    """Multiply chunks ``start`` to ``stop`` of `ROWS` rows by a weight, and add the bias.

    Parameters
    ----------
    x : (N, I)
    weight : (I*O + 16,)
    bias : (16,)            the first O count
    wide : (N*16,)          scratch
    out : (N, O)            written
    """
    rows, inputs = x.shape
    outputs = out.shape[1]
    flat = x.reshape(-1)
    for chunk in range(start, stop):
        first, last = chunk * ROWS, min((chunk + 1) * ROWS, rows)
        walk = (first * inputs, inputs, 1, 0, inputs, 1, 0, outputs, 0, 0, first * LANES, LANES)
        product(flat, weight, bias, wide, walk, last - first, LANES)
        for r in range(first, last):
            for d in range(outputs):
                out[r, d] = wide[r * LANES + d]


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], {f}[::1], {f}[:,::1], {f}[::1])")
def multiply_thin_backward_weight(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    grad: Float,
    valid: Float,
    wide: Float,
    grad_weight: Float,
    grad_bias: Float,
) -> None:
    """Add the weight's gradient to chunks ``start`` to ``stop`` of `INPUTS` of its rows, and with the first the bias's.

    Parameters
    ----------
    x : (N, I)
    grad : (N*O + 16,)      gradient of the output
    valid : (16,)           1 for the first O, then 0
    wide : (I*16,)          scratch
    grad_weight : (I, O)    added to
    grad_bias : (O,)        added to
    """
    rows, inputs = x.shape
    outputs = grad_weight.shape[1]
    flat, total = x.reshape(-1), grad_weight.reshape(-1)
    if start == 0:
        column = spread(x.dtype.type(0))
        for r in range(rows):
            column = column + load(grad, r * outputs)
        store(wide, 0, column)
        for d in range(outputs):
            grad_bias[d] += wide[d]
    own = greater(load(valid, 0), spread(x.dtype.type(0)))
    for chunk in range(start, stop):
        first, last = chunk * INPUTS, min((chunk + 1) * INPUTS, inputs)
        wide[first * LANES : last * LANES] = 0
        at = first * LANES
        walk = (first, 1, 1, 0, rows, inputs, 0, outputs, at, LANES, at, LANES)
        product(flat, grad, wide, wide, walk, last - first, LANES)
        # A vector of the total reaches into rows below, which must be of this chunk.
        whole = max(first, last - LANES // outputs)
        for i in range(first, whole):
            before = load(total, i * outputs)
            store(total, i * outputs, choose(own, before + load(wide, i * LANES), before))
        for i in range(whole, last):
            for d in range(outputs):
                total[i * outputs + d] += wide[i * LANES + d]


@kernel("void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[::1], {f}[:,::1])")
def multiply_thin_backward_input(
    start: int, stop: int, slot: int, grad: Float, turned: Float, zeros: Float, grad_x: Float
) -> None:
    """Write the input's gradient for chunks ``start`` to ``stop`` of `ROWS` rows.

    Parameters
    ----------
    grad : (N, O)        gradient of the output
    turned : (O, I)      the transpose of the weight
    zeros : (I,)
    grad_x : (N, I)      written
    """
    outputs, inputs = turned.shape
    given, weight, target = grad.reshape(-1), turned.reshape(-1), grad_x.reshape(-1)
    for chunk in range(start, stop):
        first, last = chunk * ROWS, min((chunk + 1) * ROWS, grad.shape[0])
        at = first * inputs
        walk = (first * outputs, outputs, 1, 0, outputs, 1, 0, inputs, 0, 0, at, inputs)
        product(given, weight, zeros, target, walk, last - first, inputs)
