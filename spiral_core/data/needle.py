"""The needle task: find the one glyph with a shape among shuffled pixels of the same brightness.

The object's place is known, so a heat map can be scored. The stream is endless: a batch is a function of
(seed, index). `draw_scene` decides what is where and `render` paints it; a variant of the task changes one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import F32, F64, I64, U8, Bools
from spiral_core.data.batch import Batch
from spiral_core.data.endless import EndlessDataset
from spiral_core.data.steering import DataKnob
from spiral_core.data.streams import Purpose, derived_generator, drawn_by_kernels
from spiral_core.data.tag import paint_tags

SIDE: Final = 28
"""Height and width of an image, pixels."""

GLYPH_SIDE: Final = 7
"""Height and width of a glyph and of a distractor, pixels: 6.25 % of the image."""

CORNER_RANGE: Final = (1, 19)
"""Top-left corners of glyph and distractors are uniform in this closed range per axis, so none touches the border."""

AMPLITUDE_RANGE: Final = (0.45, 0.65)
"""Brightness added by a glyph, uniform; difficulty is its ratio to the background's swing."""

DISTRACTORS: Final = 2
"""Shuffled copies of the glyph's pixels per image."""

PLACEMENT_TRIES: Final = 20
"""Corners tried per distractor before it is left out."""

BACKGROUND_LEVEL: Final = 0.3
BACKGROUND_SWING: Final = 0.15
"""Largest departure of the smooth background from its level."""

PIXEL_NOISE: Final = 0.05
"""Standard deviation of the noise that each pixel draws for itself."""

BLUR_SIGMA: Final = 2.0
"""Of the Gaussian that smooths the background, pixels."""

BLUR_RADIUS: Final = 6
"""Three sigma: the kernel is cut there."""

_GLYPH_ROWS: Final = {
    "plus": "...#... ...#... ...#... ####### ...#... ...#... ...#...",
    "ring": "..###.. .#...#. #.....# #.....# #.....# .#...#. ..###..",
    "cross": "#.....# .#...#. ..#.#.. ...#... ..#.#.. .#...#. #.....#",
    "triangle": "...#... ...#... ..#.#.. ..#.#.. .#...#. .#...#. #######",
    "bars": "####### ....... ....... ####### ....... ....... #######",
    "columns": "#..#..# #..#..# #..#..# #..#..# #..#..# #..#..# #..#..#",
    "hook": "####### ......# ......# ......# ......# ......# ......#",
    "bolt": "####... ...#... ...#... ...#### ......# ......# ......#",
}

CLASS_NAMES: Final = tuple(_GLYPH_ROWS)


def _glyph_bitmaps() -> F32:
    # Shape: (classes, 7, 7)
    return np.array(
        [[[pixel == "#" for pixel in row] for row in rows.split()] for rows in _GLYPH_ROWS.values()], dtype=np.float32
    )


def _blur_matrix() -> F32:
    """Banded (28, 28) matrix K: ``K @ x @ K.T`` is the Gaussian blur of x with zeros outside the image."""
    distance = np.subtract.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.float64)
    weight = np.exp(-0.5 * (distance / BLUR_SIGMA) ** 2)
    weight[np.abs(distance) > BLUR_RADIUS] = 0.0
    # The kernel's scale cancels when the image is divided by its maximum, so it is not normalized.
    return weight.astype(np.float32)


GLYPHS: Final = _glyph_bitmaps()
GLYPHS.setflags(write=False)
_FLAT_GLYPHS: Final = GLYPHS.reshape(len(CLASS_NAMES), -1).copy()
"""With the pixels in a row, and writable, which is what kernels are compiled for."""
_SWING: Final = kernels.scalar(BACKGROUND_SWING, np.float32)
_BLUR: Final = _blur_matrix()


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is where in N needle images.

    Parameters
    ----------
    labels : (N,) int64
        Class of the glyph.
    amplitudes : (N,) float32
        Brightness that glyph and distractors add.
    corners : (N, 2) int64
        Top row and left column of the glyph's box.
    distractor_corners : (N, 2, 2) int64
        The same for each distractor; meaningless where it is left out.
    distractor_present : (N, 2) bool
        False where no free place was found in `PLACEMENT_TRIES` tries.
    distractor_patches : (N, 2, 7, 7) float32
        The glyph's pixels in random order.
    """

    labels: I64
    amplitudes: F32
    corners: I64
    distractor_corners: I64
    distractor_present: Bools
    distractor_patches: F32

    def object_masks(self, out: U8 | None = None) -> U8:
        """Return (N, 28, 28) uint8, 1 in the glyph's box; in ``out`` if given."""
        masks = np.empty((self.labels.size, SIDE, SIDE), dtype=np.uint8) if out is None else out
        kernels.mark_boxes(self.corners, GLYPH_SIDE, masks)
        return masks

    def distractor_masks(self) -> U8:
        """Return (N, 28, 28) uint8, 1 in the distractors' boxes."""
        masks = np.zeros((self.labels.size, SIDE, SIDE), dtype=np.uint8)
        box = np.empty_like(masks)
        for slot in range(DISTRACTORS):
            kernels.mark_boxes(np.ascontiguousarray(self.distractor_corners[:, slot]), GLYPH_SIDE, box)
            masks |= box * self.distractor_present[:, slot, None, None].view(np.uint8)
        return masks


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Memory that one batch after the other is drawn in; what is in it means nothing between two of them.

    Parameters
    ----------
    fields : (N, 28, 28) float32
    corners, present, patches
        Those of the distractors in a `Scene`.
    keys : (49,) float64
        One number for each pixel of a glyph.
    """

    fields: F32
    corners: I64
    present: Bools
    patches: F32
    keys: F64

    @classmethod
    def of(cls, count: int) -> Room:
        """Make room for ``count`` images."""
        return cls(
            fields=np.empty((count, SIDE, SIDE), np.float32),
            corners=np.empty((count, DISTRACTORS, 2), np.int64),
            present=np.empty((count, DISTRACTORS), np.bool_),
            patches=np.empty((count, DISTRACTORS, GLYPH_SIDE, GLYPH_SIDE), np.float32),
            keys=np.empty(GLYPH_SIDE**2, np.float64),
        )


def draw_scene(generator: np.random.Generator, count: int, room: Room | None = None) -> Scene:
    """Draw what is where in ``count`` images.

    Every image uses up the same number of draws, so nothing depends on how many tries another image needed.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced.
    count : int
        Images, >= 1.
    room : Room, optional
        Of as many images; the scene is valid until it is used again.
    """
    low, high = CORNER_RANGE
    room = Room.of(count) if room is None else room
    labels = generator.integers(0, len(CLASS_NAMES), count, dtype=np.int64)
    amplitudes = generator.uniform(*AMPLITUDE_RANGE, count).astype(np.float32)
    corners = generator.integers(low, high, (count, 2), dtype=np.int64, endpoint=True)
    with drawn_by_kernels(generator) as state:
        kernels.place_distractors(state, corners, low, high, PLACEMENT_TRIES, GLYPH_SIDE, room.corners, room.present)
        kernels.shuffle_glyphs(state, labels, _FLAT_GLYPHS, room.keys, _flat(room.patches))
    return Scene(
        labels=labels,
        amplitudes=amplitudes,
        corners=corners,
        distractor_corners=room.corners,
        distractor_present=room.present,
        distractor_patches=room.patches,
    )


def _flat(patches: F32) -> F32:
    """Return (N, 2, 49): patches with their pixels in a row, in the same memory."""
    return patches.reshape(*patches.shape[:2], GLYPH_SIDE**2)


def draw_background(generator: np.random.Generator, images: F32, scratch: F32) -> None:
    """Draw ``0.3 + 0.15 b + 0.05 n``, b smooth with maximum absolute value 1, n unit noise.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced.
    images : (N, 28, 28) float32
        Written.
    scratch : (N, 28, 28) float32
        Overwritten.
    """
    pixels = images.reshape(len(images), -1)
    with drawn_by_kernels(generator) as state:
        kernels.draw_normals(state, images.reshape(-1))
        # One 28 x 28 product per image is too small for a BLAS to split over threads: the bits do not depend on them.
        np.matmul(_BLUR, images, out=scratch)
        np.matmul(scratch, _BLUR, out=images)
        kernels.spread_fields(pixels, _SWING, scratch.reshape(len(images), -1))
        kernels.draw_normals(state, images.reshape(-1))
    images *= np.float32(PIXEL_NOISE)
    images += scratch
    images += np.float32(BACKGROUND_LEVEL)


def paint(scene: Scene, images: F32) -> None:
    """Add the glyphs of a scene to its background.

    Parameters
    ----------
    scene : Scene
        Of N images.
    images : (N, 28, 28) float32
        The background; written.
    """
    kernels.paint_scene(
        scene.labels,
        scene.amplitudes,
        scene.corners,
        scene.distractor_corners,
        scene.distractor_present,
        _flat(scene.distractor_patches),
        _FLAT_GLYPHS,
        GLYPH_SIDE,
        images,
    )


def needle_batch(
    generator: np.random.Generator, count: int, into: Batch | None = None, room: Room | None = None
) -> Batch:
    """Draw ``count`` needle images with labels and object masks from one generator, which is advanced.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced.
    count : int
        Images, >= 1.
    into : Batch, optional
        A needle batch of as many images, whose arrays are written over.
    room : Room, optional
        Of as many images; spares allocations.
    """
    room = Room.of(count) if room is None else room
    scene = draw_scene(generator, count, room)
    batch = into if into is not None else _blank(count)
    images = batch.images[..., 0]
    draw_background(generator, images, room.fields)
    paint(scene, images)
    scene.object_masks(batch.masks)
    batch.labels[...] = scene.labels
    return batch


def _blank(count: int) -> Batch:
    images = np.empty((count, SIDE, SIDE, 1), np.float32)
    return Batch(images, np.empty(count, np.int64), np.empty((count, SIDE, SIDE), np.uint8))


class NeedleDataset(EndlessDataset):
    """The endless needle stream of one seed, and a held-out set that all seeds share.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0; decides the training images only.
    batch_size : int
        Images per batch, >= 1.

    Raises
    ------
    ArgumentError
        When an argument is no integer or too small.

    Notes
    -----
    ``batches_per_epoch`` is None because the stream never repeats. ``report_batches`` is the number of batches in
    6,000 images, after which a run evaluates and speaks of an epoch. Pixels are not standardized: they already lie
    around 0.3 with a spread of about 0.15, and the first normalization layer takes care of the rest.
    """

    KNOBS = (
        DataKnob(
            "shortcut",
            0.0,
            "Probability that a patch in the corner of a training image tells its class; else the patch tells a random "
            "one. 0 leaves the patches out. Held-out and probe images never have any.",
        ),
    )

    KERNELS = ("place_distractors", "shuffle_glyphs", "draw_normals", "spread_fields", "paint_scene", "mark_boxes")

    name = "needle"
    image_shape = (SIDE, SIDE, 1)
    class_names = CLASS_NAMES

    def _fit(self, batch_size: int) -> int:
        self._room = Room.of(batch_size)
        return super()._fit(batch_size)

    def _draw_training(self, index: int, into: Batch | None) -> Batch:
        batch = super()._draw_training(index, into)
        shortcut = self.setting("shortcut")
        if shortcut > 0:
            generator = derived_generator(self.seed, Purpose.AUGMENTATION, index)
            paint_tags(generator, batch.labels, len(CLASS_NAMES), shortcut, batch.images)
        return batch

    def _draw(self, generator: np.random.Generator, count: int, into: Batch | None = None) -> Batch:
        return needle_batch(generator, count, into, self._room if count == self.batch_size else None)
