r"""Cross-correlation under 3 x 3 taps by four ninths of the products: Winograd's minimal filtering, F(2 x 2, 3 x 3).

.. math:: Y = A^T \left[ (G g G^T) \odot (B^T d\, B) \right] A

A tile of 2 x 2 outputs is computed from a patch d of 4 x 4 pixels and the taps g by 16 products instead of 36. Summed
over channels, each of the 16 places is a matrix product over tiles. The gradient of the input is such a correlation,
too; that of the taps gains nothing here, since what it transforms does not fit into the first-level cache.

Letters: C input channels, D filters, both multiples of 16; T tiles; images with their border, H and W even, stride and
dilation 1. What is transformed lies as (16, T, C), a matrix for each place. A NaN reaches the outputs whose taps see it
and no others, as in a direct sum; an infinity becomes a NaN in most of them, for it is subtracted from itself.

Source: Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.plane import GEOMETRY
from spiral_core.kernels.vector import LANES, load, read, repeated, spread, write

PLACES = 16
"""Pixels of a patch."""

TURNS = 4
"""Turns of a block's loop that are written out."""

LEAST_TILES = 7
"""Tiles that are worked on together, at least: the rows of a block. More of them would not fit into the first-level
cache beside the weight."""

_INT = ir.IntType(64)
# Numba has no types.
_cgutils = cast("Any", cgutils)
_PLACE = cast("Any", types).UniTuple(types.int64, 3)

Matrix: TypeAlias = tuple[tuple[float, ...], ...]

B_TRANSPOSED: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
G: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A_TRANSPOSED: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))


def _combined(builder: Any, coefficients: tuple[float, ...], terms: list[Any]) -> Any:  # noqa: ANN401
    """Emit a sum of vectors, each times 1, -1, or another number."""
    total = None
    # Those that are added come first, so that none has to be negated by itself.
    for coefficient, term in sorted(zip(coefficients, terms, strict=True), key=lambda pair: -pair[0]):
        if coefficient == 0:
            continue
        if abs(coefficient) != 1:
            term = builder.fmul(term, term.type([abs(coefficient)] * term.type.count), flags=("contract",))
        if total is None:
            total = term if coefficient > 0 else builder.fneg(term)
        else:
            total = (builder.fadd if coefficient > 0 else builder.fsub)(total, term, flags=("contract",))
    return total


def _transform(matrix: Matrix) -> Callable[..., None]:
    r"""Make a function that writes :math:`M z M^T + s` for a square z of vectors: all of it stays in registers.

    It is called as ``(source, (at, row, column), target, (to, row, column), s)``: z of (i, j) is at ``at + i*row +
    j*column``, and what is written likewise.
    """
    size = len(matrix[0])

    def typed(_context: Any, source: Any, start: Any, target: Any, end: Any, plus: Any) -> Any:  # noqa: ANN401
        del start, end

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
            source, start, target, end, plus = args

            def place(where: Any, i: int, j: int) -> Any:  # noqa: ANN401
                at, row, column = _cgutils.unpack_tuple(builder, where, 3)
                return builder.add(at, builder.add(builder.mul(row, _INT(i)), builder.mul(column, _INT(j))))

            def term(i: int, j: int) -> Any:  # noqa: ANN401
                return read(context, builder, sig.args[0], source, place(start, i, j), plus.type)

            columns = [[term(i, j) for i in range(size)] for j in range(size)]
            for i, line in enumerate(matrix):
                half = [_combined(builder, line, column) for column in columns]
                for j, other in enumerate(matrix):
                    whole = builder.fadd(_combined(builder, other, half), plus, flags=("contract",))
                    write(context, builder, sig.args[2], target, place(end, i, j), whole)
            return context.get_dummy_value()

        return types.void(source, _PLACE, target, _PLACE, plus), emit

    return cast("Callable[..., None]", cast("Any", numba.extending).intrinsic(typed))


def _block(rows: int, vectors: int) -> Callable[..., None]:
    """Make a function that multiplies ``rows`` of a matrix by some columns of another; K is a multiple of 16.

    It is called as ``(x, w, out, (x_at, x_row, K, w_at, w_row, out_at, out_row))``, A product of so few
    terms spends much of its time on its loop, so some turns of it are written out.
    """

    def typed(_context: Any, x: Any, w: Any, out: Any, walk: Any) -> Any:  # noqa: ANN401
        del walk

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
            kinds, walk = sig.args, _cgutils.unpack_tuple(builder, args[3], 7)
            x_at, x_row, depth, w_at, w_row, out_at, out_row = walk
            vector = ir.VectorType(context.get_value_type(kinds[0].dtype), LANES)
            bits = 32 if vector.element == ir.FloatType() else 64
            fma = ir.FunctionType(vector, [vector] * 3)
            multiply_add = _cgutils.get_or_insert_function(builder.module, fma, f"llvm.fma.v{LANES}f{bits}")
            entry, body, done = builder.block, builder.append_basic_block("body"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            # A sum must wait for the one before it; two sums of each kind fill the time where there are few.
            kinds_of_sums = 2 // vectors
            many = rows * vectors
            begin = [_INT(0), x_at, w_at, *[ir.Constant(vector, [0.0] * LANES)] * (many * kinds_of_sums)]
            turn = [builder.phi(value.type) for value in begin]
            k, x_here, w_here, *sums = turn
            numbers = context.make_array(kinds[0])(context, builder, args[0]).data
            for step in range(TURNS):
                where = builder.add(w_here, builder.mul(w_row, _INT(step)))
                weights = [
                    read(context, builder, kinds[1], args[1], builder.add(where, _INT(v * LANES)), vector)
                    for v in range(vectors)
                ]
                for r in range(rows):
                    at = builder.add(builder.add(x_here, builder.mul(x_row, _INT(r))), _INT(step))
                    value = repeated(builder, builder.load(builder.gep(numbers, [at])), vector)
                    for v, weight in enumerate(weights):
                        own = step % kinds_of_sums * many + r * vectors + v
                        sums[own] = builder.call(multiply_add, [value, weight, sums[own]])
            following = [
                builder.add(k, _INT(TURNS)), builder.add(x_here, _INT(TURNS)),
                builder.add(w_here, builder.mul(w_row, _INT(TURNS))), *sums,
            ]  # fmt: skip
            for variable, first, later in zip(turn, begin, following, strict=True):
                variable.add_incoming(first, entry)
                variable.add_incoming(later, body)
            builder.cbranch(builder.icmp_signed("<", following[0], depth), body, done)
            builder.position_at_end(done)
            if kinds_of_sums == 2:
                pairs = zip(sums[:many], sums[many:], strict=True)
                sums = [builder.fadd(even, odd, flags=("contract",)) for even, odd in pairs]
            for r in range(rows):
                for v in range(vectors):
                    at = builder.add(builder.add(out_at, builder.mul(out_row, _INT(r))), _INT(v * LANES))
                    write(context, builder, kinds[2], args[2], at, sums[r * vectors + v])
            return context.get_dummy_value()

        return types.void(x, w, out, cast("Any", types).UniTuple(types.int64, 7)), emit

    return cast("Callable[..., None]", cast("Any", numba.extending).intrinsic(typed))


# Seven or eight rows fill the registers of one block; the others are for what is left of a row of tiles.
_block_8x32, _block_7x32, _block_4x32, _block_2x32, _block_1x32 = (_block(rows, 2) for rows in (8, 7, 4, 2, 1))
_block_8x16, _block_7x16, _block_4x16, _block_2x16, _block_1x16 = (_block(rows, 1) for rows in (8, 7, 4, 2, 1))
_of_patch = _transform(B_TRANSPOSED)
_of_taps, _to_outputs = _transform(G), _transform(A_TRANSPOSED)


@kernel("void({f}[::1], int64, {f}[::1])")
def transform_weight(weight: Float, pairs: int, out: Float) -> None:
    """Write G g G^T for all pairs of channel and filter.

    Parameters
    ----------
    weight : (9*pairs,)    a weight (3, 3, C, D), flat; pairs = C*D
    out : (16*pairs,)      written, as (16, C, D)
    """
    nothing = spread(weight.dtype.type(-0.0))
    for k in range(0, pairs, LANES):
        _of_taps(weight, (k, 3 * pairs, pairs), out, (k, 4 * pairs, pairs), nothing)


@kernel("void({f}[::1], int64, int64, int64, int64, int64, int64, {f}[::1])")
def transform_patches(
    image: Float, wide: int, channels: int, top: int, rows: int, across: int, plane: int, out: Float
) -> None:
    """Write B^T d B for all patches of some rows of tiles.

    Parameters
    ----------
    image : (padded size,)      with its border
    wide : int                  numbers in a row of it
    channels : int              C
    top, rows, across : int     first row of tiles, their number, and the tiles of a row
    plane : int                 numbers from a place to the next in ``out``
    out : (16*plane,)           written, as (16, rows*across, C)
    """
    nothing = spread(image.dtype.type(-0.0))
    for i in range(rows):
        for j in range(across):
            at = 2 * (top + i) * wide + 2 * j * channels
            to = (i * across + j) * channels
            for k in range(0, channels, LANES):
                _of_patch(image, (at + k, wide, channels), out, (to + k, 4 * plane, plane), nothing)


@kernel("void({f}[::1], {f}[::1], UniTuple(int64, 6))")
def multiply_places(scratch: Float, weight: Float, walk: tuple[int, int, int, int, int, int]) -> None:
    """Multiply the matrix of each place by its part of the weight.

    Parameters
    ----------
    scratch : flat           holds (16, T, C), and gets (16, T, D)
    weight : (16*C*D,)       as `transform_weight` writes it
    walk : tuple
        ``(T, C, D, from a place to the next, where the products begin, from one of them to the next)``.
    """
    tiles, c, d, plane_v, m_at, plane_m = walk
    for p in range(PLACES):
        r = 0
        while r < tiles:
            left = tiles - r
            rows = 7 if left % 7 == 0 else 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
            k = 0
            while k < d:
                width = 32 if d - k >= 32 else 16
                part = p * plane_v + r * c, c, c, p * c * d + k, d, m_at + p * plane_m + r * d + k, d
                if width == 32:
                    if rows == 8:
                        _block_8x32(scratch, weight, scratch, part)
                    elif rows == 7:
                        _block_7x32(scratch, weight, scratch, part)
                    elif rows == 4:
                        _block_4x32(scratch, weight, scratch, part)
                    elif rows == 2:
                        _block_2x32(scratch, weight, scratch, part)
                    else:
                        _block_1x32(scratch, weight, scratch, part)
                elif rows == 8:
                    _block_8x16(scratch, weight, scratch, part)
                elif rows == 7:
                    _block_7x16(scratch, weight, scratch, part)
                elif rows == 4:
                    _block_4x16(scratch, weight, scratch, part)
                elif rows == 2:
                    _block_2x16(scratch, weight, scratch, part)
                else:
                    _block_1x16(scratch, weight, scratch, part)
                k += width
            r += rows


@kernel("void({f}[::1], {f}[::1], {f}[::1], " + GEOMETRY + ", {f}[::1], {f}[::1])")
def correlate_tiles(
    image: Float, weight: Float, bias: Float, geometry: tuple[int, ...], scratch: Float, out: Float
) -> None:
    """Cross-correlate one padded image.

    Parameters
    ----------
    image : (padded size,)    with its border
    weight : (16*C*D,)        as `transform_weight` writes it
    bias : (D,)
    geometry                  that of `spiral_core.kernels.convolution`
    scratch : flat            of the size that `scratch_size` gives
    out : (H*W*D,)            written
    """
    _, w, c, _, _, _, _, _, pad_w, _, _, out_h, out_w, _ = geometry
    wide, across, down, d = (w + 2 * pad_w) * c, out_w // 2, out_h // 2, bias.size
    group = (LEAST_TILES + across - 1) // across
    plane_v, plane_m = group * across * c, group * across * d
    m_at = PLACES * plane_v
    for top in range(0, down, group):
        rows = min(group, down - top)
        transform_patches(image, wide, c, top, rows, across, plane_v, scratch)
        multiply_places(scratch, weight, (rows * across, c, d, plane_v, m_at, plane_m))
        for i in range(rows):
            for j in range(across):
                at, to = m_at + (i * across + j) * d, (2 * (top + i) * out_w + 2 * j) * d
                for k in range(0, d, LANES):
                    _to_outputs(scratch, (at + k, 4 * plane_m, plane_m), out, (to + k, out_w * d, d), load(bias, k))


def scratch_size(geometry: tuple[int, ...], filters: int) -> int:
    """Return how much scratch a thread needs for `correlate_tiles`, and for the gradient of its input.

    0 where a correlation of this geometry cannot be done in tiles.
    """
    h, w, channels = geometry[:3]
    if geometry[3:5] != (3, 3) or geometry[5:7] != (1, 1) or geometry[9:11] != (1, 1):
        return 0
    if h % 2 or w % 2 or channels % LANES or filters % LANES:
        return 0
    across = max(w, geometry[12]) // 2
    return PLACES * (across + LEAST_TILES) * (channels + filters)
