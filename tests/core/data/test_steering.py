"""Batch sizes and knobs that change between two batches: epochs, bounds, and a state that can be saved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core.data import DATASETS, DigitsDataset, MotifDataset, NeedleDataset, open_dataset
from spiral_core.data.tag import TAG_SIDE, paint_tags
from spiral_core.errors import ArgumentError, StateDictError

IMAGES = 1497
"""Of the digits."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(20, IMAGES)), min_size=1, max_size=4))
def test_every_epoch_sees_each_image_at_most_once_whatever_the_sizes_were(changes: list[tuple[int, int]]) -> None:
    """A slow twin walks through the permutations, one image after the other."""
    dataset = DigitsDataset(seed=3, batch_size=64)
    index, epoch, at = 0, 0, 0
    for count, size in [(30, 64), *changes]:
        if size != dataset.batch_size and at > 0:
            epoch, at = epoch + 1, 0
        dataset.resize(size, index)
        for _ in range(count):
            if at + size > IMAGES:
                epoch, at = epoch + 1, 0
            assert dataset.place(index) == (epoch, at // size)
            index, at = index + 1, at + size
        if at + size > IMAGES:
            epoch, at = epoch + 1, 0
        assert dataset.epochs(index) == pytest.approx(epoch + at // size / (IMAGES // size))


def test_a_batch_after_a_new_size_is_drawn_from_the_epoch_that_it_began() -> None:
    dataset = DigitsDataset(seed=0, batch_size=64)
    dataset.resize(100, 30)
    plain = DigitsDataset(seed=0, batch_size=100)
    assert plain.place(28) == dataset.place(30) == (2, 0)
    for place in range(20):
        np.testing.assert_array_equal(dataset.train_batch(30 + place).images, plain.train_batch(28 + place).images)
    with pytest.raises(ArgumentError, match="index must be at least 30"):
        dataset.train_batch(29)


def test_the_size_in_force_begins_no_new_epoch() -> None:
    dataset = DigitsDataset(seed=0, batch_size=64)
    dataset.resize(64, 7)
    assert (dataset.first_batch, dataset.place(7)) == (0, (0, 7))


@pytest.mark.parametrize("size", [0, -1, IMAGES + 1, 2.5, True])
def test_a_size_out_of_range_changes_nothing(size: int) -> None:
    dataset = DigitsDataset(seed=0, batch_size=64)
    with pytest.raises(ArgumentError, match="batch_size must be"):
        dataset.resize(size, 3)
    assert (dataset.batch_size, dataset.report_batches, dataset.place(3)) == (64, 23, (0, 3))


@pytest.mark.parametrize("name", DATASETS)
def test_a_saved_state_goes_on_with_the_same_batches(name: str) -> None:
    dataset = open_dataset(name, seed=1, batch_size=16)
    dataset.resize(24, 5)
    for knob in dataset.KNOBS:
        dataset.set(knob.name, True if isinstance(knob.start, bool) else knob.high / 2)
    other = open_dataset(name, seed=1, batch_size=16)
    other.load_state_dict(dataset.state_dict())
    for index in (5, 9, 200):
        np.testing.assert_array_equal(other.train_batch(index).images, dataset.train_batch(index).images)
    assert {key: value.item() for key, value in other.state_dict().items()} == {
        key: value.item() for key, value in dataset.state_dict().items()
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": np.array(0)},
        {"batch_size": np.array(2.5)},
        {"first_batch": np.array(-1)},
        {"first_epoch": np.array(-1)},
        {"knob.shortcut": np.array(1.5)},
        {"knob.shortcut": np.array(np.nan)},
        {"knob.shortcut": np.array(True)},
        {"batch_size": np.array([1, 2])},
        {"knob.other": np.array(0.0)},
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_was_loaded(bad: dict[str, np.ndarray]) -> None:
    dataset = NeedleDataset(seed=0, batch_size=8)
    dataset.set("shortcut", 0.25)
    before = dataset.state_dict()
    with pytest.raises(StateDictError):
        dataset.load_state_dict({**before, "batch_size": np.array(4), **bad})
    assert dataset.state_dict() == before
    assert dataset.batch_size == 8


def test_knobs_refuse_what_they_cannot_hold_and_unknown_names() -> None:
    dataset = MotifDataset(seed=0, batch_size=8)
    for value in (-0.1, 1.1, np.nan, True):
        with pytest.raises(ArgumentError, match="noise"):
            dataset.set("noise", value)
    with pytest.raises(ArgumentError, match="no knob 'shortcut'; there are noise"):
        dataset.set("shortcut", 0.5)
    fashion = open_dataset("fashion", seed=0, batch_size=8)
    with pytest.raises(ArgumentError, match="augmented takes True or False"):
        fashion.set("augmented", 1.0)


def test_tags_are_true_as_often_as_asked_and_a_true_one_stays_true_when_more_are() -> None:
    labels = np.random.default_rng(0).integers(0, 8, 4000)
    seen = {}
    for honesty in (0.0, 0.5, 1.0):
        images = np.full((4000, 28, 28, 1), 0.3, np.float32)
        paint_tags(np.random.default_rng(1), labels, 8, honesty, images)
        tags = images[:, :TAG_SIDE, :TAG_SIDE]
        assert (tags == tags[:, :1, :1]).all()
        assert (images[:, TAG_SIDE:] == 0.3).all()
        seen[honesty] = np.round(tags[:, 0, 0, 0] * 7).astype(int) == labels
    assert seen[1.0].all()
    # A random class is the right one in one of eight cases.
    assert seen[0.5].mean() == pytest.approx(0.5 + 0.5 / 8, abs=0.03)
    assert seen[0.0].mean() == pytest.approx(1 / 8, abs=0.02)
    assert not (seen[0.0] & ~seen[0.5]).any()
