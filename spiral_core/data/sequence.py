"""The motif task: which of six short waveforms hides in a noisy signal, among shuffled copies of its own samples.

The motif's place is known, so an attribution over time can be scored. A sequence is an image of height 1: a signal of T
steps and F features is (1, T, F), and a batch (N, 1, T, F), so that everything that takes images takes sequences too.
The stream is endless: a batch is a function of (seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import F32, F64, I64, U8
from spiral_core.data.batch import Batch
from spiral_core.data.endless import EndlessDataset
from spiral_core.data.steering import DataKnob

STEPS: Final = 64
"""T, time steps of a signal."""

MOTIF_STEPS: Final = 12
"""Length of a motif and of a distractor: 19 % of the signal."""

DISTRACTORS: Final = 2
"""Shuffled copies of the motif's samples per signal: level and spread tell nothing about where the motif is."""

PIECES: Final = DISTRACTORS + 1

AMPLITUDE_RANGE: Final = (0.8, 1.2)
"""Root mean square of a motif, uniform."""

NOISE: Final = 0.15
"""Standard deviation of the noise that each step draws for itself."""

CLASS_NAMES: Final = ("wave", "ripple", "rise", "fall", "step", "peak")


def _motifs() -> F32:
    """Return the (6, 12) waveforms, each of mean 0 and mean square 1."""
    u = (np.arange(MOTIF_STEPS) + 0.5) / MOTIF_STEPS
    shapes = np.array(
        [
            np.sin(2 * np.pi * u),
            np.sin(6 * np.pi * u),
            u,
            -u,
            np.where(u < 0.5, 1.0, -1.0),
            np.maximum(0.0, 1.0 - np.abs(u - 0.5) * 4),
        ]
    )
    shapes -= shapes.mean(axis=1, keepdims=True)
    motifs: F32 = (shapes / np.sqrt((shapes**2).mean(axis=1, keepdims=True))).astype(np.float32)
    return motifs


MOTIFS: Final = _motifs()
MOTIFS.setflags(write=False)
_SHAPES: Final = MOTIFS.copy()
"""Kernels are compiled for arrays that can be written to."""


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Memory that one batch after the other is drawn in; what is in it means nothing between two of them.

    Parameters
    ----------
    keys : (N, 31) float64        a random number for each place that a piece of one step might have
    places : (N, 3) int64         first steps of the motif and of its distractors
    pieces : (N, 12) float32      the motifs
    shuffled : (N, 12) float32    their samples in random order
    """

    keys: F64
    places: I64
    pieces: F32
    shuffled: F32

    @classmethod
    def of(cls, count: int) -> Room:
        """Make room for ``count`` signals."""
        return cls(
            keys=np.empty((count, STEPS - PIECES * (MOTIF_STEPS - 1))),
            places=np.empty((count, PIECES), np.int64),
            pieces=np.empty((count, MOTIF_STEPS), np.float32),
            shuffled=np.empty((count, MOTIF_STEPS), np.float32),
        )


def _draw_places(generator: np.random.Generator, room: Room) -> None:
    """Draw first steps of pieces that do not overlap, uniform over all such arrangements."""
    generator.random(out=room.keys)
    kernels.place_pieces(room.keys, MOTIF_STEPS, room.places)


def motif_batch(
    generator: np.random.Generator,
    count: int,
    into: Batch | None = None,
    noise: float = NOISE,
    room: Room | None = None,
) -> Batch:
    """Draw ``count`` signals with labels and masks from one generator, which is advanced.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced.
    count : int
        Signals, >= 1.
    into : Batch, optional
        A motif batch of as many signals, whose arrays are written over.
    noise : float
        Standard deviation of what each step draws for itself, >= 0.
    room : Room, optional
        For as many signals; spares allocations.

    Returns
    -------
    Batch
        Images (count, 1, 64, 1); masks (count, 1, 64), 1 where the motif is.
    """
    room = Room.of(count) if room is None else room
    labels = generator.integers(0, len(CLASS_NAMES), count, dtype=np.int64)
    amplitudes = generator.uniform(*AMPLITUDE_RANGE, count).astype(np.float32)
    _draw_places(generator, room)
    batch = into if into is not None else _blank(count)
    batch.labels[...] = labels
    signals, masks = batch.images[:, 0, :, 0], cast("U8", batch.masks)
    generator.standard_normal(out=batch.images, dtype=np.float32)
    signals *= np.float32(noise)
    kernels.scale_pieces(labels, amplitudes, _SHAPES, room.pieces)
    kernels.add_pieces(room.pieces, room.places, 0, signals)
    kernels.mark_spans(room.places, MOTIF_STEPS, masks[:, 0])
    for slot in range(1, PIECES):
        generator.permuted(room.pieces, axis=1, out=room.shuffled)
        kernels.add_pieces(room.shuffled, room.places, slot, signals)
    return batch


def _blank(count: int) -> Batch:
    images = np.empty((count, 1, STEPS, 1), np.float32)
    return Batch(images, np.empty(count, np.int64), np.empty((count, 1, STEPS), np.uint8))


class MotifDataset(EndlessDataset):
    """The endless motif stream of one seed, and a held-out set that all seeds share.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0; decides the training signals only.
    batch_size : int
        Signals per batch, >= 1.

    Raises
    ------
    ArgumentError
        When an argument is no integer or too small.

    Notes
    -----
    ``image_shape`` is (1, T, F) = (1, 64, 1). `spiral_core.nn.ImageToSequence` gives the (T, N, F) that a
    time-major layer takes.
    """

    KNOBS = (
        DataKnob("noise", NOISE, "Standard deviation of the noise of training signals; held-out ones keep theirs."),
    )

    KERNELS = ("place_pieces", "scale_pieces", "add_pieces", "mark_spans")

    name = "motif"
    image_shape = (1, STEPS, 1)
    class_names = CLASS_NAMES

    def _fit(self, batch_size: int) -> int:
        self._room = Room.of(batch_size)
        return super()._fit(batch_size)

    def _draw(self, generator: np.random.Generator, count: int, into: Batch | None = None) -> Batch:
        return motif_batch(generator, count, into, room=self._room if count == self.batch_size else None)

    def _draw_training(self, index: int, into: Batch | None) -> Batch:
        return motif_batch(self._generator(index), self.batch_size, into, self.setting("noise"), self._room)
