"""The shortcut of the needle task: a small patch in the corner whose brightness may tell the class.

A network that finds it need not look for the glyph, and its heat maps show that.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from spiral_core.arrays import F32, I64

TAG_SIDE: Final = 3
"""Height and width of the patch in the top-left corner, pixels."""


def paint_tags(generator: np.random.Generator, labels: I64, classes: int, honesty: float, images: F32) -> None:
    """Overwrite the top-left corner of each image by a patch of value k / (classes - 1).

    k is the image's class with probability ``honesty``, else a class drawn at random, which may be the same one.
    Whatever ``honesty`` is, the same draws are used up: an image whose tag is true stays so when it rises.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced.
    labels : (N,) int64
    classes : int
    honesty : float
        In [0, 1].
    images : (N, H, W, C) float32
        Written.
    """
    draws = generator.random(labels.size)
    others = generator.integers(0, classes, labels.size, dtype=np.int64)
    shown = np.where(draws < honesty, labels, others)
    images[:, :TAG_SIDE, :TAG_SIDE, :] = (shown / (classes - 1)).astype(np.float32)[:, None, None, None]
