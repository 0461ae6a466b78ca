from __future__ import annotations

import numpy as np
import pytest

from spiral_core.data.sequence import (
    CLASS_NAMES,
    MOTIF_STEPS,
    MOTIFS,
    STEPS,
    MotifDataset,
    Room,
    _draw_places,
    motif_batch,
)
from spiral_core.errors import ArgumentError


def test_a_sequence_is_an_image_of_height_one_with_a_mask_of_the_motifs_span() -> None:
    batch = MotifDataset(seed=0, batch_size=50).train_batch(10**12)
    assert batch.images.shape == (50, 1, STEPS, 1)
    assert batch.masks is not None
    assert batch.masks.shape == (50, 1, STEPS)
    assert (batch.masks.sum(axis=2) == MOTIF_STEPS).all()
    edges = np.abs(np.diff(batch.masks[:, 0].astype(int), axis=1, prepend=0, append=0)).sum(axis=1)
    assert (edges == 2).all()


def test_the_motif_stands_where_the_mask_says() -> None:
    batch = motif_batch(np.random.default_rng(0), 2000)
    assert batch.masks is not None
    inside = batch.images[:, 0, :, 0][batch.masks[:, 0] == 1].reshape(2000, MOTIF_STEPS)
    for label in range(len(CLASS_NAMES)):
        mean = inside[batch.labels == label].mean(axis=0)
        np.testing.assert_allclose(mean, MOTIFS[label], atol=0.06)
    # The same energy stands in two more places, so that energy alone does not find it.
    energy = (batch.images[..., 0] ** 2).sum() - (inside**2).sum()
    assert energy == pytest.approx(2 * (inside**2).sum(), rel=0.1)


def test_pieces_never_overlap_and_go_everywhere() -> None:
    room = Room.of(20_000)
    _draw_places(np.random.default_rng(1), room)
    places = room.places
    assert (places.min(), places.max()) == (0, STEPS - MOTIF_STEPS)
    assert np.diff(np.sort(places, axis=1), axis=1).min() == MOTIF_STEPS
    for slot in range(3):
        assert np.bincount(places[:, slot], minlength=STEPS - MOTIF_STEPS + 1).min() > 100


def test_motifs_differ_and_have_one_level_and_one_energy() -> None:
    assert len({motif.tobytes() for motif in MOTIFS}) == len(CLASS_NAMES) == 6
    np.testing.assert_allclose(MOTIFS.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose((MOTIFS**2).mean(axis=1), 1, rtol=1e-6)


def test_batches_depend_on_seed_and_index_alone_and_the_held_out_set_on_neither() -> None:
    one, other = MotifDataset(seed=5, batch_size=16), MotifDataset(seed=5, batch_size=16)
    wanted = [one.train_batch(k).images.tobytes() for k in range(3)]
    assert [other.train_batch(k).images.tobytes() for k in (2, 0, 1)] == [wanted[2], wanted[0], wanted[1]]
    assert len(set(wanted)) == 3
    assert MotifDataset(seed=6, batch_size=16).train_batch(0).images.tobytes() != wanted[0]
    assert MotifDataset(seed=6, batch_size=4).probe(6).images.tobytes() == one.probe(6).images.tobytes()
    assert one.probe(6).labels.tolist() == list(range(6))
    assert sum(len(batch) for batch in one.test_batches()) == 512


@pytest.mark.parametrize(("seed", "batch_size"), [(-1, 4), (0, 0), (0, True), (0.5, 4)])
def test_a_senseless_seed_or_batch_size_is_refused(seed: int, batch_size: int) -> None:
    with pytest.raises(ArgumentError, match="must be"):
        MotifDataset(seed=seed, batch_size=batch_size)
