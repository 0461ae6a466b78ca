"""How scenes of the needle and the motif task are drawn, in plain NumPy with arrays for everything.

The order and kind of every draw is part of what a seed means, so the tasks must agree with this to the last bit.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F32, I64, U8, Bools

Box = tuple[I64, I64, I64]


def box(corners: I64, side: int) -> Box:
    """Return index arrays that select the box at each corner."""
    offset = np.arange(side)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset[None, :]
    return np.arange(len(corners))[:, None, None], rows, columns


def placed(candidates: I64, corners: I64, side: int) -> tuple[I64, Bools]:
    """Take each distractor's first candidate, (N, S, tries, 2), that overlaps no box placed before it."""
    every = np.arange(len(corners))
    chosen = np.empty((*candidates.shape[:2], 2), np.int64)
    present = np.empty(candidates.shape[:2], np.bool_)
    for slot in range(candidates.shape[1]):
        tries = candidates[:, slot]
        free = (np.abs(tries - corners[:, None]) >= side).any(axis=-1)
        for earlier in range(slot):
            apart = (np.abs(tries - chosen[:, None, earlier]) >= side).any(axis=-1)
            free &= apart | ~present[:, None, earlier]
        first = free.argmax(axis=1)
        chosen[:, slot] = tries[every, first]
        present[:, slot] = free[every, first]
    return chosen, present


def needle(generator: np.random.Generator, count: int, glyphs: F32, blur: F32) -> tuple[F32, I64, U8]:
    """Draw images (N, 28, 28), labels and masks of the glyphs."""
    side = glyphs.shape[1]
    labels = generator.integers(0, len(glyphs), count, dtype=np.int64)
    amplitudes = generator.uniform(0.45, 0.65, count).astype(np.float32)
    corners = generator.integers(1, 19, (count, 2), dtype=np.int64, endpoint=True)
    candidates = generator.integers(1, 19, (count, 2, 20, 2), dtype=np.int64, endpoint=True)
    order = generator.random((count, 2, side**2)).argsort(axis=-1, kind="stable")
    patches = np.take_along_axis(glyphs[labels].reshape(count, 1, -1), order, axis=-1).reshape(count, 2, side, side)
    chosen, present = placed(candidates, corners, side)
    smooth = blur @ generator.standard_normal((count, 28, 28), dtype=np.float32) @ blur
    smooth = smooth * (np.float32(0.15) / np.abs(smooth).max(axis=(1, 2), keepdims=True))
    images = generator.standard_normal((count, 28, 28), dtype=np.float32) * np.float32(0.05) + smooth + np.float32(0.3)
    brightness = amplitudes[:, None, None]
    images[box(corners, side)] += brightness * glyphs[labels]
    for slot in range(2):
        images[box(chosen[:, slot], side)] += brightness * (present[:, slot, None, None] * patches[:, slot])
    masks = np.zeros((count, 28, 28), np.uint8)
    masks[box(corners, side)] = 1
    return images, labels, masks


def motif(generator: np.random.Generator, count: int, motifs: F32, noise: float) -> tuple[F32, I64, U8]:
    """Draw signals (N, 64), labels and masks of the motifs."""
    length = motifs.shape[1]
    labels = generator.integers(0, len(motifs), count, dtype=np.int64)
    amplitudes = generator.uniform(0.8, 1.2, (count, 1)).astype(np.float32)
    order = generator.random((count, 64 - 3 * (length - 1))).argsort(axis=1)[:, :3]
    places = order + order.argsort(axis=1).argsort(axis=1) * (length - 1)
    signals = generator.standard_normal((count, 64), dtype=np.float32) * np.float32(noise)
    row, offset = np.arange(count)[:, None], np.arange(length)
    piece = motifs[labels] * amplitudes
    signals[row, places[:, :1] + offset] += piece
    masks = np.zeros((count, 64), np.uint8)
    masks[row, places[:, :1] + offset] = 1
    for slot in (1, 2):
        signals[row, places[:, slot, None] + offset] += generator.permuted(piece, axis=1)
    return signals, labels, masks


def augmented(images: U8, generator: np.random.Generator, shift: int) -> U8:
    """Flip and shift images (N, H, W)."""
    count, height, width = images.shape
    offsets = generator.integers(0, 2 * shift, (2, count, 1), dtype=np.int64, endpoint=True)
    flipped = generator.random((count, 1)) < 0.5
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    column = np.arange(width)
    rows = offsets[0] + np.arange(height)
    columns = offsets[1] + np.where(flipped, column[::-1], column)
    moved: U8 = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved
