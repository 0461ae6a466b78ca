"""What commands do to a run: they are applied between two steps, all settings of one command or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spiral_core.engine.knobs import AUTO_GAIN, Knob, in_force, table
from spiral_core.engine.state import Phase, RunState
from spiral_core.wire import knobs as rules
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Change, Setting, Verb

_PHASES: dict[Verb, Phase] = {"pause": "paused", "resume": "training", "stop": "stopped"}


@dataclass(frozen=True)
class Outcome:
    """What became of a command; ``step`` is the first update computed under the new values."""

    state: Literal["applied", "rejected"]
    step: int
    changes: list[Change]
    reason: str = ""
    to_step: int | None = None
    """The step whose weights a rollback brought back."""


def apply(state: RunState, command: Command) -> Outcome:
    """Apply a command between two steps, wholly or not at all. Never raises for what a person may have asked."""
    knobs = table(state)
    step = state.step + 1
    if state.phase in ("finished", "stopped"):
        return Outcome("rejected", step, [], f"the run is {state.phase}")
    specs = {name: knob.spec(state) for name, knob in knobs.items()}
    reason = rules.command_refusal(specs, command.verb, command.sets) or _contradiction(state, command.sets)
    if reason is not None:
        return Outcome("rejected", step, [], reason)
    if command.verb == "set":
        changes = _set(state, knobs, command.sets, step)
    else:
        state.phase = _PHASES[command.verb]
        changes = []
    state.rev += 1
    return Outcome("applied", step, changes)


def _contradiction(state: RunState, sets: list[Setting]) -> str | None:
    """Tell why settings that are good each for itself cannot be in force together."""
    asked = {setting.knob: setting.value for setting in sets}
    gain = next((name for name in asked if name.startswith("zspace.") and name.endswith(".gain")), None)
    if gain is not None and asked.get(AUTO_GAIN, state.auto_gain) != 0:
        return f"{gain} cannot be set while auto-gain steers it; set {AUTO_GAIN} to 0 first, or in the same command"
    return None


def _set(state: RunState, knobs: dict[str, Knob], sets: list[Setting], step: int) -> list[Change]:
    """Write every setting; report the knobs asked for, and every other knob whose value moved with them."""
    before = in_force(state)
    for setting in sets:
        knob = knobs[setting.knob]
        knob.write(state, setting.value if knob.type == "choice" else float(setting.value))
    asked = {setting.knob for setting in sets}
    changes = []
    for name, knob in knobs.items():
        after = knob.read(state)
        if name in asked or after != before[name]:
            state.since[name] = step
            changes.append(Change(knob=name, old=before[name], in_force=after))
    return changes
