from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from spiral_core.arrays import F32
from spiral_core.errors import ArgumentError, ShapeError
from spiral_core.xai import gradcam_probe

WEIGHT = np.array([[2.0, -1.0, 0.5], [-1.0, 1.0, 0.5]], dtype=np.float32)


class AveragingNetwork:
    """Average over space, then a matrix; it reuses one buffer for all passes, as an engine does."""

    def __init__(self) -> None:
        self.buffer = np.zeros((3, 4, 4, 2), dtype=np.float32)

    def forward(self, x: F32, workspace: dict[str, F32]) -> F32:
        self.buffer[:] = x
        workspace.update(relu=self.buffer, pool=x.mean(axis=(1, 2)))
        return workspace["pool"] @ WEIGHT

    def outputs(self, workspace: dict[str, F32]) -> Mapping[str, F32]:
        return workspace

    def backward_to(self, layer_name: str, x: F32, grad_logits: F32, workspace: dict[str, F32]) -> F32:
        assert layer_name in workspace
        gradient = np.broadcast_to((grad_logits @ WEIGHT.T)[:, None, None] / 16, x.shape)
        # Overwrites what the forward pass left, which the probe must have copied by then.
        self.buffer[:] = gradient
        return self.buffer


@pytest.fixture
def images() -> F32:
    return np.random.default_rng(0).random((3, 4, 4, 2), dtype=np.float32)


def test_the_map_weighs_each_channel_by_its_say_in_the_predicted_class(images: F32) -> None:
    images[1, ..., 1] += 5
    result = gradcam_probe(AveragingNetwork(), images, {}, "relu")
    logits = images.mean(axis=(1, 2)).astype(np.float64) @ WEIGHT
    assert (result.predicted == logits.argmax(axis=1)).all()
    assert len(set(result.predicted)) > 1
    wanted = np.einsum("nhwk,kn->nhw", images.astype(np.float64), WEIGHT[:, result.predicted]) / 16
    assert np.allclose(result.maps, wanted, atol=1e-6)
    # Averaging and a matrix without bias: the places share the logit out among themselves.
    assert np.allclose(result.maps.sum(axis=(1, 2)), result.logit, atol=1e-5)


def test_the_numbers_beside_the_map_are_those_of_the_predicted_class(images: F32) -> None:
    result = gradcam_probe(AveragingNetwork(), images, {}, "relu")
    logits = images.mean(axis=(1, 2)).astype(np.float64) @ WEIGHT
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(result.logit, logits.max(axis=1), rtol=1e-6)
    assert np.allclose(result.probability, shares.max(axis=1), rtol=1e-6)
    assert (result.raw_min == result.maps.min(axis=(1, 2))).all()
    assert (result.raw_max == result.maps.max(axis=(1, 2))).all()
    dtypes = [values.dtype for values in (result.maps, result.logit, result.probability, result.predicted)]
    assert dtypes == [np.float32, np.float32, np.float32, np.int64]


def test_the_result_keeps_its_arrays_when_the_workspace_is_used_again(images: F32) -> None:
    network, workspace = AveragingNetwork(), {}
    result = gradcam_probe(network, images, workspace, "relu")
    gradients = result.gradients.copy()
    gradcam_probe(network, 1 - images, workspace, "relu")
    assert np.array_equal(result.activations, images)
    assert np.array_equal(result.gradients, gradients)


def test_a_network_that_has_diverged_gives_nan_and_no_error(images: F32) -> None:
    images[0] = np.nan
    result = gradcam_probe(AveragingNetwork(), images, {}, "relu")
    assert np.isnan(result.probability[0])
    assert np.isnan(result.raw_max[0])
    assert np.isfinite(result.maps[1:]).all()


def test_an_unknown_layer_is_refused_with_the_names_there_are(images: F32) -> None:
    with pytest.raises(ArgumentError, match="no layer 'relu9'; choose one of relu, pool"):
        gradcam_probe(AveragingNetwork(), images, {}, "relu9")


def test_a_layer_without_height_and_width_is_refused(images: F32) -> None:
    with pytest.raises(ShapeError, match="layer 'pool' gives"):
        gradcam_probe(AveragingNetwork(), images, {}, "pool")
