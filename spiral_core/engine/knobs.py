"""The knobs: what a person may steer, stated once.

Sliders, bounds at the server's door, refusals, documentation and tests all come from this table. A knob reads and
writes the run's state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from spiral_core.engine.optimization import enter_mode
from spiral_core.engine.state import RunState
from spiral_core.optim import OptimizerMode
from spiral_core.wire.parts import KnobSpec, Value


@dataclass(frozen=True)
class Knob:
    """One row of the table: what a person reads, what is allowed, and where it acts."""

    name: str
    unit: str
    scale: Literal["linear", "log"]
    low: float
    high: float
    step: float
    group: str
    help: str
    read: Callable[[RunState], Value | None]
    write: Callable[[RunState, Any], None]
    """Takes a float, or one of the choices."""
    type: Literal["float", "int", "choice"] = "float"
    choices: tuple[str, ...] = ()

    def spec(self, state: RunState) -> KnobSpec:
        """Give the declaration with the value in force."""
        return KnobSpec(
            name=self.name,
            type=self.type,
            unit=self.unit,
            scale=self.scale,
            low=self.low,
            high=self.high,
            step=self.step,
            choices=list(self.choices),
            boundary="step",
            group=self.group,
            help=self.help,
            value=self.read(state),
            since=state.since.get(self.name, 1),
        )


AUTO_GAIN = "zspace.auto_gain"


def _read_gain(state: RunState) -> float | None:
    gains = {layer.projector_gain for layer in state.z_layers}
    return gains.pop() if len(gains) == 1 else None


def _write_gain(state: RunState, value: float) -> None:
    for layer in state.z_layers:
        layer.set_projector_gain(value)


def _write_lr(state: RunState, value: float) -> None:
    state.rates.steer(state.step + 1, value)


def _write_mode(state: RunState, value: str) -> None:
    enter_mode(state.optimizer, state.model, value, state.config.curvature)


def _write_momentum(state: RunState, value: float) -> None:
    state.optimizer.momentum = value


def _write_weight_decay(state: RunState, value: float) -> None:
    state.optimizer.weight_decay = value


def _write_clip_norm(state: RunState, value: float) -> None:
    state.clip_norm = value


def _read_curvature(state: RunState) -> float | None:
    curvatures = {layer.curvature for layer in state.z_layers}
    return curvatures.pop() if len(curvatures) == 1 else None


def _write_curvature(state: RunState, value: float) -> None:
    for layer in state.z_layers:
        layer.set_curvature(value)


def _write_auto_gain(state: RunState, value: float) -> None:
    state.auto_gain = value


def _write_telemetry_budget(state: RunState, value: float) -> None:
    state.telemetry_budget = value


def _write_xai_every(state: RunState, value: float) -> None:
    state.xai_every = int(value)


def _write_rate(state: RunState, value: float) -> None:
    state.rate = value


_GAIN_HELP = "0 is Euclidean, 1 fully hyperbolic; the projector's Jacobian never falls below 1 - gain."

_FIXED = (
    Knob(
        name="optim.lr",
        unit="",
        scale="log",
        low=1e-6,
        high=1000.0,
        step=1.1,
        group="optimizer",
        help=(
            "Learning rate that the next update uses, in the mode in force. While a schedule is on, it goes on from "
            "the rate that was set, in proportion."
        ),
        read=lambda state: state.rates.at(state.step + 1),
        write=_write_lr,
    ),
    Knob(
        name="optim.mode",
        unit="",
        scale="linear",
        low=0,
        high=len(OptimizerMode.NAMES) - 1,
        step=1,
        group="optimizer",
        help=(
            "Geometry of the steps; momentum starts from rest. Entering riemannian maps the weights into the ball of "
            "the curvature that the run started with; hypergrad pulls them in at each step."
        ),
        read=lambda state: state.optimizer.mode.name,
        write=_write_mode,
        type="choice",
        choices=OptimizerMode.NAMES,
    ),
    Knob(
        name="optim.weight_decay",
        unit="",
        scale="log",
        low=0.0,
        high=1.0,
        step=1.1,
        group="optimizer",
        help="L2 penalty that is added to the gradient of weights; norms and biases do not decay.",
        read=lambda state: state.optimizer.weight_decay,
        write=_write_weight_decay,
    ),
    Knob(
        name="optim.clip_norm",
        unit="",
        scale="log",
        low=0.0,
        high=1000.0,
        step=1.1,
        group="optimizer",
        help="Largest norm that all gradients together may have; 0 turns clipping off.",
        read=lambda state: state.clip_norm,
        write=_write_clip_norm,
    ),
    Knob(
        name="zspace.gain",
        unit="",
        scale="linear",
        low=0.0,
        high=1.0,
        step=0.01,
        group="zspace",
        help=f"Projector gain of every Z-space layer. {_GAIN_HELP}",
        read=_read_gain,
        write=_write_gain,
    ),
    Knob(
        name=AUTO_GAIN,
        unit="",
        scale="linear",
        low=0.0,
        high=1.0,
        step=0.01,
        group="zspace",
        help=(
            "Mean blended radius that every Z-space layer steers its own gain to; 0 turns it off. While it is on, "
            "gains cannot be set."
        ),
        read=lambda state: state.auto_gain,
        write=_write_auto_gain,
    ),
    Knob(
        name="zspace.curvature",
        unit="",
        scale="log",
        low=-100.0,
        high=-0.01,
        step=1.1,
        group="zspace",
        help="Curvature of every Z-space layer; the ball has the radius 1/sqrt(-curvature).",
        read=_read_curvature,
        write=_write_curvature,
    ),
    Knob(
        name="xai.every",
        unit="steps",
        scale="linear",
        low=0,
        high=1000,
        step=1,
        group="xai",
        help="Steps between Grad-CAM probes; 0 turns them off.",
        read=lambda state: state.xai_every,
        write=_write_xai_every,
        type="int",
    ),
    Knob(
        name="run.rate",
        unit="steps/s",
        scale="linear",
        low=0.0,
        high=1000.0,
        step=1.0,
        group="run",
        help="Most steps per second; 0 means no limit. Does not change the numbers of the run.",
        read=lambda state: state.rate,
        write=_write_rate,
    ),
    Knob(
        name="telemetry.budget",
        unit="%",
        scale="linear",
        low=0.0,
        high=100.0,
        step=0.5,
        group="telemetry",
        help=(
            "Share of a step's time that observing the Z-space layers may take; 0 turns it off, 100 observes every "
            "step. Does not change the numbers of the run."
        ),
        read=lambda state: state.telemetry_budget,
        write=_write_telemetry_budget,
    ),
)

_MOMENTUM = Knob(
    name="optim.momentum",
    unit="",
    scale="linear",
    low=0.0,
    high=0.999,
    step=0.01,
    group="optimizer",
    help="Share of the last step's direction that the next one keeps.",
    read=lambda state: state.optimizer.momentum,
    write=_write_momentum,
)


def _layer_knob(position: int, layer: str) -> Knob:
    return Knob(
        name=f"zspace.{layer}.gain",
        unit="",
        scale="linear",
        low=0.0,
        high=1.0,
        step=0.01,
        group="zspace",
        help=f"Projector gain of {layer} alone. {_GAIN_HELP}",
        read=lambda state: state.z_layers[position].projector_gain,
        write=lambda state, value: state.z_layers[position].set_projector_gain(value),
    )


def table(state: RunState) -> dict[str, Knob]:
    """Give the knobs of this run by name: the fixed ones that mean something, and one gain for each Z-space layer."""
    fixed = [knob for knob in _FIXED if knob.group != "xai" or state.cam_layer is not None]
    momentum = [_MOMENTUM] if state.config.optimizer == "sgd" else []
    layers = [_layer_knob(position, layer.name) for position, layer in enumerate(state.z_layers)]
    return {knob.name: knob for knob in (*fixed, *momentum, *layers)}


def declare(state: RunState) -> list[KnobSpec]:
    """Declare every knob with its value in force."""
    return [knob.spec(state) for knob in table(state).values()]


def in_force(state: RunState) -> dict[str, Value | None]:
    """Give the values in force by knob; None where the parts that a knob drives differ."""
    return {name: knob.read(state) for name, knob in table(state).items()}
