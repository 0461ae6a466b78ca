from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spiral_core.data
from spiral_core.data.fashion import ARCHIVE, FashionDataset, augment
from spiral_core.errors import ArgumentError, DataError

FOLDER = Path(spiral_core.data.__file__).parent


def test_the_embedded_subset_is_balanced_and_small() -> None:
    arrays = ARCHIVE.load()
    assert arrays.train_images.shape == (2000, 28, 28)
    assert arrays.test_images.shape == (500, 28, 28)
    assert np.bincount(arrays.train_labels).tolist() == [200] * 10
    assert np.bincount(arrays.test_labels).tolist() == [50] * 10
    assert (FOLDER / ARCHIVE.name).stat().st_size < 1_200_000


def test_no_test_image_is_also_a_training_image() -> None:
    arrays = ARCHIVE.load()
    train = {image.tobytes() for image in arrays.train_images}
    assert not any(image.tobytes() in train for image in arrays.test_images)


def test_one_flipped_bit_in_the_embedded_file_is_refused_with_the_remedy() -> None:
    content = bytearray((FOLDER / ARCHIVE.name).read_bytes())
    content[len(content) // 2] ^= 1
    with pytest.raises(DataError, match="reinstall the package"):
        ARCHIVE.parse(bytes(content))


def test_a_missing_embedded_file_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"gone\.npz is missing; reinstall"):
        replace(ARCHIVE, name="gone.npz").load()


def test_the_notice_names_the_owner_and_the_terms() -> None:
    notice = (FOLDER / "NOTICE-fashion-mnist").read_text()
    assert "2017, Zalando SE" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_the_stored_constants_standardize_the_training_images() -> None:
    images = FashionDataset.standardize(ARCHIVE.load().train_images)
    assert abs(float(images.mean(dtype=np.float64))) < 1e-3
    assert abs(float(images.std(dtype=np.float64)) - 1.0) < 1e-3


def test_an_epoch_shows_every_image_at_most_once_and_epochs_differ() -> None:
    data = FashionDataset(seed=0, batch_size=64)
    assert data.batches_per_epoch == 31
    epochs = [np.concatenate([data.train_batch(e * 31 + k).images for k in range(31)]) for e in range(2)]
    stored = {image.tobytes() for image in FashionDataset.standardize(ARCHIVE.load().train_images)}
    for images in epochs:
        distinct = {image.tobytes() for image in images}
        # A few originals are identical to each other, so the count may fall short by them.
        assert len(distinct) >= 31 * 64 - (2000 - len(stored))
        assert distinct <= stored
    assert epochs[0].tobytes() != epochs[1].tobytes()


def test_batches_are_the_same_bits_in_any_order_of_calls() -> None:
    first, second = FashionDataset(seed=9, batch_size=100), FashionDataset(seed=9, batch_size=100)
    wanted = {k: first.train_batch(k) for k in (0, 19, 20, 45)}
    for index in (45, 0, 20, 19):
        again = second.train_batch(index)
        assert again.images.tobytes() == wanted[index].images.tobytes()
        assert again.labels.tobytes() == wanted[index].labels.tobytes()


def test_labels_stay_with_their_images() -> None:
    arrays = ARCHIVE.load()
    label_of = dict(
        zip((i.tobytes() for i in FashionDataset.standardize(arrays.train_images)), arrays.train_labels, strict=True)
    )
    batch = FashionDataset(seed=3, batch_size=500).train_batch(2)
    agree = [label_of[image.tobytes()] == label for image, label in zip(batch.images, batch.labels, strict=True)]
    assert np.mean(agree) > 0.99


def test_augmenting_flips_and_shifts_by_at_most_two_pixels() -> None:
    images = ARCHIVE.load().train_images[:200]
    moved = augment(images, np.random.default_rng(0))
    kinds = set()
    for before, after in zip(images, moved, strict=True):
        padded = np.pad(before, 2)
        found = [
            (flip, dy, dx)
            for flip in (False, True)
            for dy in range(5)
            for dx in range(5)
            if ((padded[:, ::-1] if flip else padded)[dy : dy + 28, dx : dx + 28] == after).all()
        ]
        assert found
        kinds.update(found)
    assert len(kinds) == 50


def test_augmentation_does_not_change_which_images_are_drawn() -> None:
    plain = FashionDataset(seed=0, batch_size=64).train_batch(40)
    varied = FashionDataset(seed=0, batch_size=64, augmented=True).train_batch(40)
    assert (plain.labels == varied.labels).all()
    assert plain.images.tobytes() != varied.images.tobytes()


def test_held_out_batches_cover_all_images_in_order_and_belong_to_the_caller() -> None:
    data = FashionDataset(seed=0, batch_size=64)
    batches = list(data.test_batches())
    assert [len(batch) for batch in batches] == [64] * 7 + [52]
    assert (np.concatenate([batch.labels for batch in batches]) == ARCHIVE.load().test_labels).all()
    batches[0].images[:] = 0.0
    assert next(data.test_batches()).images.any()


def test_the_probe_goes_through_the_classes_in_turn() -> None:
    assert FashionDataset(seed=0, batch_size=64).probe(12).labels.tolist() == [*range(10), 0, 1]


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ArgumentError, match="at most 2000"):
        FashionDataset(seed=0, batch_size=2001)
