"""One update, one evaluation, one probe: what a run computes, as functions of its state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spiral_core import amp, nn, optim, xai
from spiral_core.arrays import Float
from spiral_core.data import Batch
from spiral_core.engine import controls
from spiral_core.engine.divergence import find
from spiral_core.engine.state import RunState
from spiral_core.errors import DivergedError, StateError
from spiral_core.telemetry.values import mean_gain


@dataclass(frozen=True)
class UpdateReport:
    """What one update computed.

    Parameters
    ----------
    step : int                 number of the update
    loss, accuracy : float     of the training batch
    lr : float                 the rate that it used
    gradient_norm : float      L2 norm of the gradients of all layers that are not frozen, before clipping
    gain : float               mean projector gain that it used; NaN without Z-space layers
    auto_gain : float          the radius that auto-gain steered to; 0 while it is off
    adaptations : mapping      what auto-gain did to each Z-space layer; empty while it is off
    divergence : DivergedError or None
        Where a value was not finite. The update was then skipped, and every weight is as it was.
    scale : float or None      what the loss was multiplied by; None in float32
    skipped : int              updates so far that the scaler has skipped, this one included
    """

    step: int
    loss: float
    accuracy: float
    lr: float
    gradient_norm: float
    gain: float
    auto_gain: float = 0.0
    adaptations: Mapping[str, nn.GainAdaptation] = field(default_factory=dict)
    divergence: DivergedError | None = None
    scale: float | None = None
    skipped: int = 0


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
    """Do the next update: batch, forward, auto-gain, backward, clipping, optimizer.

    A loss or gradient that is not finite is reported, not raised, and the update is skipped in every mode: the curve
    must show it, and a person who looks and acts finds the weights as they were before. Where the loss is scaled,
    gradients are divided before anything looks at them, and one that has overflowed is no divergence: the update is
    skipped, the scale is lowered, and the norm reported is not finite.
    """
    number = state.step + 1
    batch = state.batch = state.dataset.train_batch(state.step, state.batch)
    lr = state.rates.at(number)
    state.optimizer.set_rates(lr)
    gain = mean_gain([layer.projector_gain for layer in state.z_layers])
    scale = state.scaler.scale if state.scaled else None
    with _autocast(state):
        logits = state.model.forward(batch.images, state.training)
    adaptations = _adapt_gains(state)
    grad = state.training.array(state.model, "loss gradient", logits.shape, logits.dtype)
    loss, correct = nn.softmax_cross_entropy(logits, batch.labels, grad)
    gradient_norm = _backward(state, batch, grad)
    divergence = _step(state, batch, loss, gradient_norm)
    state.step = number
    controls.arrive(state)
    return UpdateReport(
        step=number,
        loss=loss,
        accuracy=correct / len(batch.labels),
        lr=lr,
        gradient_norm=gradient_norm,
        gain=gain,
        auto_gain=state.auto_gain,
        adaptations=adaptations,
        divergence=divergence,
        scale=scale,
        skipped=state.scaler.skipped if state.scaled else 0,
    )


def _autocast(state: RunState) -> amp.AutocastGuard:
    return amp.autocast(dtype=state.precision) if state.scaled else amp.autocast(enabled=False)


def _backward(state: RunState, batch: Batch, grad: Float) -> float:
    """Compute and clip every gradient; give their norm before clipping.

    Gradients of frozen layers are set to zero, so that they neither count in the norm nor take room from the others.
    """
    state.optimizer.zero_grad()
    if state.scaled:
        state.scaler.scale_gradient(grad)
    state.model.backward_in(batch.images, grad, state.training, input_grad=False)
    frozen = [p for layer in state.model.layers if layer.name in state.frozen for p in layer.parameters()]
    for parameter in frozen:
        parameter.grad.fill(0)
    state.optimizer.frozen = frozenset(parameter.name for parameter in frozen)
    if state.scaled:
        state.scaler.unscale(state.model)
    parameters = state.model.parameters()
    return optim.clip_gradient_norm(parameters, state.clip_norm) if state.clip_norm else optim.gradient_norm(parameters)


def _step(state: RunState, batch: Batch, loss: float, gradient_norm: float) -> DivergedError | None:
    """Step, or tell why not."""
    sound = math.isfinite(loss) and (state.scaled or math.isfinite(gradient_norm))
    divergence = None if sound else find(state, batch, state.step + 1)
    if state.scaled:
        if sound:
            state.scaler.step(state.optimizer, state.model)
        else:
            state.scaler.skip(state.optimizer, state.model)
    elif sound:
        state.optimizer.step()
    return divergence


def _adapt_gains(state: RunState) -> dict[str, nn.GainAdaptation]:
    """Let every Z-space layer move its gain, for the passes to come, by what the pass just done has shown."""
    if state.auto_gain == 0:
        return {}
    return {
        layer.name: layer.adapt_projector_gain(state.auto_gain, state.auto_gain_smoothing, workspace=state.training)
        for layer in state.z_layers
    }


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

    Raises
    ------
    StateError
        The model has nothing to map; the configuration then has ``xai_every`` 0, and there is no knob for it.
    """
    layer = state.xai_layer
    if layer is None:
        raise StateError(f"{state.model.name} has no feature maps for Grad-CAM; probe a model that has")
    cam = xai.gradcam_probe(state.model, state.probe.images, state.watching, layer)
    scores = None if state.probe.masks is None else xai.score_localization(cam.maps, state.probe.masks)
    return Probe(step=state.step, layer=layer, cam=cam, scores=scores)
