"""Handwritten digits, 8x8 pixels, that travel inside the package: 1,497 training and 300 test images.

`spiral_core.data.make_digits` made the file and states the rule. Source and licence are in ``NOTICE-digits``.
"""

from __future__ import annotations

from typing import Final

from spiral_core.data.embedded import Archive, EmbeddedDataset

ARCHIVE: Final = Archive(
    name="optical_digits_1497_300.npz",
    sha256="58cc5bcce40d4f3df2e093a39fedf044439eb5a34a05b1d6a515a291f7290b5b",
    maker="spiral_core.data.make_digits",
)


class DigitsDataset(EmbeddedDataset):
    """The embedded digits as a data set for training: small enough for a fully connected network.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0; decides the order of the images.
    batch_size : int
        Images per batch, 1 to 1,497.

    Raises
    ------
    ArgumentError
        When an argument is out of its range.
    DataError
        When the embedded file is missing or damaged.
    """

    name = "digits"
    image_shape = (8, 8, 1)
    class_names = tuple("0123456789")
    archive = ARCHIVE
    white = 16.0
    mean = 0.3051
    std = 0.3751
