"""Compiled code that spreads the chunks of one kernel over several threads, without the interpreter lock.

One block of words is shared by the threads of a team. The thread that calls writes down what is to be done, opens the
job, does its part, closes the job, and waits until nobody is inside. Each of the others waits in `serve`: it looks
at the block again and again, goes inside when a job is open, and does its part. So a job starts within a microsecond,
where waking a thread that sleeps takes fifty.

The chunks are cut into one range for each thread, and ranges into at most `PIECES` pieces. A thread does its own range
from the front; then it helps the others from the back of theirs. Ranges stay with their threads from kernel to kernel,
because what a thread wrote lies in the cache of its core: so a range that is nearly finished is left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils, sigutils

from spiral_core.kernels.accelerate import RANGED, KernelEntry, compiled
from spiral_core.kernels.atomic import exchange, fetch_add, give_way, pause, peek, poke, word

PIECES = 8
"""Pieces in the range of one thread."""

WORTH_HELPING = 3
"""Pieces that must be left in a range before another thread takes one: each brings its memory from another core."""

OPEN, INSIDE, JOB, STOP = 0, 8, 16, 24
"""Words on cache lines of their own: is there a job, how many threads are inside it, its number, is the team done."""

UNPACK, FUNCTION, ARGUMENTS, CHUNKS, THREADS, FAILED, SHARE_OUT = range(32, 39)
"""Words that describe the job, which only the thread that calls writes."""

RANGES = 48
"""The first range; each on a cache line of its own, as ``next << 32 | end``, counted in pieces."""

SPREAD = "int64(int64, int64, int64, int64, "
"""How the signature of an entrance begins, where that of its kernel begins with `RANGED`."""

SERVE_SIGNATURE = "void(int64, int64, int64)"
SHARE_OUT_SIGNATURE = "int64(int64, int64, int64)"

LINE = 8
"""Words from one range to the next."""

LOOKS_A_ROUND = 64
"""Looks between two offers of the core to others."""

# Numba and llvmlite have no types.
_cgutils = cast("Any", cgutils)
_emitted = cast("Callable[[Callable[..., Any]], Callable[..., int]]", cast("Any", numba.extending).intrinsic)
_normalize_signature = cast("Any", sigutils).normalize_signature
_INT = ir.IntType(64)
_UNPACK_TYPE = ir.FunctionType(_INT, [_INT] * 5)


def words(threads: int) -> int:
    """Return how many words a team of ``threads`` shares."""
    return RANGES + LINE * (threads + 1)


@_emitted
def _invoke(_context: Any, unpack: Any, function: Any, arguments: Any, start: Any, stop: Any, slot: Any) -> Any:  # noqa: ANN401
    """Call a kernel with packed arguments; 1 where it failed."""
    del unpack, function, arguments, start, stop, slot

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.call(builder.inttoptr(args[0], _UNPACK_TYPE.as_pointer()), args[1:])

    return types.int64(*[types.int64] * 6), emit


@compiled
def _take(block: int, owner: int, slot: int) -> int:
    """Return the next piece of a range for this thread, or -1."""
    place = RANGES + LINE * owner
    while True:
        state = peek(block, place)
        following, end = state >> 32, state & 0xFFFFFFFF
        if following >= end:
            return -1
        if owner == slot:
            if exchange(block, place, state, state + (1 << 32)):
                return following
        elif following > 0 and end - following < WORTH_HELPING:
            return -1
        elif exchange(block, place, state, state - 1):
            return end - 1


@compiled
def _piece(chunks: int, threads: int, owner: int) -> tuple[int, int, int]:
    """Return first chunk, end and chunks a piece of a range."""
    first, end = chunks * owner // threads, chunks * (owner + 1) // threads
    return first, end, (end - first + PIECES - 1) // PIECES


@compiled
def _work(block: int, slot: int) -> None:
    """Do pieces of the open job until none is left for this thread."""
    unpack, function, arguments = peek(block, UNPACK), peek(block, FUNCTION), peek(block, ARGUMENTS)
    chunks, threads = peek(block, CHUNKS), peek(block, THREADS)
    for turn in range(threads):
        owner = (slot + turn) % threads
        first, end, size = _piece(chunks, threads, owner)
        while True:
            piece = _take(block, owner, slot)
            if piece < 0:
                break
            start = first + piece * size
            if _invoke(unpack, function, arguments, start, min(start + size, end), slot):
                poke(block, FAILED, 1)


@compiled
def serve(block: int, slot: int, looks: int) -> None:
    """Take part in jobs as thread ``slot`` until the team is done or nothing came for so many looks."""
    done, idle = 0, 0
    while idle < looks and not peek(block, STOP):
        if peek(block, OPEN):
            # Announced first, looked at once more then: the caller closes the job first and waits for us then.
            fetch_add(block, INSIDE, 1)
            job = peek(block, JOB)
            if peek(block, OPEN) and job != done:
                if slot < peek(block, THREADS):
                    _work(block, slot)
                done, idle = job, 0
            fetch_add(block, INSIDE, -1)
        pause()
        idle += 1
        if idle % LOOKS_A_ROUND == 0:
            give_way()


@compiled
def share_out(block: int, chunks: int, threads: int) -> int:
    """Have the packed kernel run by this thread and those that serve; 1 where it failed anywhere."""
    poke(block, CHUNKS, chunks)
    poke(block, THREADS, threads)
    poke(block, FAILED, 0)
    for owner in range(threads):
        first, end, size = _piece(chunks, threads, owner)
        poke(block, RANGES + LINE * owner, (end - first + size - 1) // size)
    fetch_add(block, JOB, 1)
    poke(block, OPEN, 1)
    _work(block, 0)
    poke(block, OPEN, 0)
    looks = 0
    while peek(block, INSIDE):
        pause()
        looks += 1
        if looks % LOOKS_A_ROUND == 0:
            give_way()
    return peek(block, FAILED)


@_emitted
def _spread(_context: Any, block: Any, function: Any, chunks: Any, threads: Any, arguments: Any) -> Any:  # noqa: ANN401
    """Pack the arguments of a kernel on the stack and call `share_out`."""
    del block, function, chunks, threads

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        block = args[0]
        kinds = list(sig.args[4])
        values = [
            _borrowed(context, builder, kind, value)
            for kind, value in zip(kinds, _cgutils.unpack_tuple(builder, args[4], len(kinds)), strict=True)
        ]
        flat = context.call_conv._get_arg_packer(kinds).as_arguments(builder, values)
        kind = ir.LiteralStructType([value.type for value in flat])
        packed = _cgutils.alloca_once(builder, kind)
        for index, value in enumerate(flat):
            builder.store(value, _cgutils.gep_inbounds(builder, packed, 0, index))
        unpack = _unpacker(context, builder.module, kinds, kind)
        for place, value in ((UNPACK, unpack), (ARGUMENTS, packed)):
            builder.store(builder.ptrtoint(value, _INT), word(builder, block, _INT(place)))
        builder.store(args[1], word(builder, block, _INT(FUNCTION)))
        share = builder.load(word(builder, block, _INT(SHARE_OUT)))
        return _call(context, builder, share, types.int64, [types.int64] * 3, [block, *args[2:4]])[1]

    return types.int64(types.int64, types.int64, types.int64, types.int64, arguments), emit


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:  # noqa: ANN401
    """Return an array that owns nothing.

    A kernel that makes a view counts a reference to what it views, and threads that count in the same word wait for
    each other: a convolution then took three times as long. The caller holds the arrays meanwhile.
    """
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = ir.Constant(array.meminfo.type, None)
    array.parent = ir.Constant(array.parent.type, None)
    return array._getvalue()


def _unpacker(context: Any, module: Any, kinds: list[Any], packed: Any) -> Any:  # noqa: ANN401
    """Emit the function that loads the arguments and calls the kernel; only ever called by its address."""
    function = ir.Function(module, _UNPACK_TYPE, module.get_unique_name("unpack"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    where = builder.inttoptr(function.args[1], packed.as_pointer())
    flat = [builder.load(_cgutils.gep_inbounds(builder, where, 0, index)) for index in range(len(packed.elements))]
    kernel = [types.int64] * 3 + kinds
    failed, _ = _call(context, builder, function.args[0], types.void, kernel, [*function.args[2:], *flat])
    builder.ret(builder.zext(failed, _INT))
    return function


def _call(context: Any, builder: Any, address: Any, result: Any, kinds: list[Any], flat: list[Any]) -> Any:  # noqa: ANN401
    """Emit a call of a compiled function by its address; return whether it failed, and its result."""
    kind = context.call_conv.get_function_type(result, kinds)
    slots = [builder.alloca(pointer.pointee) for pointer in kind.args[:2]]
    for slot in slots:
        builder.store(ir.Constant(slot.type.pointee, None), slot)
    status = builder.call(builder.inttoptr(address, kind.as_pointer()), [*slots, *flat])
    return builder.icmp_signed("!=", status, status.type(0)), builder.load(slots[0])


def address_of(dispatcher: Any, signature: str) -> int:  # noqa: ANN401
    """Return where the machine code of a compiled function begins."""
    dispatcher.compile(signature)
    made = dispatcher.overloads[tuple(_normalize_signature(signature)[0])]
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


def entrance(entry: KernelEntry, signature: str) -> Callable[..., int]:
    """Compile the way from Python into a team for one kernel: ``(block, function, chunks, threads, *args)``.

    Written down as source, because the compiler cannot take a variable number of arguments without making a tuple of
    them first, in Python, at each call.
    """
    names = list(inspect.signature(entry.dispatcher.py_func).parameters)[3:]
    listed = "".join(f"{name}, " for name in names)
    name = f"spread_{entry.name}"
    source = (
        f"def {name}(_block, _function, _chunks, _threads, {listed}):\n"
        f"    return _spread(_block, _function, _chunks, _threads, ({listed}))\n"
    )
    place: dict[str, Any] = {"__name__": __name__, "_spread": _spread}
    # The file is this one, so that what was compiled can be kept on disk.
    exec(compile(source, __file__, "exec"), place)  # noqa: S102 - the source is ours, word for word
    return cast("Callable[..., int]", compiled(place[name], signature.replace(RANGED, SPREAD)))
