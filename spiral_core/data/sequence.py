"""The motif task: which of six short waveforms hides in a noisy signal, among shuffled copies of its own samples.

The motif's place is known, so an attribution over time can be scored. A sequence is an image of height 1: a signal of T
steps and F features is (1, T, F), and a batch (N, 1, T, F), so that everything that takes images takes sequences too.
The stream is endless: a batch is a function of (seed, index).
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from spiral_core.arrays import F32, I64, U8
from spiral_core.data.batch import Batch
from spiral_core.data.endless import EndlessDataset
from spiral_core.data.steering import DataKnob

STEPS: Final = 64
"""T, time steps of a signal."""

MOTIF_STEPS: Final = 12
"""Length of a motif and of a distractor: 19 % of the signal."""

DISTRACTORS: Final = 2
"""Shuffled copies of the motif's samples per signal: level and spread tell nothing about where the motif is."""

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


def _places(generator: np.random.Generator, count: int) -> I64:
    """Draw (count, 3) first steps of pieces that do not overlap, uniform over all such arrangements."""
    pieces = DISTRACTORS + 1
    free = STEPS - pieces * (MOTIF_STEPS - 1)
    # Pieces of one step each among `free` steps, then each is stretched to its length. Order decides who goes where.
    order = generator.random((count, free)).argsort(axis=1)[:, :pieces]
    rank = order.argsort(axis=1).argsort(axis=1)
    return (order + rank * (MOTIF_STEPS - 1)).astype(np.int64)


def motif_batch(generator: np.random.Generator, count: int, into: Batch | None = None, noise: float = NOISE) -> Batch:
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

    Returns
    -------
    Batch
        Images (count, 1, 64, 1); masks (count, 1, 64), 1 where the motif is.
    """
    labels = generator.integers(0, len(CLASS_NAMES), count, dtype=np.int64)
    amplitudes = generator.uniform(*AMPLITUDE_RANGE, size=(count, 1)).astype(np.float32)
    places = _places(generator, count)
    batch = into if into is not None else _blank(count)
    batch.labels[...] = labels
    signals, masks = batch.images[:, 0, :, 0], cast("U8", batch.masks)
    generator.standard_normal(out=batch.images, dtype=np.float32)
    signals *= np.float32(noise)
    masks.fill(0)
    row, offset = np.arange(count)[:, None], np.arange(MOTIF_STEPS)
    piece = MOTIFS[labels] * amplitudes
    signals[row, places[:, :1] + offset] += piece
    masks[row, 0, places[:, :1] + offset] = 1
    for slot in range(1, DISTRACTORS + 1):
        signals[row, places[:, slot, None] + offset] += generator.permuted(piece, axis=1)
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

    name = "motif"
    image_shape = (1, STEPS, 1)
    class_names = CLASS_NAMES

    def _draw(self, generator: np.random.Generator, count: int, into: Batch | None = None) -> Batch:
        return motif_batch(generator, count, into)

    def _draw_training(self, index: int, into: Batch | None) -> Batch:
        return motif_batch(self._generator(index), self.batch_size, into, self.setting("noise"))
