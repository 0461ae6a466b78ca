"""What the procedural data sets share: an endless training stream and a fixed held-out set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

import numpy as np

from spiral_core.data.batch import Batch
from spiral_core.data.steering import SteeredDataset
from spiral_core.data.streams import Purpose, derived_generator

EPOCH_IMAGES: Final = 6000
"""Images after which a run on an endless stream evaluates and speaks of an epoch."""

HELD_OUT_IMAGES: Final = 512

LARGEST_BATCH: Final = 4096
"""What a knob may ask for; nothing in the stream itself sets a bound."""

HELD_OUT_SEED: Final = 0
"""Held-out images are the same for all runs, so that their accuracies can be compared."""


class EndlessDataset(SteeredDataset):
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
    largest_batch = LARGEST_BATCH

    def __init__(self, *, seed: int, batch_size: int) -> None:
        super().__init__(seed=seed, batch_size=batch_size)
        self._held_out: Batch | None = None

    def _fit(self, batch_size: int) -> int:
        return max(1, EPOCH_IMAGES // batch_size)

    @abstractmethod
    def _draw(self, generator: np.random.Generator, count: int, into: Batch | None = None) -> Batch:
        """Draw images with labels and masks from one generator, which is advanced; ``into`` a batch if there is one.

        What people have changed does not enter here: the held-out images are drawn by it, too.
        """

    def _draw_training(self, index: int, into: Batch | None) -> Batch:
        """Draw a training batch as the knobs say; a subclass without any leaves this as it is."""
        return self._draw(self._generator(index), self.batch_size, into)

    def _generator(self, index: int) -> np.random.Generator:
        """Return the generator that training batch ``index`` is drawn by."""
        return derived_generator(self.seed, Purpose.BATCHES, index)

    def train_batch(self, index: int, into: Batch | None = None) -> Batch:
        """Return training batch ``index`` of the endless stream; the same index gives the same bits."""
        self.place(index)
        return self._draw_training(index, into)

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
