from __future__ import annotations

import numpy as np
import pytest

from spiral_core.arrays import AnyArray
from spiral_core.data import Batch
from spiral_core.errors import ArgumentError, DtypeError, ShapeError

IMAGES = np.zeros((3, 4, 5, 1), dtype=np.float32)
LABELS = np.array([1, 0, 1])
MASKS = np.zeros((3, 4, 5), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "masks", "error"),
    [
        (IMAGES[..., 0], LABELS, MASKS, ShapeError),
        (IMAGES.astype(np.float64), LABELS, MASKS, DtypeError),
        (IMAGES[:, ::2], LABELS, None, ShapeError),
        (IMAGES, LABELS[:2], MASKS, ShapeError),
        (IMAGES, LABELS.astype(np.int32), MASKS, DtypeError),
        (IMAGES, LABELS, MASKS[:, :3], ShapeError),
        (IMAGES, LABELS, MASKS.astype(bool), DtypeError),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    images: AnyArray, labels: AnyArray, masks: AnyArray | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Batch(images, labels, masks)


def test_splitting_gives_copies_and_a_smaller_last_part() -> None:
    parts = list(Batch(IMAGES, LABELS, MASKS).split(2))
    assert [len(part) for part in parts] == [2, 1]
    assert not any(np.shares_memory(part.images, IMAGES) for part in parts)


def test_one_per_class_takes_the_first_of_each_class_then_the_second() -> None:
    images = np.arange(60, dtype=np.float32).reshape(IMAGES.shape)
    picked = Batch(images, LABELS).one_per_class(3)
    assert picked.labels.tolist() == [0, 1, 1]
    assert picked.images[:, 0, 0, 0].tolist() == [20.0, 0.0, 40.0]


def test_more_images_than_there_are_cannot_be_picked() -> None:
    with pytest.raises(ArgumentError, match="at most 3"):
        Batch(IMAGES, LABELS).one_per_class(4)
