"""Knobs of the Z-space layers: gain and curvature, of all and of each, and the gains that steer themselves."""

from __future__ import annotations

from spiral_core.engine.knobs.row import Knob
from spiral_core.engine.state import RunState
from spiral_core.nn import ZSpaceNorm
from spiral_core.wire.parts import Need

AUTO_GAIN = "zspace.auto_gain"

_GAIN_HELP = "0 is Euclidean, 1 fully hyperbolic; the projector's Jacobian never falls below 1 - gain."
_BALL_HELP = "the ball has the radius 1/sqrt(-curvature)."
_BY_HAND = (Need(knob=AUTO_GAIN, holds=[0]),)


def _shared(values: set[float]) -> float | None:
    return values.pop() if len(values) == 1 else None


def _write_gain(state: RunState, value: float) -> None:
    for layer in state.z_layers:
        layer.set_projector_gain(value)


def _write_curvature(state: RunState, value: float) -> None:
    for layer in state.z_layers:
        layer.set_curvature(value)


def _write_auto_gain(state: RunState, value: float) -> None:
    state.auto_gain = value


def _write_smoothing(state: RunState, value: float) -> None:
    state.auto_gain_smoothing = value


_ALL = (
    Knob(
        name="zspace.gain",
        group="zspace",
        help=f"Projector gain of every Z-space layer. {_GAIN_HELP}",
        read=lambda state: _shared({layer.projector_gain for layer in state.z_layers}),
        write=_write_gain,
        needs=_BY_HAND,
    ),
    Knob(
        name=AUTO_GAIN,
        group="zspace",
        help=(
            "Mean blended radius that every Z-space layer steers its own gain to; 0 turns it off. While it is on, "
            "gains cannot be set."
        ),
        read=lambda state: state.auto_gain,
        write=_write_auto_gain,
    ),
    Knob(
        name="zspace.auto_gain.smoothing",
        scale="log",
        low=0.001,
        step=1.1,
        group="zspace",
        help="Share of the way to the right gain that auto-gain goes at each step; 1 follows every single batch.",
        read=lambda state: state.auto_gain_smoothing,
        write=_write_smoothing,
    ),
    Knob(
        name="zspace.curvature",
        scale="log",
        low=-100.0,
        high=-0.01,
        step=1.1,
        group="zspace",
        help=f"Curvature of every Z-space layer; {_BALL_HELP}",
        read=lambda state: _shared({layer.curvature for layer in state.z_layers}),
        write=_write_curvature,
    ),
)


def _of_layer(position: int, layer: ZSpaceNorm) -> list[Knob]:
    return [
        Knob(
            name=f"zspace.{layer.name}.gain",
            group="layers",
            help=f"Projector gain of {layer.name} alone. {_GAIN_HELP}",
            read=lambda state: state.z_layers[position].projector_gain,
            write=lambda state, value: state.z_layers[position].set_projector_gain(value),
            needs=_BY_HAND,
        ),
        Knob(
            name=f"zspace.{layer.name}.curvature",
            scale="log",
            low=-100.0,
            high=-0.01,
            step=1.1,
            group="layers",
            help=f"Curvature of {layer.name} alone; {_BALL_HELP}",
            read=lambda state: state.z_layers[position].curvature,
            write=lambda state, value: state.z_layers[position].set_curvature(value),
        ),
    ]


def knobs(state: RunState) -> list[Knob]:
    """Return the rows of this run: those of all layers, then those of each."""
    return [*_ALL, *(knob for position, layer in enumerate(state.z_layers) for knob in _of_layer(position, layer))]
