"""The curves of a run: declared once, then referred to by index."""

from __future__ import annotations

from collections.abc import Sequence

from spiral_core.wire.parts import SeriesSpec

_RUN: tuple[tuple[str, str, str, str, str], ...] = (
    # name, unit, group, scale, help
    ("train/loss", "nats", "loss", "linear", "Mean cross-entropy of the training batch."),
    ("train/accuracy", "", "accuracy", "linear", "Share of the training batch classified rightly."),
    ("val/loss", "nats", "loss", "linear", "Mean cross-entropy of the held-out images."),
    ("val/accuracy", "", "accuracy", "linear", "Share of the held-out images classified rightly."),
    ("optim/learning_rate", "", "learning_rate", "log", "Learning rate that this update used."),
    ("optim/gradient_norm", "", "gradient_norm", "log", "L2 norm of all parameter gradients, before the update."),
    ("zspace/gain", "", "learning_rate", "linear", "Projector gain, mean over the Z-space layers."),
    ("perf/step_ms", "ms", "throughput", "linear", "Time of the update itself."),
    ("perf/steps_per_second", "1/s", "throughput", "linear", "Steps per second over the last second."),
    ("perf/time", "s", "clock", "linear", "Wall time at the end of the step, seconds since 1970."),
)

_AMP: tuple[tuple[str, str, str, str, str], ...] = (
    ("amp/scale", "", "amp_scale", "log", "What this update multiplied its loss by; in float16 and bfloat16 only."),
    ("amp/skipped", "", "amp_skipped", "linear", "Updates so far that an overflow has prevented."),
)

_XAI: tuple[tuple[str, str, str, str, str], ...] = (
    ("xai/probability_mean", "", "probability", "linear", "Mean probability of the predicted class, probe batch."),
)

_XAI_MASKED: tuple[tuple[str, str, str, str, str], ...] = (
    ("xai/pointing", "", "pointing", "linear", "Share of probe images whose map peaks on the object."),
    ("xai/energy_over_area", "", "pointing", "linear", "Map mass on the object over the object's share of the area."),
)

_LAYER: tuple[tuple[str, str, str, str, str], ...] = (
    ("radius_mean", "", "radius_raw", "linear", "Ball radius r = |tanh(s n)|/s, mean over the batch."),
    ("radius_p05", "", "radius_raw", "linear", "Ball radius, 5th percentile."),
    ("radius_p50", "", "radius_raw", "linear", "Ball radius, median."),
    ("radius_p95", "", "radius_raw", "linear", "Ball radius, 95th percentile."),
    ("radius_rel_mean", "", "radius", "linear", "Relative radius s r in [0, 1), mean."),
    ("radius_rel_p05", "", "radius", "linear", "Relative radius, 5th percentile."),
    ("radius_rel_p50", "", "radius", "linear", "Relative radius, median."),
    ("radius_rel_p95", "", "radius", "linear", "Relative radius, 95th percentile."),
    ("blended_mean", "", "blended", "linear", "Blended radius: mean |p| after the projector."),
    ("jacobian_mean", "", "jacobian", "linear", "Projector's Jacobian J = dp/dn, mean."),
    ("jacobian_p05", "", "jacobian", "linear", "Projector's Jacobian, 5th percentile; never below 1 - gain."),
    ("saturation", "", "saturation", "linear", "Share of activations with relative radius above 0.99."),
    ("conformal_mean", "", "conformal", "log", "Conformal factor 2/(1 - (s r)^2) at the mean radius."),
    ("curvature", "", "curvature", "linear", "Curvature in force."),
    ("gain", "", "gain", "linear", "Projector gain in force."),
)


def declare(layers: Sequence[str], *, mapped: bool, masked: bool) -> list[SeriesSpec]:
    """Declare the curves of a run.

    Parameters
    ----------
    layers : sequence of str
        Names of the Z-space layers, in order.
    mapped : bool
        Whether the model has feature maps for Grad-CAM; without them the run has no series ``xai/...``.
    masked : bool
        Whether the probe batch comes with object masks, so that heat maps can be scored.
    """
    maps = [*(_XAI if mapped else ()), *(_XAI_MASKED if mapped and masked else ())]
    rows = [*_RUN, *_AMP, *maps]
    rows += [
        (f"zspace/{layer}/{name}", unit, group, scale, help_)
        for layer in layers
        for name, unit, group, scale, help_ in _LAYER
    ]
    return [
        SeriesSpec(
            index=index, name=name, unit=unit, group=group, scale="log" if scale == "log" else "linear", help=help_
        )
        for index, (name, unit, group, scale, help_) in enumerate(rows)
    ]
