"""Rounding of float32 to the values of a narrower float type, on the bits.

Integer arithmetic throughout: the usual forms with two additions in floating point are undone by a compiler that may
reorder sums.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from spiral_core.arrays import U32
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.elementwise import CHUNK

FLOAT16: Final = 1
"""IEEE 754 binary16: 10 bits of fraction, exponents -14 to 15, subnormals down to 2^-24."""
BFLOAT16: Final = 2
"""The upper half of a float32: 7 bits of fraction and the exponents of float32."""

_SIGN = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_QUIET = np.uint32(0x00400000)
_FRACTION = np.int32(23)
"""Bits of fraction in a float32."""
_DROPPED16 = np.int32(13)
"""Bits of fraction that a normal float16 has fewer than a float32."""
_LEAST_NORMAL16 = np.int32(113)
"""Biased float32 exponent of 2^-14, the smallest normal float16."""
_TOO_LARGE16 = np.uint32(0x47800000)
"""2^16: whatever rounds to it is infinite in float16."""
_LEAST16 = np.uint32(0x33800000)
"""2^-24, the smallest float16 above zero."""
_HALF_LEAST16 = np.uint32(0x33000000)
"""2^-25, which lies between zero and the smallest float16 and goes to the even one: zero."""
_BELOW_TIE = np.uint32(0x7FFF)
_KEPT = np.uint32(0xFFFF0000)
_ONE = np.uint32(1)


@kernel("void(int64, int64, int64, int64, uint32[::1], uint32[::1])")
def narrow(start: int, stop: int, slot: int, kind: int, bits: U32, out: U32) -> None:
    """Round float32 numbers, given as bits, to the nearest float16 or bfloat16; a tie goes to the even one.

    Parameters
    ----------
    kind : int    `FLOAT16` or `BFLOAT16`
    bits : (E,)   float32 numbers, viewed as integers
    out : (E,)    written: float32 numbers that the narrow type holds exactly; may be ``bits`` itself

    Notes
    -----
    What lies beyond the largest number becomes infinite, subnormals are kept, signs are kept also of zeros, and a NaN
    stays one: quiet, with the part of its payload that fits (what remains in a float16 is 10 bits of fraction).
    Source: IEEE 754-2008, sections 3.4 and 4.3.1.
    """
    for chunk in range(start, stop):
        source = bits[chunk * CHUNK : (chunk + 1) * CHUNK]
        target = out[chunk * CHUNK : (chunk + 1) * CHUNK]
        if kind == FLOAT16:
            for j in range(source.size):
                u = source[j]
                a = np.uint32(u & _MAGNITUDE)
                exponent = np.int32(a >> np.uint32(_FRACTION))
                # A subnormal float16 loses one bit more for each power of two below the smallest normal one.
                deficit = max(np.int32(_LEAST_NORMAL16 - exponent), np.int32(0))
                drop = np.uint32(min(np.int32(_DROPPED16 + deficit), _FRACTION))
                unit = np.uint32(_ONE << drop)
                odd = np.uint32(np.uint32(a >> drop) & _ONE)
                r = np.uint32(np.uint32(a + (unit >> _ONE) - _ONE + odd) & ~np.uint32(unit - _ONE))
                r = r if a >= _LEAST16 else (_LEAST16 if a > _HALF_LEAST16 else np.uint32(0))
                r = _INFINITY if r >= _TOO_LARGE16 else r
                r = np.uint32((a | _QUIET) & ~np.uint32(0x1FFF)) if a > _INFINITY else r
                target[j] = r | (u & _SIGN)
        else:
            for j in range(source.size):
                u = source[j]
                a = np.uint32(u & _MAGNITUDE)
                odd = np.uint32(np.uint32(a >> np.uint32(16)) & _ONE)
                r = np.uint32(np.uint32(a + _BELOW_TIE + odd) & _KEPT)
                r = np.uint32((a | _QUIET) & _KEPT) if a > _INFINITY else r
                target[j] = r | (u & _SIGN)
