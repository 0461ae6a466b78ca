from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiral_core.arrays import F64
from spiral_core.errors import ArgumentError, ShapeError
from spiral_core.xai import resize_bilinear, upsample_positive

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "gradcam.npz", allow_pickle=False)


def minmax(maps: F64) -> F64:
    low = maps.min(axis=(1, 2), keepdims=True)
    return (maps - low) / (1e-7 + (maps - low).max(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("library", ["resize_cv2", "resize_align_false"])
def test_resizing_equals_opencv_and_pytorch(library: str) -> None:
    ours = resize_bilinear(GOLDEN["resize_in"], 28, 28)
    assert ours.dtype == np.float32
    assert np.abs(ours - GOLDEN[library]).max() < 3e-7


@pytest.mark.parametrize("head", ["gap", "mlp"])
@pytest.mark.parametrize("target", ["pred", "fixed"])
def test_final_maps_equal_those_of_pytorch_grad_cam(head: str, target: str) -> None:
    raw = GOLDEN[f"{head}_{target}_pgc_gradcam_raw"].astype(np.float64)
    final = minmax(resize_bilinear(minmax(np.maximum(raw, 0)), 28, 28))
    assert np.abs(final - GOLDEN[f"{head}_{target}_pgc_gradcam"]).max() < 1e-5


def test_a_size_of_its_own_changes_nothing() -> None:
    maps = np.random.default_rng(0).standard_normal((3, 5, 4))
    assert np.array_equal(resize_bilinear(maps, 5, 4), maps)


def test_a_constant_stays_constant_and_nothing_overshoots() -> None:
    generator = np.random.default_rng(1)
    for height, width in ((1, 1), (3, 50), (28, 7)):
        assert np.allclose(resize_bilinear(np.full((4, 9), 2.5), height, width), 2.5)
        maps = generator.standard_normal((6, 4, 9))
        resized = resize_bilinear(maps, height, width)
        assert resized.shape == (6, height, width)
        assert resized.max() <= maps.max() + 1e-12
        assert resized.min() >= maps.min() - 1e-12


def test_a_linear_ramp_stays_linear_between_the_outer_cell_centers() -> None:
    ramp = np.tile(np.arange(4.0), (2, 1))
    assert np.allclose(resize_bilinear(ramp, 2, 8)[0], [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])


def test_resizing_commutes_with_flipping() -> None:
    maps = np.random.default_rng(2).standard_normal((14, 14))
    assert np.allclose(resize_bilinear(maps[::-1, ::-1], 28, 28), resize_bilinear(maps, 28, 28)[::-1, ::-1])


def test_negative_neighbors_do_not_eat_the_edge_of_a_peak() -> None:
    raw = np.array([[-9.0, 1.0, -9.0]])
    assert upsample_positive(raw, 1, 6)[0].tolist() == [0.0, 0.25, 0.75, 0.75, 0.25, 0.0]
    assert raw[0, 0] == -9.0


def test_senseless_sizes_are_refused() -> None:
    with pytest.raises(ShapeError):
        resize_bilinear(np.ones(3), 2, 2)
    with pytest.raises(ShapeError):
        resize_bilinear(np.ones((0, 3)), 2, 2)
    with pytest.raises(ArgumentError):
        resize_bilinear(np.ones((2, 2)), 0, 2)
