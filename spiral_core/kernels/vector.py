"""Sixteen numbers at a time, spelled out, for use inside kernels.

Where a loop keeps several sums in registers, or picks the winner of several places at once, the compiler's own
vectorizer gives up or writes everything to memory in between. Kernels then say what they mean: a vector is loaded,
worked on with ``+ - * /`` and the functions below, and stored; in between it lives in registers.

All of it is emitted in place. Compiled kernels find the functions that they call by name, and functions of one name
that different processes have compiled could meet in the cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing import templates

from spiral_core.kernels.real import TANH_BOTTOM, TANH_END, TANH_TOP

LANES: Final = 16
"""Numbers in a vector: 512 bits of float32. A processor with shorter vectors takes several registers for each."""

PAIR: Final = 2 * LANES
"""Numbers in a pair of vectors. Each step of a long chain is then followed by one that need not wait for it."""

# Numba and llvmlite have no types.
_extending, _templates = cast("Any", numba.extending), cast("Any", templates)
_PrimitiveModel, _signature = cast("Any", models.PrimitiveModel), cast("Any", templates.signature)
_emitted = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", _extending.intrinsic)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
# As everywhere in kernels, a product and a sum may become one operation; nothing else may change.
_FUSED = ("contract",)


class VectorType(types.Type):
    """Numbers of one float type: `LANES` of them, or a multiple."""

    def __init__(self, dtype: Any, lanes: int) -> None:  # noqa: ANN401
        self.dtype = dtype
        self.lanes = lanes
        cast("Any", super()).__init__(name=f"Vector({dtype} x {lanes})")


class MaskType(types.Type):
    """Truths, as many as the vectors have numbers that they tell of."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        cast("Any", super()).__init__(name=f"VectorMask({lanes})")


class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:  # noqa: ANN401
        element = manager.lookup(kind.dtype).get_value_type()
        _PrimitiveModel.__init__(self, manager, kind, ir.VectorType(element, kind.lanes))


class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:  # noqa: ANN401
        _PrimitiveModel.__init__(self, manager, kind, ir.VectorType(ir.IntType(1), kind.lanes))


_extending.register_model(VectorType)(_VectorModel)
_extending.register_model(MaskType)(_MaskModel)


def _arithmetic(symbol: Callable[..., Any], verb: str) -> None:
    """Give vectors one of the operators."""

    def generic(_self: Any, args: Any, _named: Any) -> Any:  # noqa: ANN401
        if len(args) == 2 and all(isinstance(one, VectorType) for one in args) and args[0] == args[1]:
            return _signature(args[0], *args)
        return None

    template = type(f"Vector_{verb}", (_templates.AbstractTemplate,), {"generic": generic})
    _templates.infer_global(symbol)(template)

    def lower(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return getattr(builder, verb)(*args, flags=_FUSED)

    _extending.lower_builtin(symbol, VectorType, VectorType)(lower)


for _symbol, _verb in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _verb)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:  # noqa: ANN401
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _alignment(vector: Any) -> int:  # noqa: ANN401
    return {"float": 4, "double": 8, "i8": 1}[str(vector.element)]


def read(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:  # noqa: ANN401
    """Emit the load of a vector from an array."""
    return builder.load(_pointer(context, builder, kind, array, at, vector), align=_alignment(vector))


def write(context: Any, builder: Any, kind: Any, array: Any, at: Any, value: Any) -> None:  # noqa: ANN401
    """Emit the store of a vector to an array."""
    builder.store(value, _pointer(context, builder, kind, array, at, value.type), align=_alignment(value.type))


def _emit_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
    array, at = args
    return read(context, builder, sig.args[0], array, at, context.get_value_type(sig.return_type))


@_emitted
def load(_context: Any, array: Any, at: Any) -> Any:  # noqa: ANN401
    """Return sixteen numbers of a flat array from ``at`` on; ``load(array, at)``."""
    del at
    return VectorType(array.dtype, LANES)(array, types.int64), _emit_load


@_emitted
def load_pair(_context: Any, array: Any, at: Any) -> Any:  # noqa: ANN401
    """Return `PAIR` numbers of a flat array from ``at`` on; ``load_pair(array, at)``."""
    del at
    return VectorType(array.dtype, PAIR)(array, types.int64), _emit_load


@_emitted
def store(_context: Any, array: Any, at: Any, vector: Any) -> Any:  # noqa: ANN401
    """Write sixteen numbers into a flat array from ``at`` on; ``store(array, at, vector)``."""
    del at

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        write(context, builder, sig.args[0], *args)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@_emitted
def load_bytes(_context: Any, array: Any, at: Any, like: Any) -> Any:  # noqa: ANN401
    """Return sixteen bytes of a flat array as numbers of the type of a vector; ``load_bytes(array, at, like)``."""
    del at

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        small = builder.load(_pointer(context, builder, sig.args[0], args[0], args[1], _BYTES), align=1)
        return builder.uitofp(small, args[2].type)

    return like(array, types.int64, like), emit


@_emitted
def store_bytes(_context: Any, array: Any, at: Any, vector: Any) -> Any:  # noqa: ANN401
    """Write sixteen numbers from 0 to 255 into a flat array of bytes; ``store_bytes(array, at, vector)``."""
    del at

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        array, at, vector = args
        place = _pointer(context, builder, sig.args[0], array, at, _BYTES)
        builder.store(builder.fptoui(vector, _BYTES), place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


def repeated(builder: Any, number: Any, kind: Any) -> Any:  # noqa: ANN401
    """Emit a vector of one number."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, nothing, everywhere)


def _emit_spread(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
    return repeated(builder, args[0], context.get_value_type(sig.return_type))


@_emitted
def spread(_context: Any, number: Any) -> Any:  # noqa: ANN401
    """Return a vector of one number."""
    return VectorType(number, LANES)(number), _emit_spread


@_emitted
def spread_pair(_context: Any, number: Any) -> Any:  # noqa: ANN401
    """Return `PAIR` times one number."""
    return VectorType(number, PAIR)(number), _emit_spread


@_emitted
def load_spread(_context: Any, array: Any, at: Any) -> Any:  # noqa: ANN401
    """Return a vector of one number of a flat array; ``load_spread(array, at)`` with ``at`` not negative.

    Unlike ``spread(array[at])`` it has no provision for a negative place, which takes five instructions.
    """
    del at

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        number = builder.load(builder.gep(data, [args[1]]))
        return repeated(builder, number, context.get_value_type(sig.return_type))

    return VectorType(array.dtype, LANES)(array, types.int64), emit


@_emitted
def greater(_context: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Tell where ``one`` is larger than ``other``; nowhere that either is NaN."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fcmp_ordered(">", *args)

    return MaskType(one.lanes)(one, other), emit


@_emitted
def outranks(_context: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Tell where ``one`` is larger than ``other``, or is NaN itself."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.or_(builder.fcmp_ordered(">", *args), builder.fcmp_unordered("uno", args[0], args[0]))

    return MaskType(one.lanes)(one, other), emit


@_emitted
def same(_context: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    """Tell where two vectors are equal."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fcmp_ordered("==", *args)

    return MaskType(one.lanes)(one, other), emit


@_emitted
def choose(_context: Any, mask: Any, yes: Any, no: Any) -> Any:  # noqa: ANN401
    """Take ``yes`` where a mask is true, else ``no``; ``choose(mask, yes, no)``."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.select(*args)

    return yes(mask, yes, no), emit


@_emitted
def add_wide(_context: Any, sums: Any, at: Any, vector: Any) -> Any:  # noqa: ANN401
    """Add a vector to sixteen float64 of a flat array; ``add_wide(sums, at, vector)``."""
    del at

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        array, at, vector = args
        wide = ir.VectorType(ir.DoubleType(), vector.type.count)
        place = _pointer(context, builder, sig.args[0], array, at, wide)
        term = vector if vector.type == wide else builder.fpext(vector, wide)
        builder.store(builder.fadd(builder.load(place, align=8), term), place, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.int64, vector), emit


@_emitted
def total(_context: Any, vector: Any) -> Any:  # noqa: ANN401
    """Return the sum of a vector's numbers in float64: its halves are added to each other until one number is left."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        (rest,) = args
        wide = ir.VectorType(ir.DoubleType(), rest.type.count)
        rest = rest if rest.type == wide else builder.fpext(rest, wide)
        while rest.type.count > 1:
            half = rest.type.count // 2
            low, high = (
                builder.shuffle_vector(rest, rest, ir.Constant(ir.VectorType(ir.IntType(32), half), list(places)))
                for places in (range(half), range(half, 2 * half))
            )
            rest = builder.fadd(low, high)
        return builder.extract_element(rest, ir.IntType(32)(0))

    return types.float64(vector), emit


def _call(builder: Any, name: str, *args: Any) -> Any:  # noqa: ANN401
    """Call one of the compiler's own functions, which exist for every length of vector."""
    kind = args[0].type
    size = 32 if kind.element == ir.FloatType() else 64
    function = cast("Any", cgutils).get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(args)), f"llvm.{name}.v{kind.count}f{size}"
    )
    return builder.call(function, args)


@_emitted
def absolute(_context: Any, vector: Any) -> Any:  # noqa: ANN401
    """Return the absolute values."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return _call(builder, "fabs", *args)

    return vector(vector), emit


@_emitted
def with_sign(_context: Any, sizes: Any, signs: Any) -> Any:  # noqa: ANN401
    """Return the sizes of the first vector with the signs of the second; ``with_sign(sizes, signs)``."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return _call(builder, "copysign", *args)

    return sizes(sizes, signs), emit


@_emitted
def tanh_of(_context: Any, vector: Any) -> Any:  # noqa: ANN401
    """Return tanh, as `spiral_core.kernels.real.tanh` does for one number."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return _tanh(builder, args[0], signed=True)

    return vector(vector), emit


@_emitted
def tanh_of_size(_context: Any, vector: Any) -> Any:  # noqa: ANN401
    """Return tanh of numbers that are not below zero, bit for bit as `tanh_of` does: two comparisons fewer."""

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return _tanh(builder, args[0], signed=False)

    return vector(vector), emit


def _tanh(builder: Any, x: Any, *, signed: bool) -> Any:  # noqa: ANN401
    if x.type.element != ir.FloatType():
        return _one_by_one(builder, x)

    def number(value: float) -> Any:  # noqa: ANN401
        return ir.Constant(x.type, [float(value)] * x.type.count)

    def held(value: Any, bound: Any) -> Any:  # noqa: ANN401
        low, high = number(-bound), number(bound)
        # Both comparisons are false for NaN, which stays.
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        return builder.select(builder.fcmp_ordered("<", value, low), low, value) if signed else value

    def polynomial(coefficients: tuple[Any, ...]) -> Any:  # noqa: ANN401
        total = number(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = builder.fadd(builder.fmul(u, total, flags=_FUSED), number(coefficient), flags=_FUSED)
        return total

    a = held(x, TANH_END)
    u = builder.fmul(a, a, flags=_FUSED)
    top = builder.fmul(a, polynomial(TANH_TOP), flags=_FUSED)
    return held(builder.fdiv(top, polynomial(TANH_BOTTOM), flags=_FUSED), 1.0)


def _one_by_one(builder: Any, x: Any) -> Any:  # noqa: ANN401
    kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])
    function = cast("Any", cgutils).get_or_insert_function(builder.module, kind, "tanh")
    result = ir.Constant(x.type, ir.Undefined)
    for lane in range(x.type.count):
        place = ir.IntType(32)(lane)
        result = builder.insert_element(result, builder.call(function, [builder.extract_element(x, place)]), place)
    return result
