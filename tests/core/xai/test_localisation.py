from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiral_core.errors import ShapeError
from spiral_core.xai import energy_over_area, pointing_game, resize_bilinear, score_localization

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "gradcam.npz", allow_pickle=False)


@pytest.mark.parametrize("head", ["gap", "mlp"])
def test_scores_of_stored_maps_equal_the_reference(head: str) -> None:
    maps = GOLDEN[f"{head}_pred_pgc_gradcam"][:12]
    masks = GOLDEN["mask"][:12].astype(np.uint8)
    reference = GOLDEN[f"{head}_pred_formula_localisation"]
    assert (pointing_game(maps, masks) == reference[:, 0]).all()
    assert np.allclose(energy_over_area(maps, masks), reference[:, 1] / reference[:, 3], rtol=1e-5)


def test_a_uniform_map_scores_chance_and_a_perfect_one_the_most() -> None:
    masks = np.zeros((1, 4, 4), dtype=np.uint8)
    masks[0, 1:3, 1:3] = 1
    assert energy_over_area(np.ones((1, 4, 4)), masks).tolist() == [1.0]
    assert energy_over_area(masks.astype(np.float32), masks).tolist() == [4.0]
    assert pointing_game(masks.astype(np.float32), masks).tolist() == [1.0]
    assert pointing_game(1.0 - masks, masks).tolist() == [0.0]


def test_scores_do_not_depend_on_the_scale_of_the_map() -> None:
    generator = np.random.default_rng(0)
    maps, masks = generator.random((5, 8, 8)), (generator.random((5, 8, 8)) < 0.2).astype(np.uint8)
    for scale in (1e-25, 1e25):
        assert np.allclose(energy_over_area(maps * scale, masks), energy_over_area(maps, masks))
        assert (pointing_game(maps * scale, masks) == pointing_game(maps, masks)).all()


def test_a_map_without_evidence_has_no_energy_and_no_hit_even_with_the_object_in_the_corner() -> None:
    masks = np.zeros((4, 6, 6), dtype=np.uint8)
    masks[:, 0, 0] = 1
    raw = np.zeros((4, 3, 3), dtype=np.float32)
    raw[1] = -1.0
    raw[2] = np.nan
    raw[3, 0, 0] = 1.0
    scores = score_localization(raw, masks)
    assert scores.pointing.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert np.isnan(scores.energy_over_area).tolist() == [True, True, True, False]
    assert scores.zero_maps == 3


def test_an_empty_mask_has_no_energy() -> None:
    assert np.isnan(energy_over_area(np.ones((1, 2, 2)), np.zeros((1, 2, 2), dtype=np.uint8))).all()


def test_of_equal_maxima_the_first_in_row_order_counts() -> None:
    maps = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    assert pointing_game(maps, np.array([[[0, 1], [0, 0]]], dtype=np.uint8)).tolist() == [1.0]
    assert pointing_game(maps, np.array([[[0, 0], [1, 0]]], dtype=np.uint8)).tolist() == [0.0]


def test_raw_maps_are_cut_at_zero_before_they_are_resized() -> None:
    generator = np.random.default_rng(3)
    raw = generator.standard_normal((6, 7, 7)).astype(np.float32)
    masks = (generator.random((6, 28, 28)) < 0.1).astype(np.uint8)
    wanted = energy_over_area(resize_bilinear(np.maximum(raw, 0), 28, 28), masks)
    assert np.array_equal(score_localization(raw, masks).energy_over_area, wanted)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="resize the maps"):
        pointing_game(np.ones((1, 2, 2)), np.ones((1, 4, 4), dtype=np.uint8))
    with pytest.raises(ShapeError):
        energy_over_area(np.ones((2, 2)), np.ones((2, 2), dtype=np.uint8))
    with pytest.raises(ShapeError):
        score_localization(np.ones((2, 3, 3)), np.ones((1, 6, 6), dtype=np.uint8))
