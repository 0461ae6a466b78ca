"""What the procedural data sets share: an endless training stream and a fixed held-out set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

import numpy as np

from spiral_core.data.batch import Batch
from spiral_core.data.streams import Purpose, check_count, derived_generator

EPOCH_IMAGES: Final = 6000
"""Images after which a run on an endless stream evaluates and speaks of an epoch."""

HELD_OUT_IMAGES: Final = 512

HELD_OUT_SEED: Final = 0
"""Held-out images are the same for all runs, so that their accuracies can be compared."""


class EndlessDataset(ABC):
    """The endless stream of one seed, and a held-out set that all seeds share; a subclass draws the images.

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
    ``batches_per_epoch`` is None because the stream never repeats; ``report_batches`` is the number of batches in
    `EPOCH_IMAGES` images.
    """

    name: ClassVar[str]
    image_shape: ClassVar[tuple[int, int, int]]
    class_names: ClassVar[tuple[str, ...]]
    batches_per_epoch: int | None = None

    def __init__(self, *, seed: int, batch_size: int) -> None:
        self.seed = check_count("seed", seed, 0)
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.report_batches = max(1, EPOCH_IMAGES // self.batch_size)
        self._held_out: Batch | None = None

    @abstractmethod
    def _draw(self, generator: np.random.Generator, count: int, into: Batch | None = None) -> Batch:
        """Draw images with labels and masks from one generator, which is advanced; ``into`` a batch if there is one."""

    def train_batch(self, index: int, into: Batch | None = None) -> Batch:
        """Return training batch ``index`` >= 0 of the endless stream; the same index gives the same bits."""
        return self._draw(derived_generator(self.seed, Purpose.BATCHES, index), self.batch_size, into)

    def test_batches(self) -> Iterator[Batch]:
        """Yield the `HELD_OUT_IMAGES` held-out images in batches of ``batch_size``, the last one possibly smaller."""
        return self._held_out_images().split(self.batch_size)

    def probe(self, n: int = 8) -> Batch:
        """Return ``n`` fixed held-out images, at most `HELD_OUT_IMAGES`, going through the classes in turn."""
        return self._held_out_images().one_per_class(n)

    def _held_out_images(self) -> Batch:
        if self._held_out is None:
            generator = derived_generator(HELD_OUT_SEED, Purpose.HELD_OUT, 0)
            self._held_out = self._draw(generator, HELD_OUT_IMAGES)
        return self._held_out
