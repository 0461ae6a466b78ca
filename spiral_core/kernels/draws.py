r"""Random numbers inside kernels: the stream of `numpy.random.Generator` over PCG64, to the last bit.

A generator is asked from Python for whole arrays; a task that draws in many small ways pays for each of them with
arrays that it throws away. Here the state of the generator is an array of six words that kernels advance.

Sources: O'Neill 2014, *PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms* (XSL-RR 128/64);
Lemire 2019, *Fast Random Integer Generation in an Interval*; Marsaglia and Tsang 2000, *The Ziggurat Method*, and
Doornik 2005 for its form; what is drawn in which order is NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, cast

import numba.extending
import numpy as np
from llvmlite import ir
from numba import types

from spiral_core.arrays import F32, U64
from spiral_core.kernels.accelerate import kernel

STATE_WORDS: Final = 6
"""State and increment, each as its high and its low word; whether half a draw is left over, and that half."""

_MULTIPLIER_HIGH: Final = np.uint64(2549297995355413924)
_MULTIPLIER_LOW: Final = np.uint64(4865540595714422341)
_HALF_WORD: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)

_LAYERS: Final = 256
_TAIL: Final = 3.6541528853610088
"""Where the tail of the normal distribution begins that has the area of each layer."""
_FRACTION: Final = 2.0**23


def _ziggurat() -> tuple[F32, F32, F32]:
    """Return widths, heights and safe shares of the layers: inside its share a point lies below the curve."""
    height = math.exp(-0.5 * _TAIL * _TAIL)
    area = _TAIL * height + math.sqrt(math.pi / 2) * math.erfc(_TAIL / math.sqrt(2))
    x = np.empty(_LAYERS)
    x[0], x[-1] = area / height, _TAIL
    for layer in range(_LAYERS - 2, 0, -1):
        x[layer] = math.sqrt(-2 * math.log(area / x[layer + 1] + math.exp(-0.5 * x[layer + 1] ** 2)))
    heights = np.exp(-0.5 * x**2)
    heights[0] = 1.0
    shares = np.empty(_LAYERS)
    shares[0], shares[1] = _TAIL / x[0], 0.0
    shares[2:] = x[1:-1] / x[2:]
    return (
        (x / _FRACTION).astype(np.float32),
        heights.astype(np.float32),
        np.rint(shares * _FRACTION).astype(np.float32),
    )


_WIDTHS, _HEIGHTS, _SHARES = _ziggurat()

# Numba and llvmlite have no types.
_emitted = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", cast("Any", numba.extending).intrinsic)


@_emitted
def _high_word(_context: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
    """Return the high word of a product; ``_high_word(a, b)``."""
    del a, b

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@_emitted
def rounded_product(_context: Any, a: Any, b: Any) -> Any:  # noqa: ANN401
    """Return a float32 product that is neither fused with a sum nor moved; ``rounded_product(a, b)``."""
    del a, b

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:  # noqa: ANN401
        # A product with no flag at all is given those of all kernels; this one says something of divisions only.
        return builder.fmul(*args, flags=("arcp",))

    return types.float32(types.float32, types.float32), emit


@kernel("uint64(uint64[::1])")
def next_word(state: U64) -> np.uint64:
    """Advance the state and return 64 random bits.

    Parameters
    ----------
    state : (STATE_WORDS,) uint64    updated
    """
    high, low = state[0], state[1]
    product = _high_word(low, _MULTIPLIER_LOW) + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH
    low = low * _MULTIPLIER_LOW
    state[1] = low + state[3]
    state[0] = product + state[2] + np.uint64(state[1] < low)
    mixed, turn = state[0] ^ state[1], state[0] >> np.uint64(58)
    return np.uint64((mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63))))


@kernel("uint32(uint64[::1])")
def next_half(state: U64) -> np.uint32:
    """Return 32 random bits: the low half of a word, and the next time its high half."""
    if state[4]:
        state[4] = np.uint64(0)
        return np.uint32(state[5])
    word = next_word(state)
    state[4], state[5] = np.uint64(1), word >> _HALF_WORD
    return np.uint32(word & _LOW_HALF)


@kernel("float64(uint64[::1])")
def next_double(state: U64) -> np.float64:
    """Return a number uniform in [0, 1)."""
    return np.float64(next_word(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel("int64(uint64[::1], int64, int64)")
def next_integer(state: U64, low: int, high: int) -> np.int64:
    """Return an integer uniform in the closed range from ``low`` to ``high``, fewer than 2^32 apart and not equal."""
    span = np.uint64(high - low + 1)
    product = np.uint64(next_half(state)) * span
    if (product & _LOW_HALF) < span:
        threshold = (_LOW_HALF - (span - np.uint64(1))) % span
        while (product & _LOW_HALF) < threshold:
            product = np.uint64(next_half(state)) * span
    return low + np.int64(product >> _HALF_WORD)


@kernel("float32(uint64[::1])")
def next_share(state: U64) -> np.float32:
    """Return a float32 uniform in [0, 1)."""
    return np.float32(next_half(state) >> np.uint32(8)) * np.float32(1.0 / 16777216.0)


@kernel("float32(uint64[::1], uint32)")
def _from_tail(state: U64, bits: np.uint32) -> np.float32:
    """Draw from beyond the last layer; a further bit of the draw that led there is the sign."""
    inverse = np.float32(1.0 / _TAIL)
    while True:
        x = -rounded_product(inverse, np.float32(math.log1p(-next_share(state))))
        y = -np.float32(math.log1p(-next_share(state)))
        if y + y > rounded_product(x, x):
            far = np.float32(np.float32(_TAIL) + x)
            return -far if (bits >> np.uint32(17)) & np.uint32(1) else far


@kernel("void(uint64[::1], float32[::1])")
def draw_normals(state: U64, out: F32) -> None:
    """Draw standard normal numbers, as ``Generator.standard_normal(out=out, dtype=np.float32)`` does.

    Parameters
    ----------
    state : (STATE_WORDS,) uint64    updated
    out : (E,) float32               written
    """
    for e in range(out.size):
        while True:
            bits = next_half(state)
            layer, share = bits & np.uint32(0xFF), np.float32(bits >> np.uint32(9))
            x = rounded_product(share, _WIDTHS[layer])
            x = -x if bits & np.uint32(0x100) else x
            if share < _SHARES[layer]:
                out[e] = x
                break
            if layer == 0:
                out[e] = _from_tail(state, bits)
                break
            top, bottom = _HEIGHTS[np.int64(layer) - 1], _HEIGHTS[layer]
            height = rounded_product(top - bottom, next_share(state)) + bottom
            if height < math.exp(-0.5 * np.float64(x) * np.float64(x)):
                out[e] = x
                break
