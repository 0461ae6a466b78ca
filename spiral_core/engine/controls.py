"""The knobs: what a person may steer, stated once.

Sliders, bounds at the server's door, refusals, documentation and tests all come from this table. A knob reads and
writes the run's state; commands are applied between two steps, all settings of one command or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from spiral_core.engine.state import Phase, RunState
from spiral_core.wire import knobs as rules
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Change, KnobSpec, Setting, Value, Verb


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
    write: Callable[[RunState, float], None]
    type: Literal["float", "int"] = "float"

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
            boundary="step",
            group=self.group,
            help=self.help,
            value=self.read(state),
            since=state.since.get(self.name, 1),
        )


_PHASES: dict[Verb, Phase] = {"pause": "paused", "resume": "training", "stop": "stopped"}


@dataclass(frozen=True)
class Outcome:
    """What became of a command; ``step`` is the first update computed under the new values."""

    state: Literal["applied", "rejected"]
    step: int
    changes: list[Change]
    reason: str = ""


def _read_gain(state: RunState) -> float | None:
    gains = {layer.projector_gain for layer in state.z_layers}
    return gains.pop() if len(gains) == 1 else None


def _write_gain(state: RunState, value: float) -> None:
    for layer in state.z_layers:
        layer.set_projector_gain(value)


def _write_lr(state: RunState, value: float) -> None:
    state.optimizer.lr = value


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
        high=10.0,
        step=1.1,
        group="optimizer",
        help="Learning rate that the next update uses.",
        read=lambda state: state.optimizer.lr,
        write=_write_lr,
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
    layers = [_layer_knob(position, layer.name) for position, layer in enumerate(state.z_layers)]
    return {knob.name: knob for knob in (*fixed, *layers)}


def declare(state: RunState) -> list[KnobSpec]:
    """Declare every knob with its value in force."""
    return [knob.spec(state) for knob in table(state).values()]


def apply(state: RunState, command: Command) -> Outcome:
    """Apply a command between two steps, wholly or not at all. Never raises for what a person may have asked."""
    knobs = table(state)
    step = state.step + 1
    if state.phase in ("finished", "stopped"):
        return Outcome("rejected", step, [], f"the run is {state.phase}")
    specs = {name: knob.spec(state) for name, knob in knobs.items()}
    reason = rules.command_refusal(specs, command.verb, command.sets)
    if reason is not None:
        return Outcome("rejected", step, [], reason)
    if command.verb == "set":
        changes = _set(state, knobs, command.sets, step)
    else:
        state.phase = _PHASES[command.verb]
        changes = []
    state.rev += 1
    return Outcome("applied", step, changes)


def _set(state: RunState, knobs: dict[str, Knob], sets: list[Setting], step: int) -> list[Change]:
    """Write every setting; report the knobs asked for, and every other knob whose value moved with them."""
    before = {name: knob.read(state) for name, knob in knobs.items()}
    for setting in sets:
        knobs[setting.knob].write(state, float(setting.value))
    asked = {setting.knob for setting in sets}
    changes = []
    for name, knob in knobs.items():
        after = knob.read(state)
        if name in asked or after != before[name]:
            state.since[name] = step
            changes.append(Change(knob=name, old=before[name], in_force=after))
    return changes
