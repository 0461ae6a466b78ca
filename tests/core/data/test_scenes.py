"""What is drawn in kernels is, to the last bit, what NumPy draws with arrays for everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import scenes_twin
from spiral_core import kernels
from spiral_core.data import DATASETS, open_dataset
from spiral_core.data.fashion import SHIFT, augment
from spiral_core.data.needle import _BLUR, GLYPHS, needle_batch
from spiral_core.data.sequence import MOTIFS, motif_batch
from spiral_core.data.streams import drawn_by_kernels
from spiral_core.errors import ArgumentError

SEEDS = st.integers(0, 2**32)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 70))
def test_a_needle_batch_is_its_twin_and_uses_up_the_same_draws(seed: int, count: int) -> None:
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(2):
        batch = needle_batch(ours, count)
        images, labels, masks = scenes_twin.needle(theirs, count, GLYPHS, _BLUR)
        assert batch.images.tobytes() == images.tobytes()
        assert batch.labels.tobytes() == labels.tobytes()
        assert batch.masks is not None
        assert batch.masks.tobytes() == masks.tobytes()
        assert ours.bit_generator.state == theirs.bit_generator.state


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 70), st.sampled_from([0.0, 0.15, 1.0]))
def test_a_motif_batch_is_its_twin_and_uses_up_the_same_draws(seed: int, count: int, noise: float) -> None:
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(2):
        batch = motif_batch(ours, count, noise=noise)
        signals, labels, masks = scenes_twin.motif(theirs, count, MOTIFS, noise)
        assert batch.images.tobytes() == signals.tobytes()
        assert batch.labels.tobytes() == labels.tobytes()
        assert batch.masks is not None
        assert batch.masks.tobytes() == masks.tobytes()
        assert ours.bit_generator.state == theirs.bit_generator.state


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 20))
def test_augmentation_is_its_twin(seed: int, count: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 9, 12)).astype(np.uint8)
    expected = scenes_twin.augmented(images, np.random.default_rng(seed), SHIFT)
    assert augment(images, np.random.default_rng(seed)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("odd", [False, True])
def test_normal_numbers_are_those_of_numpy_tails_and_edges_included(odd: bool) -> None:
    # Beyond the last layer lies one draw in 3,800, and one in 150 meets the edge of a layer.
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    if odd:
        # A half of a word is left over from this.
        assert ours.integers(0, 9) == theirs.integers(0, 9)
    drawn = np.empty(3_000_001, np.float32)
    with drawn_by_kernels(ours) as state:
        kernels.draw_normals(state, drawn)
    expected = theirs.standard_normal(drawn.size, dtype=np.float32)
    assert drawn.tobytes() == expected.tobytes()
    assert ours.bit_generator.state == theirs.bit_generator.state
    assert np.abs(drawn).max() > 4.5


def test_a_generator_over_something_else_is_refused_with_the_remedy() -> None:
    generator = np.random.Generator(np.random.MT19937(0))
    before = generator.bit_generator.state["state"]["key"].tobytes()
    with (
        pytest.raises(ArgumentError, match=r"PCG64, got MT19937; make it with numpy.random.default_rng"),
        drawn_by_kernels(generator),
    ):
        pass
    assert generator.bit_generator.state["state"]["key"].tobytes() == before


@pytest.mark.parametrize("name", DATASETS)
def test_batches_run_the_kernels_that_their_data_set_names(name: str) -> None:
    dataset = open_dataset(name, seed=0, batch_size=8)
    for knob in dataset.KNOBS:
        dataset.set(knob.name, True if isinstance(knob.start, bool) else 0.5)
    kernels.warm(dataset.KERNELS, np.float32)
    compiled = {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()}
    first = dataset.train_batch(0)
    kept = first.images.tobytes()
    dataset.train_batch(1, dataset.train_batch(2))
    assert {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()} == compiled
    assert first.images.tobytes() == kept, "a batch with memory of its own was overwritten"
