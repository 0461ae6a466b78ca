"""Grad-CAM of a network on a few images, with the numbers that say how much a map means.

The probe runs the network in a workspace of its own, so that training does not notice: give it one made with
``training=False, accumulate=False``. It explains the logit of the predicted class. A logit, because a probability
couples the classes and its gradient vanishes when the network is sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from spiral_core.arrays import F32, F64, I64, Float
from spiral_core.errors import ArgumentError, ShapeError
from spiral_core.xai.gradcam import GradCam

WorkspaceT = TypeVar("WorkspaceT", contravariant=True)


class Explainable(Protocol[WorkspaceT]):
    """What the probe asks of a network."""

    def forward(self, x: Float, workspace: WorkspaceT) -> Float:
        """Return the logits (N, classes) and leave every layer's output in the workspace."""

    def outputs(self, workspace: WorkspaceT) -> Mapping[str, Float]:
        """Return the outputs of the last forward pass by layer name."""

    def backward_to(self, layer_name: str, x: Float, grad_logits: Float, workspace: WorkspaceT) -> Float:
        """Return the gradient with respect to the output of a layer."""


@dataclass(frozen=True, slots=True, eq=False)
class CamResult:
    """Grad-CAM of N images.

    Parameters
    ----------
    maps : (N, h, w) float32
        Signed raw maps before any ReLU, in units of the logit per place.
    raw_min, raw_max : (N,) float32
        Range of each map. A normalized picture of an untrained network is as bright as one of a trained network;
        these two tell them apart. ``raw_max <= 0`` means that nothing speaks for the class.
    logit, probability : (N,) float32
        Of the predicted class.
    predicted : (N,) int64
        Class with the highest logit.
    activations, gradients : (N, h, w, K)
        Copies of what the maps were computed from.
    """

    maps: F32
    raw_min: F32
    raw_max: F32
    logit: F32
    probability: F32
    predicted: I64
    activations: Float
    gradients: Float


def gradcam_probe(model: Explainable[WorkspaceT], images: Float, workspace: WorkspaceT, target_layer: str) -> CamResult:
    """Explain the predicted class of each image at one layer.

    Parameters
    ----------
    model : Explainable
        Its parameters, parameter gradients and running statistics stay as they are when the workspace says so.
    images : (N, H, W, C)
        N >= 1.
    workspace : Workspace
        Of this probe alone; in evaluation mode, not accumulating.
    target_layer : str
        A layer with output (N, h, w, K): the last activation before the pooling shows most.

    Returns
    -------
    CamResult
        Owns its arrays. Values that are not finite travel as they are.

    Raises
    ------
    ArgumentError
        When the network has no such layer.
    ShapeError
        When the layer's output has no height and width.
    """
    logits = model.forward(images, workspace)
    outputs = model.outputs(workspace)
    if target_layer not in outputs:
        raise ArgumentError(f"the network has no layer {target_layer!r}; choose one of {', '.join(outputs)}")
    if outputs[target_layer].ndim != 4:
        raise ShapeError(f"layer {target_layer!r} gives {outputs[target_layer].shape}; choose one with (N, h, w, K)")
    activations = outputs[target_layer].copy()
    every = np.arange(len(logits))
    predicted = logits.argmax(axis=1).astype(np.int64)
    logit = logits[every, predicted].astype(np.float32)
    probability = _softmax(logits)[every, predicted].astype(np.float32)
    score_gradient = np.zeros_like(logits)
    score_gradient[every, predicted] = 1
    gradients = model.backward_to(target_layer, images, score_gradient, workspace).copy()
    maps = GradCam.attribute_batch(activations, gradients)
    return CamResult(
        maps=maps,
        raw_min=maps.min(axis=(1, 2)),
        raw_max=maps.max(axis=(1, 2)),
        logit=logit,
        probability=probability,
        predicted=predicted,
        activations=activations,
        gradients=gradients,
    )


def _softmax(logits: Float) -> F64:
    values = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        values = np.exp(values - values.max(axis=1, keepdims=True))
        shares: F64 = values / values.sum(axis=1, keepdims=True)
    return shares
