"""One random generator per (seed, purpose, index), so that any draw can be repeated alone.

A run is a function of its seed: batch 5,000 must come out the same whether or not batches 0 to 4,999 were made
before it. No generator is therefore kept and advanced; each is derived afresh from the three numbers. This module
does not know what is drawn.
"""

from __future__ import annotations

import enum

import numpy as np

from spiral_core.errors import ArgumentError


class Purpose(enum.IntEnum):
    """What a generator is for. The numbers enter the seed sequence: never renumber, only append."""

    BATCHES = 1
    AUGMENTATION = 2
    HELD_OUT = 3
    INIT = 4


def check_count(name: str, value: int, least: int) -> int:
    """Return ``value`` as a plain int, or refuse it.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int
        A Python or NumPy integer; a bool is refused, since True as a batch size is a mistake.
    least : int
        Smallest value allowed.

    Raises
    ------
    ArgumentError
        When ``value`` is no integer or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentError(f"{name} must be an integer, got {value!r}; pass a whole number of at least {least}")
    if value < least:
        raise ArgumentError(f"{name} must be at least {least}, got {value}")
    return int(value)


def derived_generator(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Make the generator that belongs to one draw.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0.
    purpose : Purpose
        Keeps streams apart: two purposes never share a state, whatever the seeds.
    index : int
        Position in the stream (batch or epoch), >= 0.

    Returns
    -------
    numpy.random.Generator
        PCG64, seeded by ``SeedSequence(seed, spawn_key=(purpose, index))``. NumPy pads the seed to the size of its
        pool before it appends the key, so (seed, key) pairs do not run into each other.

    Raises
    ------
    ArgumentError
        When ``seed`` or ``index`` is no integer or negative.
    """
    key = (int(purpose), check_count("index", index, 0))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(check_count("seed", seed, 0), spawn_key=key)))
