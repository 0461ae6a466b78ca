"""Matrix products with strides of their own, in blocks that stay in the processor's vector registers.

The compiler makes good vector code of a loop over one axis, but it does not keep a block of sums in registers across
another loop, which is where a matrix product gets its speed. So one block is spelled out in vector instructions. It
walks through its operands with strides of its own, and a convolution therefore needs no copy of its patches: a patch
of a padded image is a few runs of contiguous numbers, and neighboring patches are a fixed step apart.
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

LANES = 16
"""Numbers in one vector: 512 bits of float32. A processor with shorter vectors takes several registers for each."""

Walk: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
"""``(x_at, x_row, O, x_outer, I, x_inner, w_at, w_row, start_at, start_row, out_at, out_row)``; see `product`."""

Tile: TypeAlias = Callable[[Float, Float, Float, Float, Walk], None]

_WALK = cast("Any", types).UniTuple(types.int64, 12)
_INT = ir.IntType(64)
# Numba has no types.
_cgutils = cast("Any", cgutils)


def _tile(rows: int, lanes: int, vectors: int) -> Tile:
    """Make the block of ``rows`` by ``lanes * vectors`` sums of a `product`."""

    def tile(x: Float, w: Float, start: Float, out: Float, walk: Walk) -> None:
        x_at, x_row, outer, x_outer, inner, x_inner, w_at, w_row, start_at, start_row, out_at, out_row = walk
        for r in range(rows):
            for d in range(lanes * vectors):
                total = start[start_at + r * start_row + d]
                for o in range(outer):
                    for i in range(inner):
                        k = o * inner + i
                        total += x[x_at + r * x_row + o * x_outer + i * x_inner] * w[w_at + k * w_row + d]
                out[out_at + r * out_row + d] = total

    def typed(_context: Any, x: Any, w: Any, start: Any, out: Any, walk: Any) -> Any:  # noqa: ANN401
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
            arrays = [
                context.make_array(kind)(context, builder, array).data
                for kind, array in zip(signature.args[:4], args[:4], strict=True)
            ]
            number = context.get_value_type(signature.args[0].dtype)
            _Emitter(builder, number, rows, lanes, vectors).emit(arrays, _cgutils.unpack_tuple(builder, args[4], 12))
            return context.get_dummy_value()

        return types.void(x, w, start, out, _WALK), emit

    vector_code = cast("Any", numba.extending).intrinsic(typed)

    def choose(x: Any, w: Any, start: Any, out: Any, walk: Any) -> Callable[..., None]:  # noqa: ANN401
        def compiled(x: Any, w: Any, start: Any, out: Any, walk: Any) -> None:  # noqa: ANN401
            vector_code(x, w, start, out, walk)

        return compiled

    # Outside compiled code the loops above run, so that one can be held against the other. Inlined, because the blocks
    # would otherwise be functions of one name each, and kernels that different processes have put into the cache would
    # then call each other's blocks.
    cast("Any", numba.extending).overload(tile, inline="always")(choose)
    return tile


class _Emitter:
    """Writes one block in LLVM's language: load the sums, two nested loops of multiply-adds, store the sums."""

    def __init__(self, builder: Any, number: Any, rows: int, lanes: int, vectors: int) -> None:  # noqa: ANN401
        self.builder, self.rows, self.lanes, self.vectors = builder, rows, lanes, vectors
        self.vector = ir.VectorType(number, lanes)
        self.size = 4 if isinstance(number, ir.FloatType) else 8
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.multiply_add = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{lanes}f{8 * self.size}")

    def emit(self, arrays: list[Any], walk: list[Any]) -> None:
        b = self.builder
        x, w, start, out = arrays
        x_at, x_row, outer, x_outer, inner, x_inner, w_at, w_row, start_at, start_row, out_at, out_row = walk
        sums = [b.load(place, align=self.size) for place in self._places(start, start_at, start_row, self.rows)]
        entry = b.block
        head, body, tail, done = (b.append_basic_block(name) for name in ("outer", "inner", "next", "done"))
        b.branch(head)

        b.position_at_end(head)
        turn = self._begin([_INT(0), x_at, w_at, *sums], entry)
        b.branch(body)

        b.position_at_end(body)
        step = self._begin([_INT(0), *turn[1:]], head)
        i, x_here, w_here = step[:3]
        weights = [b.load(place, align=self.size) for place in self._places(w, w_here, _INT(0), 1)]
        sums = []
        for r in range(self.rows):
            value = self._spread(b.load(b.gep(x, [b.add(x_here, b.mul(x_row, _INT(r)))])))
            before = step[3 + r * self.vectors :]
            sums += [
                b.call(self.multiply_add, [value, weight, total])
                for weight, total in zip(weights, before[: self.vectors], strict=True)
            ]
        following = [b.add(i, _INT(1)), b.add(x_here, x_inner), b.add(w_here, w_row), *sums]
        self._come_from(body, step, following)
        b.cbranch(b.icmp_signed("<", following[0], inner), body, tail)

        b.position_at_end(tail)
        following = [b.add(turn[0], _INT(1)), b.add(turn[1], x_outer), *following[2:]]
        self._come_from(tail, turn, following)
        b.cbranch(b.icmp_signed("<", following[0], outer), head, done)

        b.position_at_end(done)
        for total, place in zip(sums, self._places(out, out_at, out_row, self.rows), strict=True):
            b.store(total, place, align=self.size)

    def _places(self, array: Any, at: Any, row: Any, rows: int) -> list[Any]:  # noqa: ANN401
        """Return pointers to the vectors of some rows of an array, row by row."""
        b, pointer = self.builder, self.vector.as_pointer()
        starts = [b.add(at, b.mul(row, _INT(r))) for r in range(rows)]
        shifts = [_INT(v * self.lanes) for v in range(self.vectors)]
        return [b.bitcast(b.gep(array, [b.add(begin, shift)]), pointer) for begin in starts for shift in shifts]

    def _spread(self, scalar: Any) -> Any:  # noqa: ANN401
        """Return a vector of one number."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nothing, mask)

    def _begin(self, values: list[Any], block: Any) -> list[Any]:  # noqa: ANN401
        """Return variables of a loop with their values when it is entered from ``block``."""
        variables = [self.builder.phi(value.type) for value in values]
        self._come_from(block, variables, values)
        return variables

    def _come_from(self, block: Any, variables: list[Any], values: list[Any]) -> None:  # noqa: ANN401
        for variable, value in zip(variables, values, strict=True):
            variable.add_incoming(value, block)


# Fourteen sums are enough to hide the latency of a multiply-add on two ports: 14 rows of one vector or 7 of two; more
# would not fit into 32 registers. Three rows serve images of one channel, whose runs are three taps long.
_tile_14x16, _tile_8x32 = _tile(14, LANES, 1), _tile(8, LANES, 2)
_tile_7x32, _tile_7x16, _tile_7x1 = _tile(7, LANES, 2), _tile(7, LANES, 1), _tile(7, 1, 1)
_tile_3x32, _tile_3x16, _tile_3x1 = _tile(3, LANES, 2), _tile(3, LANES, 1), _tile(3, 1, 1)
_tile_1x32, _tile_1x16, _tile_1x1 = _tile(1, LANES, 2), _tile(1, LANES, 1), _tile(1, 1, 1)


@kernel("void({f}[::1], {f}[::1], {f}[::1], {f}[::1], UniTuple(int64, 12), int64, int64)")
def product(x: Float, w: Float, start: Float, out: Float, walk: Walk, rows: int, columns: int) -> None:
    r"""Multiply a matrix that is walked through with steps by a plain one, and add.

    .. math:: y_{rd} = s_{rd} + \sum_{o < O} \sum_{i < I} x_{roi} \, w_{(oI + i) d}

    Parameters
    ----------
    x, w, start, out : flat
        Operands, what is added to, and y. ``start`` may be ``out`` itself, cell by cell.
    walk : tuple
        ``(x_at, x_row, O, x_outer, I, x_inner, w_at, w_row, start_at, start_row, out_at, out_row)``: x of (r, o, i) is
        at ``x_at + r*x_row + o*x_outer + i*x_inner``, w of (k, d) at ``w_at + k*w_row + d``, s and y of (r, d) at
        ``start_at + r*start_row + d`` and ``out_at + r*out_row + d``. O and I are at least 1; rows of y do not overlap.
    rows, columns : int
        Size of y.

    Notes
    -----
    Each entry is one sum over o and i in order, rounded once a term. It depends neither on the block that it lies in
    nor on the number of threads.
    """
    x_at, x_row, outer, x_outer, inner, x_inner, w_at, w_row, start_at, start_row, out_at, out_row = walk
    r = 0
    while r < rows:
        left = rows - r
        if left >= 14 and columns == LANES:
            height = 14
        elif rows % 8 == 0 and columns == 2 * LANES:
            height = 8
        else:
            height = 7 if left >= 7 else 3 if left >= 3 else 1
        d = 0
        while d < columns:
            width = 32 if columns - d >= 32 else 16 if columns - d >= 16 else 1
            part = (
                x_at + r * x_row, x_row, outer, x_outer, inner, x_inner, w_at + d, w_row,
                start_at + r * start_row + d, start_row, out_at + r * out_row + d, out_row,
            )  # fmt: skip
            if height == 14:
                _tile_14x16(x, w, start, out, part)
            elif height == 8:
                _tile_8x32(x, w, start, out, part)
            elif height == 7:
                if width == 32:
                    _tile_7x32(x, w, start, out, part)
                elif width == 16:
                    _tile_7x16(x, w, start, out, part)
                else:
                    _tile_7x1(x, w, start, out, part)
            elif height == 3:
                if width == 32:
                    _tile_3x32(x, w, start, out, part)
                elif width == 16:
                    _tile_3x16(x, w, start, out, part)
                else:
                    _tile_3x1(x, w, start, out, part)
            elif width == 32:
                _tile_1x32(x, w, start, out, part)
            elif width == 16:
                _tile_1x16(x, w, start, out, part)
            else:
                _tile_1x1(x, w, start, out, part)
            d += width
        r += height
