"""What guards look at: values that the update itself has computed, never telemetry, which a budget may leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spiral_core import nn
from spiral_core.engine.state import RunState
from spiral_core.engine.step import UpdateReport
from spiral_core.zspace import natural_radius, natural_saturation, root_curvature

RUN_VALUES = (
    "train.loss",
    "train.loss_over_chance",
    "train.accuracy",
    "optim.learning_rate",
    "optim.gradient_norm",
    "zspace.gain",
    "amp.scale",
)
"""Values of a run. ``loss_over_chance`` is the loss in units of ln(classes), that of a model that only guesses."""

LAYER_VALUES = (
    "radius_mean",
    "radius_rel_mean",
    "radius_ratio",
    "blended_mean",
    "jacobian_mean",
    "saturation",
    "saturation_excess",
    "curvature",
    "gain",
    "windup",
)
"""Values of each Z-space layer. Those without a curve of their own: ``radius_ratio`` is the relative radius over
that of a standard normal variable, ``saturation_excess`` the share beyond that variable's, and ``windup`` by how much
the radius misses the target of auto-gain while the gain stands at the end that it is pushed to, else 0."""

AT_END = 0.01
"""A gain so near to 0 or 1 is at its end: auto-gain goes a tenth of the way at each step and never quite arrives."""


def names(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the name of every value that a run with these Z-space layers can have."""
    return (*RUN_VALUES, *(f"zspace.{layer}.{value}" for layer in layers for value in LAYER_VALUES))


def step_values(state: RunState, report: UpdateReport) -> dict[str, float]:
    """Give the values of the update just done, by name; a function of state and report alone.

    Left out are ``amp.scale`` without a scaler, ``windup`` while auto-gain is off, and the gradient norm where it has
    overflowed under a scale that can still be lowered: the scaler mends that itself.
    """
    values = {
        "train.loss": report.loss,
        "train.loss_over_chance": report.loss / math.log(max(2, len(state.dataset.class_names))),
        "train.accuracy": report.accuracy,
        "optim.learning_rate": report.lr,
    }
    if report.scale is None:
        values["optim.gradient_norm"] = report.gradient_norm
    else:
        values["amp.scale"] = report.scale
        if math.isfinite(report.gradient_norm) or report.scale <= state.scaler.limits[0]:
            values["optim.gradient_norm"] = report.gradient_norm
    if state.z_layers:
        values["zspace.gain"] = report.gain
    for layer in state.z_layers:
        means = layer.pass_means(state.training)
        values |= layer_values(layer.name, means, report.adaptations.get(layer.name))
    return values


def layer_values(layer: str, means: nn.PassMeans, adaptation: nn.GainAdaptation | None) -> dict[str, float]:
    """Give the values of one layer from the means of its pass and from what auto-gain did to it."""
    s = root_curvature(means.curvature)
    values = {
        "radius_mean": means.radius_mean,
        "radius_rel_mean": means.radius_rel_mean,
        "radius_ratio": means.radius_rel_mean / natural_radius(s),
        "blended_mean": means.blended_mean,
        "jacobian_mean": means.jacobian_mean,
        "saturation": means.saturation,
        "saturation_excess": means.saturation - natural_saturation(s),
        "curvature": means.curvature,
        "gain": means.gain,
    }
    if adaptation is not None:
        pushed = (adaptation.gain <= AT_END and adaptation.error > 0) or (
            adaptation.gain >= 1 - AT_END and adaptation.error < 0
        )
        values["windup"] = abs(adaptation.error) if pushed else 0.0
    return {f"zspace.{layer}.{name}": value for name, value in values.items()}
