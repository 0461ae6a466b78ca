"""First values of weights."""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np

from spiral_core.arrays import F32, Float
from spiral_core.errors import ArgumentError

HE_OR_RAMP: Final = ("he_normal", "ramp")
"""How the first weights of a `Linear` and a `Conv2d` are found."""


def check_init(name: str, init: str, known: tuple[str, ...]) -> str:
    """Return the name of a way to find first weights.

    Raises
    ------
    ArgumentError
        Not one of ``known``.
    """
    if init not in known:
        raise ArgumentError(f"{name}: init must be one of {', '.join(known)}, got {init!r}")
    return init


def generator_for(name: str, generator: np.random.Generator | None) -> np.random.Generator:
    """Return ``generator``, or one seeded by the layer's name, so that a layer without one is repeatable too."""
    return generator if generator is not None else np.random.default_rng(zlib.crc32(name.encode()))


def he_normal(
    shape: tuple[int, ...], fan_in: int, generator: np.random.Generator, dtype: np.dtype[np.floating]
) -> Float:
    """Draw normal values of variance 2 / fan_in, which keeps the size of signals through rectifiers.

    The draws are float64 in both dtypes, so a float32 model is the rounding of the float64 one.
    Source: He, Zhang, Ren, Sun 2015, eq. 10.
    """
    return (generator.standard_normal(shape) * math.sqrt(2.0 / fan_in)).astype(dtype)


def glorot_normal(rows: int, columns: int, generator: np.random.Generator, dtype: np.dtype[np.floating]) -> Float:
    """Draw a (rows, columns) matrix of normal values with variance 2 / (rows + columns), for units that saturate.

    Source: Glorot and Bengio 2010, eq. 12.
    """
    return (generator.standard_normal((rows, columns)) * math.sqrt(2.0 / (rows + columns))).astype(dtype)


def orthogonal(size: int, generator: np.random.Generator, dtype: np.dtype[np.floating]) -> Float:
    """Draw a (size, size) rotation or reflection, uniformly: applied again and again it keeps the length of a vector.

    Source: Saxe, McClelland, Ganguli 2014; the signs after Mezzadri 2007, section 5.
    """
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q * signs).astype(dtype)


def ramp(shape: tuple[int, int], steps: tuple[int, int], period: int, dtype: np.dtype[np.floating]) -> Float:
    """Return ``0.01 (((a r + b c) mod period) + 1)`` at row r and column c, with (a, b) = ``steps``."""
    row, column = np.indices(shape)
    return (0.01 * ((steps[0] * row + steps[1] * column) % period + 1)).astype(dtype)


def climbing(size: int) -> F32:
    """Return 0.01, 0.02, 0.03 ... as a running sum in float32, whose rounding is part of it."""
    return np.cumsum(np.full(size, 0.01, np.float32), dtype=np.float32)


def folding(size: int) -> F32:
    r"""Return :math:`v_0 = 0.02,\; v_{i+1} = \max(1.57\,v_i \bmod 0.15,\; 0.005)` in float32.

    The recurrence is chaotic, so its values belong to float32: in float64 it would soon be somewhere else.
    """
    factor, fold, least = np.float32(1.57), np.float32(0.15), np.float32(0.005)
    values = np.empty(size, np.float32)
    value = np.float32(0.02)
    for index in range(size):
        values[index] = value
        value = max(value * factor % fold, least)
    return values
