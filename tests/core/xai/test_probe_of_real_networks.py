"""The probe on the engine's own networks against the float64 twin, after a few steps of training."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.network_twin import explain, weighted_maps
from spiral_core import nn, optim
from spiral_core.arrays import AnyArray
from spiral_core.data import Batch, Purpose, derived_generator, open_dataset
from spiral_core.xai import CamResult, gradcam_probe

NETWORKS = (("z_cam", "needle"), ("z_cnn", "fashion"), ("z_lstm", "motif"), ("z_lstm", "digits"))


def trained(name: str, data_name: str) -> tuple[nn.Sequential, Batch]:
    """Twelve steps: enough for running statistics, gamma and beta to be no longer what they were at first."""
    dataset = open_dataset(data_name, seed=7, batch_size=32)
    generator = derived_generator(7, Purpose.INIT, 0)
    height, width, _ = dataset.image_shape
    model = nn.models.build(
        name,
        classes=len(dataset.class_names),
        image=(height, width),
        curvature=-0.7,
        gain=0.6,
        generator=generator,
    )
    optimizer, workspace = optim.Adam(model.parameters(), 3e-3), nn.Workspace(training=True)
    for index in range(12):
        batch = dataset.train_batch(index)
        logits = model.forward(batch.images, workspace)
        grad = np.empty_like(logits)
        nn.softmax_cross_entropy(logits, batch.labels, grad)
        optimizer.zero_grad()
        model.backward(batch.images, grad, workspace)
        optimizer.step()
    return model, dataset.probe(8)


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def probed(request: pytest.FixtureRequest) -> tuple[str, nn.Sequential, Batch, CamResult]:
    name, data_name = request.param
    model, batch = trained(name, data_name)
    return name, model, batch, probe(model, batch.images)


def probe(model: nn.Sequential, images: AnyArray) -> CamResult:
    workspace = nn.Workspace(training=False, accumulate=False)
    target = nn.models.cam_target(model)
    assert target is not None
    return gradcam_probe(model, images, workspace, target)


Probed = tuple[str, nn.Sequential, Batch, CamResult]


def test_maps_equal_those_of_the_slow_twin(probed: Probed) -> None:
    name, model, batch, result = probed
    twin = explain(name, model.state_dict(), batch.images)
    peak = np.abs(twin.maps).max(axis=(1, 2), keepdims=True)
    assert (peak > 0).all()
    assert (result.predicted == twin.predicted).all()
    assert (np.abs(result.maps - twin.maps) <= 1e-3 * peak).all()
    assert np.allclose(result.logit, twin.logits.max(axis=1), rtol=1e-4, atol=1e-5)


def test_maps_follow_from_the_activations_and_gradients_handed_out(probed: Probed) -> None:
    result = probed[3]
    again = weighted_maps(result.activations, result.gradients)
    assert (np.abs(result.maps - again) <= 1e-5 * np.abs(again).max(axis=(1, 2), keepdims=True)).all()


def test_a_map_does_not_depend_on_the_other_images_of_the_batch(probed: Probed) -> None:
    _, model, batch, result = probed
    alone = probe(model, batch.images[3:4].copy())
    assert np.allclose(alone.maps[0], result.maps[3], rtol=1e-4, atol=1e-6 * np.abs(result.maps[3]).max())


def test_a_probe_leaves_weights_gradients_and_statistics_as_they_are(probed: Probed) -> None:
    _, model, batch, _ = probed
    state, gradients = model.state_dict(), [parameter.grad.copy() for parameter in model.parameters()]
    probe(model, batch.images)
    assert all(np.array_equal(value, model.state_dict()[name]) for name, value in state.items())
    pairs = zip(gradients, model.parameters(), strict=True)
    assert all(np.array_equal(before, parameter.grad) for before, parameter in pairs)


def test_the_twin_gradient_is_the_slope_of_its_own_logit(probed: Probed) -> None:
    name, model, batch, _ = probed
    images, weights = batch.images[:1].astype(np.float64), model.state_dict()
    cam = explain(name, weights, images)
    logits = cam.logits[0, cam.predicted[0]]
    scaled = {key: value.astype(np.float64) for key, value in weights.items()}
    last = {"z_cam": "zbn3", "z_cnn": "zbn2", "z_lstm": "zln1"}[name]
    # Growing gamma and beta by a factor grows the activation after the ReLU by it: a direction known in closed form.
    step = 1e-6
    for part in ("gamma", "beta"):
        scaled[f"{last}.{part}"] = scaled[f"{last}.{part}"] * (1 + step)
    slope = (explain(name, scaled, images).logits[0, cam.predicted[0]] - logits) / step
    assert slope == pytest.approx((cam.activations * cam.gradients).sum(), rel=1e-4)
