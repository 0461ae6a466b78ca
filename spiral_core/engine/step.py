"""One update, one evaluation, one probe: what a run computes, as functions of its state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spiral_core import nn, optim, xai
from spiral_core.data import Batch
from spiral_core.engine.state import RunState


@dataclass(frozen=True)
class UpdateReport:
    """What one update computed; ``lr`` is the rate that it used, and ``scale`` what its loss was multiplied by."""

    step: int
    loss: float
    accuracy: float
    lr: float
    gradient_norm: float
    scale: float | None = None
    """None in float32."""
    skipped: int = 0
    """Updates so far that an overflow has prevented, this one included."""


@dataclass(frozen=True)
class Evaluation:
    """A tally over held-out batches."""

    images: int = 0
    correct: int = 0
    loss_sum: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly; NaN before the first batch."""
        return self.correct / self.images if self.images else math.nan

    @property
    def loss(self) -> float:
        """Mean cross-entropy; NaN before the first batch."""
        return self.loss_sum / self.images if self.images else math.nan


@dataclass(frozen=True)
class Probe:
    """Grad-CAM of the probe batch with the weights after ``step``, and how well it points."""

    step: int
    layer: str
    cam: xai.CamResult
    scores: xai.LocalizationScores | None
    """How well the maps point; None where the data set has no masks."""


def update(state: RunState) -> UpdateReport:
    """Do the next update: batch, forward, backward, optimizer.

    A non-finite loss is reported, not raised: the curve must show it, and a person may want to look before acting.
    Where the loss is scaled, gradients are divided before anything looks at them, and an overflow skips the update; the
    norm reported is then not finite.
    """
    batch = state.dataset.train_batch(state.step)
    lr = state.optimizer.lr
    scaler = state.scaler
    scale = None if scaler is None else scaler.scale
    with state.autocast:
        logits = state.model.forward(batch.images, state.training)
    grad = np.empty_like(logits)
    loss, correct = nn.softmax_cross_entropy(logits, batch.labels, grad)
    state.optimizer.zero_grad()
    if scaler is not None:
        scaler.scale_gradient(grad)
    state.model.backward_in(batch.images, grad, state.training, input_grad=False)
    if scaler is not None:
        scaler.unscale(state.model)
    gradient_norm = optim.gradient_norm(state.model.parameters())
    if scaler is None:
        state.optimizer.step()
    else:
        scaler.step(state.optimizer, state.model)
    state.step += 1
    if state.config.steps and state.step >= state.config.steps:
        state.phase = "finished"
    return UpdateReport(
        step=state.step,
        loss=loss,
        accuracy=correct / len(batch.labels),
        lr=lr,
        gradient_norm=gradient_norm,
        scale=scale,
        skipped=0 if scaler is None else scaler.skipped,
    )


def evaluation_due(state: RunState) -> bool:
    """Tell whether the step just done is followed by an evaluation; the last step always is."""
    every = state.config.evaluate_every
    return every > 0 and (state.step % every == 0 or state.phase == "finished")


def evaluate_batch(state: RunState, batch: Batch, tally: Evaluation) -> Evaluation:
    """Add one held-out batch to a tally. Runs in eval mode and changes nothing in the state."""
    logits = state.model.forward(batch.images, state.watching)
    loss, correct = nn.softmax_cross_entropy(logits, batch.labels, np.empty_like(logits))
    return Evaluation(
        images=tally.images + len(batch.labels),
        correct=tally.correct + correct,
        loss_sum=tally.loss_sum + loss * len(batch.labels),
    )


def probe_due(state: RunState) -> bool:
    """Tell whether the step just done is followed by a Grad-CAM probe; the last step always is."""
    return state.xai_every > 0 and (state.step % state.xai_every == 0 or state.phase == "finished")


def probe(state: RunState) -> Probe:
    """Compute Grad-CAM of the predicted class for the probe batch. Changes nothing in the state.

    Where the data set knows the object's mask, the maps are scored as well (Selvaraju et al. 2017 for Grad-CAM, Zhang
    et al. 2018 for the pointing game).
    """
    layer = nn.models.cam_target(state.model)
    cam = xai.gradcam_probe(state.model, state.probe.images, state.watching, layer)
    scores = None if state.probe.masks is None else xai.score_localization(cam.maps, state.probe.masks)
    return Probe(step=state.step, layer=layer, cam=cam, scores=scores)
