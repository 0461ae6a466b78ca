"""The models by name: what they are made of, which images they take, and what Grad-CAM finds in them."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.differences import central_difference
from spiral_core import nn
from spiral_core.errors import ArgumentError
from spiral_core.nn import models


def kinds(name: str, **words: object) -> list[str]:
    return [type(layer).__name__ for layer in models.build(name, classes=3, **words).layers]  # type: ignore[arg-type]


def test_the_fully_connected_and_the_recurrent_model_are_those_of_the_design() -> None:
    normed = ["Linear", "ZSpaceLayerNorm", "ReLU"]
    assert kinds("z_mlp") == ["Flatten", *normed, *normed, "Linear"]
    recurrent = ["ImageToSequence", "Lstm", "SequenceToImage", "ZSpaceLayerNorm", "ReLU", "GlobalAveragePool2d"]
    assert kinds("z_lstm", image=(1, 9)) == [*recurrent, "Linear"]


@pytest.mark.parametrize("name", models.MODELS)
def test_curvature_gain_and_dtype_reach_every_z_space_layer(name: str) -> None:
    model = models.build(name, classes=3, image=(8, 4), in_channels=2, curvature=-2.0, gain=0.3, dtype=np.float64)
    norms = [layer for layer in model.layers if isinstance(layer, nn.ZSpaceNorm)]
    assert norms
    assert {(norm.curvature, norm.projector_gain) for norm in norms} == {(-2.0, 0.3)}
    assert model.forward(np.ones((5, 8, 4, 2))).shape == (5, 3)


@pytest.mark.parametrize("name", models.MODELS)
def test_a_generator_decides_every_weight_that_is_drawn(name: str) -> None:
    one, same, other = (
        models.build(name, classes=3, image=(8, 8), generator=np.random.default_rng(seed)).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one[key], same[key]) for key in one)
    weights = [key for key in one if "weight" in key]
    assert weights
    assert not any(np.array_equal(one[key], other[key]) for key in weights)


def test_each_pass_of_the_recurrent_model_starts_from_the_zero_state() -> None:
    model, workspace = models.build("z_lstm", classes=3, image=(1, 6)), nn.Workspace()
    x = np.random.default_rng(0).standard_normal((4, 1, 6, 1)).astype(np.float32)
    first = model.forward(x, workspace).copy()
    np.testing.assert_array_equal(model.forward(x, workspace), first)
    np.testing.assert_allclose(model.forward(x[:2], workspace), first[:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("z_cnn", (28, 30), r"divisible by 4 for z_cnn, got \(28, 30\); models that fit: z_cam, z_mlp, z_lstm"),
        ("z_cnn", (1, 64), "models that fit: z_mlp, z_lstm"),
        ("z_cam", (1, 64), "of at least 2 for z_cam"),
    ],
)
def test_an_image_that_a_model_cannot_take_is_refused_with_the_models_that_can(
    name: str, image: tuple[int, int], said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        models.build(name, classes=2, image=image)


def test_what_fits_can_be_built_and_run_and_nothing_else() -> None:
    for name in models.MODELS:
        for image in ((1, 64), (8, 8), (2, 3), (28, 28), (4, 1)):
            if models.misfit(name, image) is None:
                model = models.build(name, classes=2, image=image)
                assert model.forward(np.ones((2, *image, 1), np.float32)).shape == (2, 2)
            else:
                with pytest.raises(ArgumentError):
                    models.build(name, classes=2, image=image)


def test_grad_cam_looks_at_the_rectifier_behind_the_last_z_space_norm() -> None:
    targets = {name: models.cam_target(models.build(name, classes=2)) for name in models.MODELS}
    assert targets == {"z_cam": "relu3", "z_cnn": "relu2", "z_mlp": None, "z_lstm": "relu1"}
    assert [name for name in models.MODELS if models.has_heat_maps(name)] == ["z_cam", "z_cnn", "z_lstm"]


def test_there_is_nothing_to_map_without_such_a_rectifier() -> None:
    assert models.cam_target(nn.Sequential("s", [nn.ReLU("r")])) is None
    assert models.cam_target(nn.Sequential("s", [nn.ReLU("r"), nn.ZSpaceBatchNorm2d("z", 2)])) is None
    pooled: list[nn.Module] = [nn.GlobalAveragePool2d("g"), nn.ZSpaceLayerNorm("z", 2), nn.ReLU("r")]
    assert models.cam_target(nn.Sequential("s", pooled)) is None


@pytest.mark.parametrize(("name", "image"), [("z_mlp", (2, 3)), ("z_lstm", (1, 5)), ("z_lstm", (3, 4))])
@pytest.mark.parametrize("gain", [0.0, 0.6, 1.0])
def test_the_loss_of_a_whole_model_falls_as_its_gradients_say(
    monkeypatch: pytest.MonkeyPatch, name: str, image: tuple[int, int], gain: float
) -> None:
    """Central differences of the cross-entropy by every weight and every pixel, with few hidden units."""
    monkeypatch.setattr(models, "MLP_HIDDEN", 6)
    monkeypatch.setattr(models, "LSTM_HIDDEN", 5)
    draws = np.random.default_rng(3)
    model = models.build(
        name, classes=4, in_channels=2, image=image, curvature=-1.4, gain=gain, generator=draws, dtype=np.float64
    )
    for parameter in model.parameters():
        parameter.value += 0.2 * draws.standard_normal(parameter.value.shape)
    x, labels = draws.standard_normal((3, *image, 2)), draws.integers(0, 4, 3)
    workspace = nn.Workspace()

    def loss() -> float:
        logits = model.forward(x, workspace)
        return nn.softmax_cross_entropy(logits, labels, np.empty_like(logits))[0]

    grad = np.empty((3, 4))
    nn.softmax_cross_entropy(model.forward(x, workspace), labels, grad)
    grad_x = model.backward(x, grad, workspace).copy()
    pairs = [("x", grad_x, x)] + [(p.name, p.grad, p.value) for p in model.parameters()]
    for what, ours, array in pairs:
        expected = central_difference(loss, array)
        scale = max(1e-2, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * scale, err_msg=what)
