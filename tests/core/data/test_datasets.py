from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from spiral_core.data import DATASETS, Purpose, derived_generator, image_shape, open_dataset
from spiral_core.errors import ArgumentError, DataError

CHECKSUM = """
import hashlib
from spiral_core.data import open_dataset
for name in ("needle", "fashion", "digits", "motif"):
    batch = open_dataset(name, seed=3, batch_size=64).train_batch(77)
    print(hashlib.sha256(batch.images.tobytes() + batch.labels.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_keeps_the_protocol(name: str) -> None:
    data = open_dataset(name, seed=0, batch_size=32)
    assert data.name == name
    assert data.batch_size == 32
    batch = data.train_batch(0)
    assert batch.images.shape == (32, *data.image_shape)
    assert image_shape(name) == data.image_shape
    assert 0 <= batch.labels.min() <= batch.labels.max() < len(data.class_names)
    held_out = np.concatenate([part.labels for part in data.test_batches()])
    assert set(held_out) == set(range(len(data.class_names)))
    assert len(data.probe(8)) == 8
    assert data.report_batches == (data.batches_per_epoch or 6000 // 32)


def test_the_needle_stream_has_no_epoch_and_fashion_has_one() -> None:
    assert open_dataset("needle", seed=0, batch_size=64).batches_per_epoch is None
    assert open_dataset("fashion", seed=0, batch_size=64).batches_per_epoch == 31


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DataError, match="unknown data set 'cifar'; choose one of needle, fashion, digits, motif"):
        open_dataset("cifar", seed=0, batch_size=1)


@pytest.mark.parametrize("name", DATASETS)
def test_a_probe_larger_than_the_held_out_set_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="count must be at most"):
        open_dataset(name, seed=0, batch_size=1).probe(513)


def test_batches_are_the_same_bits_in_another_process_with_another_thread_count() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CHECKSUM],
            env={"OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1


def test_generators_of_different_seeds_purposes_or_indices_never_agree() -> None:
    first_words = {
        derived_generator(seed, purpose, index).bit_generator.random_raw()
        for seed in (0, 1, 2**40, 2**130)
        for purpose in Purpose
        for index in (0, 1, 2, 3, 2**33)
    }
    assert len(first_words) == 4 * len(Purpose) * 5


def test_the_numbers_of_the_purposes_are_frozen_because_runs_depend_on_them() -> None:
    numbers = {purpose.name: purpose.value for purpose in Purpose}
    assert numbers == {"BATCHES": 1, "AUGMENTATION": 2, "HELD_OUT": 3, "INIT": 4}
