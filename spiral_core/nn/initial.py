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
