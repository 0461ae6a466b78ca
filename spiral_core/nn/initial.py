"""First values of weights."""

from __future__ import annotations

import math
import zlib

import numpy as np

from spiral_core.arrays import Float


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
