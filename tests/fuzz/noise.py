"""Messages drawn at random: right ones, nearly right ones, and bytes that are nothing at all.

What can be said is taken from the types of the protocol themselves, so that a new message is drawn from the day it is
declared. Everything is drawn from a `random.Random`: of a seed in the long counts, of Hypothesis where it is to shrink.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any, get_args

import msgspec
import numpy as np
from msgspec import inspect

from spiral_core.wire import codec
from spiral_core.wire.messages import AnyMessage, Frame, Logged, Message
from spiral_core.wire.parts import Array

ALL: tuple[type[Message], ...] = tuple(sorted(set(get_args(AnyMessage)), key=lambda kind: kind.__name__))
NUMBERS = (0, 1, -1, 2, 7, 255, 65535, 65536, 2**31, 2**53 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e-308, 1e308, math.nan, math.inf, -math.inf, 1_700_000_000.25)
TEXTS = (
    "",
    "r1",
    "train/s0",
    "optim.lr",
    "..",
    "../x",
    "\0",
    "針" * 7,
    "a" * 90,
    "\u202e",
    "\U0001f300",
    "NaN",
    "%s{}",
)
PARTS = (b"", b"\0", b"\xff" * 9, b"\0" * 16, b"x" * 33)
JSON = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 400,
    b'"\\ud800"',
    b"[" * 3000,
    b'{"a":' * 3000,
    b"null",
    b"\xef\xbb\xbf",
    b"-1",
)
ODD = 0.05
"""Share of numbers as large as a message can hold: few, or no message with many numbers would ever be taken."""
SHAPES: tuple[tuple[int, ...], ...] = ((0,), (1,), (3,), (2, 2), (1, 2, 1), (0, 4), (1,) * 8, ())
ODD_SHAPES = ([0, 2**40], [0, 2**63], [1] * 70, [-1, -1], [2**32, 2**32, 0])


def message(random: Random, kinds: Sequence[type[Message]] = ALL) -> Message:
    """Draw a message that the types allow, of any kind or of some."""
    drawn = _struct(random, random.choice(list(kinds)), 0)
    assert isinstance(drawn, Message)
    return drawn


def as_of(random: Random, drawn: Message, odd: float, **head: int | str) -> Message:
    """Let a message of a run be what its engine might say next; in some of them something is as it was drawn."""
    if not isinstance(drawn, Logged):
        return drawn
    if isinstance(drawn, Frame):
        count = random.randrange(4)
        index = Array.of(np.arange(count), "<u2")
        drawn = msgspec.structs.replace(drawn, index=index, values=Array.of(np.full(count, random.random()), "<f8"))
    right = {**head, "step": random.randrange(1000), "time": 1_700_000_000.0 + random.randrange(1000)}
    if random.random() < odd:
        del right[random.choice(sorted(right))]
    return msgspec.structs.replace(drawn, **right)


def nearly(random: Random, drawn: Message) -> bytes:
    """Encode a message with something wrong in it: a field, its structure, or a few bytes."""
    data = codec.encode(drawn)
    if random.random() < 0.5:
        return damaged(random, data)
    tree = msgspec.msgpack.decode(data)
    for _ in range(random.randint(1, 3)):
        _spoil(random, tree)
    try:
        return msgspec.msgpack.encode(tree)
    except RecursionError:  # too deep even for us
        return damaged(random, data)


def damaged(random: Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    held = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(held) + 1)
        match random.randrange(5):
            case 0 if at < len(held):
                held[at] = random.randrange(256)
            case 1:
                del held[at:]
            case 2:
                held[at:at] = held[max(0, at - 9) : at]
            case 3:
                held[at:at] = random.choice(random.choice((PARTS, JSON)))
            case _:
                del held[at : at + random.randint(1, 4)]
    return bytes(held)


def garbage(random: Random) -> bytes:
    """Draw bytes that mean nothing."""
    return random.choice(
        (
            random.randbytes(random.randrange(64)),
            b"\x81\xa1a" * random.randrange(3000),
            b"\xdd\xff\xff\xff\xff" + random.randbytes(3),
            b"\xc6\xff\xff\xff\xff",
            codec.join([random.randbytes(random.randrange(9)) for _ in range(random.randrange(5))]),
        )
    )


def _spoil(random: Random, tree: Any) -> None:
    """Change one place of a tree of maps and lists."""
    while True:
        places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not places:
            return
        place = random.choice(places)
        inner = tree[place]
        if isinstance(inner, (dict, list)) and inner and random.random() < 0.7:
            tree = inner
            continue
        match random.randrange(4):
            case 0:
                del tree[place]
            case 1 if isinstance(tree, dict):
                tree[random.choice(TEXTS)] = _anything(random, 0)
            case _:
                tree[place] = _anything(random, 0)
        return


def _anything(random: Random, depth: int) -> Any:
    """Draw a value of any type that MessagePack has."""
    which = random.randrange(12 if depth < 3 else 9)
    match which:
        case 0:
            return None
        case 1:
            return random.random() < 0.5
        case 2 | 3:
            return random.choice(NUMBERS)
        case 4:
            return random.choice(FLOATS)
        case 5:
            return random.choice(TEXTS)
        case 6:
            return random.choice(PARTS)
        case 7:
            return msgspec.msgpack.Ext(random.randrange(-128, 128), random.choice(PARTS))
        case 8:
            return random.choice(ODD_SHAPES)
        case 9:
            return [_anything(random, depth + 1) for _ in range(random.randrange(4))]
        case 10:
            return {random.choice(TEXTS): _anything(random, depth + 1) for _ in range(random.randrange(4))}
        case _:
            nested: Any = 0
            for _ in range(random.choice((5, 90, 400))):
                nested = random.choice(([nested], {"a": nested}))
            return nested


def _plain(random: Random, depth: int) -> Any:
    """Draw a value that JSON has."""
    match random.randrange(6 if depth < 5 else 4):
        case 0:
            return random.choice((None, True, False))
        case 1:
            return random.choice(NUMBERS)
        case 2:
            return random.choice(FLOATS)
        case 3:
            return random.choice(TEXTS)
        case 4:
            return [_plain(random, depth + 1) for _ in range(random.randrange(4))]
        case _:
            return {random.choice(TEXTS): _plain(random, depth + 1) for _ in range(random.randrange(4))}


@cache
def _told(kind: type[msgspec.Struct]) -> inspect.StructType:
    told = inspect.type_info(kind)
    assert isinstance(told, inspect.StructType)
    return told


def _struct(random: Random, kind: type[msgspec.Struct], depth: int) -> msgspec.Struct:
    if kind is Array:
        return _array(random)
    return kind(**{field.name: _value(random, field.type, depth + 1) for field in _told(kind).fields})


def _array(random: Random) -> Array:
    shape = random.choice(SHAPES)
    dtype = random.choice(("<f4", "<f8", "<u2", "<i4", "|u1"))
    size = np.dtype(dtype).itemsize * math.prod(shape)
    return Array(dtype=dtype, shape=shape, data=random.randbytes(size))


def _value(random: Random, kind: inspect.Type, depth: int) -> Any:
    """Draw a value of a type of the protocol."""
    match kind:
        case inspect.NoneType():
            return None
        case inspect.BoolType():
            return random.random() < 0.5
        case inspect.IntType():
            return random.choice(NUMBERS) if random.random() < ODD else random.randrange(8)
        case inspect.FloatType():
            return random.choice(FLOATS) if random.random() < 0.5 else random.random()
        case inspect.StrType():
            return random.choice(TEXTS)
        case inspect.BytesType():
            return random.choice(PARTS)
        case inspect.LiteralType(values=values):
            return random.choice(values)
        case inspect.UnionType(types=types):
            return _value(random, random.choice(types), depth)
        case inspect.ListType(item_type=item):
            return [_value(random, item, depth + 1) for _ in range(random.randrange(4 if depth < 3 else 2))]
        case inspect.DictType(key_type=key, value_type=item):
            count = random.randrange(4)
            return {_value(random, key, depth): _value(random, item, depth + 1) for _ in range(count)}
        case inspect.AnyType():
            return _plain(random, 0)
        case inspect.StructType(cls=cls):
            return _struct(random, cls, depth)
    raise TypeError(f"nothing can be drawn for {kind}")
