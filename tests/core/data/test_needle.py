from __future__ import annotations

import numpy as np
import pytest

from spiral_core.data.needle import (
    _BLUR,
    CLASS_NAMES,
    GLYPHS,
    SIDE,
    NeedleDataset,
    Scene,
    draw_background,
    draw_scene,
    needle_batch,
    paint,
)
from spiral_core.errors import ArgumentError


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(np.random.default_rng(11), 4000)


def test_the_stream_gives_the_same_bits_whatever_was_asked_before() -> None:
    forward, backward = NeedleDataset(seed=5, batch_size=16), NeedleDataset(seed=5, batch_size=16)
    wanted = [forward.train_batch(k) for k in range(4)]
    for index in (3, 0, 2, 1):
        again = backward.train_batch(index)
        assert again.images.tobytes() == wanted[index].images.tobytes()
        assert again.labels.tobytes() == wanted[index].labels.tobytes()
        assert again.masks.tobytes() == wanted[index].masks.tobytes()


def test_batches_and_seeds_differ_and_the_held_out_set_is_never_drawn_for_training() -> None:
    held_out = np.concatenate([b.images for b in NeedleDataset(seed=0, batch_size=64).test_batches()])
    seen = {image.tobytes() for image in held_out}
    for seed in (0, 1):
        for index in range(4):
            seen |= {image.tobytes() for image in NeedleDataset(seed=seed, batch_size=64).train_batch(index).images}
    assert len(seen) == 512 + 2 * 4 * 64


def test_a_batch_has_the_promised_form() -> None:
    batch = NeedleDataset(seed=0, batch_size=64).train_batch(10**12)
    assert batch.images.shape == (64, 28, 28, 1)
    assert batch.images.dtype == np.float32
    assert batch.images.flags.c_contiguous
    assert batch.images.flags.writeable
    assert batch.masks.dtype == np.uint8
    assert len(batch) == 64


def test_the_object_mask_covers_exactly_the_box_around_the_glyph(scene: Scene) -> None:
    images = np.zeros((4000, SIDE, SIDE), dtype=np.float32)
    paint(scene, images)
    masks = scene.object_masks()
    assert (masks.sum(axis=(1, 2)) == 49).all()
    inside = images[masks == 1].reshape(4000, 7, 7)
    assert np.allclose(inside, scene.amplitudes[:, None, None] * GLYPHS[scene.labels])
    elsewhere = (masks == 0) & (scene.distractor_masks() == 0)
    assert not images[elsewhere].any()


def test_distractors_keep_the_brightness_of_the_glyph_and_overlap_nothing(scene: Scene) -> None:
    wanted = GLYPHS[scene.labels].sum(axis=(1, 2))
    assert (scene.distractor_patches.sum(axis=(2, 3)) == wanted[:, None]).all()
    assert not (scene.object_masks() & scene.distractor_masks()).any()
    area = scene.distractor_masks().sum(axis=(1, 2))
    assert (area == 49 * scene.distractor_present.sum(axis=1)).all()
    assert scene.distractor_present.mean() > 0.999


def test_a_shuffled_patch_is_almost_never_the_glyph_itself(scene: Scene) -> None:
    same = (scene.distractor_patches == GLYPHS[scene.labels][:, None]).all(axis=(2, 3))
    assert not same.any()


def test_places_classes_and_amplitudes_fill_their_ranges_evenly(scene: Scene) -> None:
    assert (scene.corners.min(), scene.corners.max()) == (1, 19)
    assert np.bincount(scene.corners.ravel(), minlength=20)[1:].min() > 330
    assert np.bincount(scene.labels, minlength=8).min() > 420
    assert scene.amplitudes.min() >= 0.45
    assert scene.amplitudes.max() <= 0.65
    assert abs(scene.amplitudes.mean() - 0.55) < 0.005


def test_the_blur_is_a_cut_gaussian_convolution_with_zeros_outside() -> None:
    point = np.zeros((SIDE, SIDE), dtype=np.float32)
    point[2, 14] = 1.0
    blurred = _BLUR @ point @ _BLUR
    for row in range(SIDE):
        for column in range(SIDE):
            dy, dx = row - 2, column - 14
            wanted = np.exp(-(dy**2 + dx**2) / 8.0) if max(abs(dy), abs(dx)) <= 6 else 0.0
            assert blurred[row, column] == pytest.approx(wanted, abs=1e-6)


def test_the_background_has_the_level_swing_and_noise_of_the_definition() -> None:
    images, scratch = np.full((2, 400, SIDE, SIDE), np.nan, dtype=np.float32)
    draw_background(np.random.default_rng(3), images, scratch)
    background = images.astype(np.float64)
    assert abs(background.mean() - 0.3) < 0.005
    # A 28 x 28 field smoothed at sigma 2 hardly changes between neighbors: the difference is the pixel noise.
    difference = np.diff(background, n=2, axis=2) / np.sqrt(6.0)
    assert 0.05 <= difference.std() < 0.053
    assert np.abs(background - 0.3).max() < 0.15 + 6 * 0.05


def test_all_glyphs_differ_and_reach_every_border_of_their_box() -> None:
    assert len({glyph.tobytes() for glyph in GLYPHS}) == len(CLASS_NAMES) == 8
    for glyph in GLYPHS:
        assert glyph[:, 0].any()
        assert glyph[:, -1].any()
        assert glyph[0].any()
        assert glyph[-1].any()
    assert GLYPHS.sum(axis=(1, 2)).tolist() == [13, 16, 13, 17, 21, 21, 13, 13]


def test_the_probe_shows_each_class_once_and_comes_from_the_held_out_set() -> None:
    data = NeedleDataset(seed=1, batch_size=64)
    probe = data.probe()
    assert probe.labels.tolist() == list(range(8))
    held_out = {image.tobytes() for batch in data.test_batches() for image in batch.images}
    assert {image.tobytes() for image in probe.images} <= held_out
    assert NeedleDataset(seed=2, batch_size=8).probe().images.tobytes() == probe.images.tobytes()


def test_writing_into_a_held_out_batch_does_not_change_the_next_one() -> None:
    data = NeedleDataset(seed=1, batch_size=512)
    first = next(data.test_batches())
    before = first.images.tobytes()
    first.images[:] = 0.0
    assert next(data.test_batches()).images.tobytes() == before


def test_the_bits_do_not_depend_on_how_many_images_the_blur_handles_at_once() -> None:
    one_by_one = np.random.default_rng(4).standard_normal((64, SIDE, SIDE), dtype=np.float32)
    together = _BLUR @ one_by_one @ _BLUR
    assert all(
        (_BLUR @ image @ _BLUR).tobytes() == whole.tobytes() for image, whole in zip(one_by_one, together, strict=True)
    )


@pytest.mark.parametrize(("seed", "batch_size"), [(-1, 64), (0, 0), (0, True), (0.5, 64), (0, 6.0)])
def test_a_senseless_seed_or_batch_size_is_refused(seed: int, batch_size: int) -> None:
    with pytest.raises(ArgumentError, match="must be"):
        NeedleDataset(seed=seed, batch_size=batch_size)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ArgumentError, match="index must be at least 0"):
        NeedleDataset(seed=0, batch_size=4).train_batch(-1)


def test_a_generator_is_used_up_by_the_same_amount_for_equal_counts() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    needle_batch(first, 8)
    needle_batch(second, 8)
    assert first.bit_generator.state == second.bit_generator.state
