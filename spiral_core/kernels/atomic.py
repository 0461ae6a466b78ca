"""Words of memory that two threads of compiled code look at: read, written, added to, exchanged.

Every access is sequentially consistent: all threads see all of them in one order. A word is named by the address of a
block of 64-bit words and its place in it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

WORD = 8
"""Bytes in a word."""

# Numba and llvmlite have no types.
_cgutils = cast("Any", cgutils)
_emitted = cast("Callable[[Callable[..., Any]], Callable[..., int]]", cast("Any", numba.extending).intrinsic)
_INT, _ORDER = ir.IntType(64), "seq_cst"


def word(builder: Any, block: Any, place: Any) -> Any:  # noqa: ANN401
    """Emit the pointer to a word."""
    return builder.inttoptr(builder.add(block, builder.mul(place, _INT(WORD))), _INT.as_pointer())


@_emitted
def peek(_context: Any, block: Any, place: Any) -> Any:  # noqa: ANN401
    """Return a word; ``peek(block, place)``."""
    del block, place

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.load_atomic(word(builder, *args), _ORDER, WORD)

    return types.int64(types.int64, types.int64), emit


@_emitted
def poke(_context: Any, block: Any, place: Any, value: Any) -> Any:  # noqa: ANN401
    """Write a word; ``poke(block, place, value)``."""
    del block, place, value

    def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        builder.store_atomic(args[2], word(builder, *args[:2]), _ORDER, WORD)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@_emitted
def fetch_add(_context: Any, block: Any, place: Any, value: Any) -> Any:  # noqa: ANN401
    """Add to a word and return what it was; ``fetch_add(block, place, value)``."""
    del block, place, value

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.atomic_rmw("add", word(builder, *args[:2]), args[2], _ORDER)

    return types.int64(types.int64, types.int64, types.int64), emit


@_emitted
def exchange(_context: Any, block: Any, place: Any, old: Any, new: Any) -> Any:  # noqa: ANN401
    """Write a word if it is still ``old``, and return whether it was; ``exchange(block, place, old, new)``."""
    del block, place, old, new

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        answer = builder.cmpxchg(word(builder, *args[:2]), *args[2:], _ORDER, _ORDER)
        return builder.extract_value(answer, 1)

    return types.boolean(*[types.int64] * 4), emit


@_emitted
def pause(_context: Any) -> Any:  # noqa: ANN401
    """Tell the processor that a loop is waiting; tens of nanoseconds at most."""

    def emit(context: Any, builder: Any, _sig: Any, _args: Any) -> Any:  # noqa: ANN401
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(_cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif machine in ("aarch64", "arm64"):
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            hint = _cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(hint, [ir.IntType(32)(1)])
        return context.get_dummy_value()

    return types.void(), emit


@_emitted
def give_way(_context: Any) -> Any:  # noqa: ANN401
    """Let the operating system run another thread on this core, where one waits for it."""

    def emit(context: Any, builder: Any, _sig: Any, _args: Any) -> Any:  # noqa: ANN401
        # Windows has another name for it in a library of its own; there a waiting thread just waits.
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(_cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit
