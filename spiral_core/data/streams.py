"""One random generator per (seed, purpose, index), so that any draw can be repeated alone.

A run is a function of its seed: batch 5,000 must come out the same whether or not batches 0 to 4,999 were made
before it. No generator is therefore kept and advanced; each is derived afresh from the three numbers. This module
does not know what is drawn.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import U64
from spiral_core.errors import ArgumentError

_WORD = 64
_LOW_WORD = (1 << _WORD) - 1


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


@contextmanager
def drawn_by_kernels(generator: np.random.Generator) -> Iterator[U64]:
    """Lend the state of a generator to kernels, which advance it as the generator itself would.

    Parameters
    ----------
    generator : numpy.random.Generator
        Over PCG64; not to be drawn from in between.

    Yields
    ------
    (STATE_WORDS,) uint64
        As `spiral_core.kernels.draws` has it.

    Raises
    ------
    ArgumentError
        When the generator runs over something else.
    """
    bits = generator.bit_generator
    if not isinstance(bits, np.random.PCG64):
        raise ArgumentError(
            f"generator must run over PCG64, got {type(bits).__name__}; make it with numpy.random.default_rng"
        )
    told = bits.state
    state, increment = told["state"]["state"], told["state"]["inc"]
    words = np.empty(kernels.STATE_WORDS, np.uint64)
    words[0], words[1] = state >> _WORD, state & _LOW_WORD
    words[2], words[3] = increment >> _WORD, increment & _LOW_WORD
    words[4], words[5] = told["has_uint32"], told["uinteger"]
    yield words
    told["state"]["state"] = int(words[0]) << _WORD | int(words[1])
    told["has_uint32"], told["uinteger"] = int(words[4]), int(words[5])
    bits.state = told
