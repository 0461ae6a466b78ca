"""Digests of the weights, written down while a run trains, so that a replay can be compared with it.

``RUN/hashes.log`` holds sealed JSON lines (`chain`): step, revision, incarnation, and for each tensor of the model's
state dict (parameters, running statistics, gains, curvatures) 64 bits of BLAKE2b.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np

from spiral_core.engine.state import RunState
from spiral_core.errors import RunLogError
from spiral_core.link import chain
from spiral_core.link.applied import History
from spiral_core.wire import codec

_DIGEST_BYTES = 8


class Hashes(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of one state."""

    step: int
    rev: int
    """A command that came into force after the step gives the same step another state."""
    incarnation: int
    tensors: dict[str, str]


def hashes_of(state: RunState, incarnation: int) -> Hashes:
    """Digest every tensor of the model."""
    tensors = {
        name: hashlib.blake2b(np.asarray(array, order="C").tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
        for name, array in state.model.state_dict().items()
    }
    return Hashes(step=state.step, rev=state.rev, incarnation=incarnation, tensors=tensors)


class HashLog:
    """Appends digests to a file; a line that a killed process left half written is cut.

    Raises
    ------
    RunLogError
        The file is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lines = chain.ChainWriter(path, sync=False)

    def append(self, hashes: Hashes) -> None:
        """Write the digests of one state.

        Raises
        ------
        RunLogError
            The disk is full or gone.
        """
        self._lines.append(codec.plain(hashes))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read(path: Path, history: History) -> list[Hashes]:
    """Read the digests of the run as it now is, by step and revision, without those of futures that were given up.

    Raises
    ------
    RunLogError
        The file is missing or damaged.
    """
    try:
        every = [msgspec.convert(entry, Hashes) for entry in chain.read(path).entries]
    except msgspec.ValidationError as error:
        raise RunLogError(f"{path} was written by another Spiral: {error}") from error
    held = {
        (one.step, one.rev): one
        for one in every
        if history.holds(step=one.step, rev=one.rev, incarnation=one.incarnation)
    }
    return [held[place] for place in sorted(held)]
