from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oracles.golden import Golden
from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError, ShapeError
from spiral_core.xai import GradCam, GradCamConfig

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "gradcam.npz", allow_pickle=False)


def channels_last(values: AnyArray) -> AnyArray:
    return np.broadcast_to(values, (16, 16, 14, 14)).transpose(0, 2, 3, 1)


def test_the_published_example_and_maps_with_and_without_each_step_equal_the_specification(
    record_property: Callable[[str, object], None],
) -> None:
    golden = Golden(__file__)
    cam = GradCam.attribute(golden["gradcam.unit.act"], golden["gradcam.unit.grad"], GradCamConfig(2, 2))
    assert cam.shape == (2, 2)
    assert np.allclose(cam.ravel(), [0.0, 1 / 3, 2 / 3, 1.0], atol=1e-12)
    golden.same("gradcam.unit.map", cam, tolerance=1e-12)
    for relu in (False, True):
        for normalise in (False, True):
            config = GradCamConfig(3, 4).with_relu(relu).with_normalise(normalise)
            cam = GradCam.attribute(golden["gradcam.act"], golden["gradcam.grad"], config)
            golden.same(f"gradcam.relu{relu:d}_norm{normalise:d}", cam, tolerance=1e-14, relative=1e-12)
    golden.settle(record_property)


@pytest.mark.parametrize("head", ["gap", "mlp"])
@pytest.mark.parametrize("target", ["pred", "fixed"])
def test_raw_maps_of_a_batch_equal_those_of_pytorch_grad_cam(head: str, target: str) -> None:
    gradients = channels_last(GOLDEN[f"{head}_{target}_grad"])
    maps = GradCam.attribute_batch(channels_last(GOLDEN["mlp_act"]), gradients)
    assert maps.dtype == np.float32
    assert np.allclose(maps, GOLDEN[f"{head}_{target}_pgc_gradcam_raw"], rtol=1e-4, atol=1e-7)


def test_one_image_and_a_batch_give_the_same_raw_map() -> None:
    activations, gradients = GOLDEN["mlp_act"][3].reshape(16, 196), GOLDEN["mlp_pred_grad"][3].reshape(16, 196)
    config = GradCamConfig(14, 14).with_relu(False).with_normalise(False)
    single = GradCam.attribute(activations, gradients, config)
    batch = GradCam.attribute_batch(channels_last(GOLDEN["mlp_act"]), channels_last(GOLDEN["mlp_pred_grad"]))
    assert single.dtype == np.float32
    assert np.allclose(single, batch[3], rtol=1e-6, atol=1e-9)


def test_sums_run_in_float64_where_float32_would_lose_the_answer() -> None:
    activations = np.ones((2, 1, 1, 3), dtype=np.float32)
    gradients = np.array([1e8, 1.0, -1e8], dtype=np.float32) * activations
    assert GradCam.attribute_batch(activations, gradients).ravel().tolist() == [1.0, 1.0]
    config = GradCamConfig(1, 1, normalise=False)
    assert GradCam.attribute(activations[0, 0].T, gradients[0, 0].T, config) == 1.0


def test_a_constant_map_becomes_zeros_however_positive_it_is() -> None:
    ones = np.ones((2, 6))
    assert not GradCam.attribute(ones, ones, GradCamConfig(2, 3)).any()


def test_epsilon_decides_what_counts_as_constant() -> None:
    activations, gradients = np.array([[0.0, 1e-7]]), np.ones((1, 2))
    assert not GradCam.attribute(activations, gradients, GradCamConfig(1, 2)).any()
    assert GradCam.attribute(activations, gradients, GradCamConfig(1, 2).with_epsilon(1e-9)).tolist() == [[0.0, 1.0]]


def test_a_nan_stays_where_it_is_and_does_not_move_the_range() -> None:
    cam = GradCam.attribute(np.array([[0.0, np.nan, 2.0, 4.0]]), np.ones((1, 4)), GradCamConfig(2, 2))
    assert np.array_equal(cam, [[0.0, np.nan], [0.5, 1.0]], equal_nan=True)
    constant = GradCam.attribute(np.array([[3.0, np.nan]]), np.ones((1, 2)), GradCamConfig(1, 2))
    assert np.array_equal(constant, [[0.0, np.nan]], equal_nan=True)
    assert np.isnan(GradCam.attribute(np.full((1, 2), np.nan), np.ones((1, 2)), GradCamConfig(1, 2))).all()


def test_features_of_a_sequence_are_a_map_of_height_one() -> None:
    generator = np.random.default_rng(0)
    assert GradCam.attribute(generator.random((5, 7)), generator.random((5, 7)), GradCamConfig(1, 7)).shape == (1, 7)


def test_inputs_are_not_modified() -> None:
    activations, gradients = np.random.default_rng(0).standard_normal((2, 5, 12))
    before = activations.copy(), gradients.copy()
    GradCam.attribute(activations, gradients, GradCamConfig(3, 4))
    assert np.array_equal((activations, gradients), before)


def test_shapes_that_do_not_fit_are_refused() -> None:
    ones = np.ones((2, 6))
    with pytest.raises(ShapeError, match=r"\(channels, 2 \* 2\)"):
        GradCam.attribute(ones, ones, GradCamConfig(2, 2))
    with pytest.raises(ShapeError, match="gradients must have the shape"):
        GradCam.attribute(ones, ones[:1], GradCamConfig(2, 3))
    with pytest.raises(ShapeError, match="use attribute_batch"):
        GradCam.attribute(np.ones((1, 2, 3, 4)), np.ones((1, 2, 3, 4)), GradCamConfig(2, 3))
    with pytest.raises(ShapeError, match=r"\(N, h, w, K\)"):
        GradCam.attribute_batch(ones, ones)
    with pytest.raises(ShapeError, match="gradients must have the shape"):
        GradCam.attribute_batch(np.ones((1, 2, 3, 4)), np.ones((1, 1, 1, 4)))


@pytest.mark.parametrize(
    ("height", "width", "epsilon"), [(0, 1, 0.0), (1, -1, 0.0), (1, 1, -1e-9), (1, 1, float("nan"))]
)
def test_a_senseless_configuration_is_refused(height: int, width: int, epsilon: float) -> None:
    with pytest.raises(ArgumentError):
        GradCamConfig(height, width, epsilon=epsilon)


def test_builders_return_copies_and_keep_the_rest() -> None:
    config = GradCamConfig(2, 3)
    changed = config.with_relu(False).with_epsilon(0.5).with_normalise(False)
    assert changed == GradCamConfig(2, 3, apply_relu=False, epsilon=0.5, normalise=False)
    assert config == GradCamConfig(2, 3, True, 1e-6, True)
