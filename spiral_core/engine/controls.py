"""What commands do to a run: they are applied between two steps, all settings of one command or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spiral_core.engine.knobs import Knob, contradiction, in_force, table
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
    reason = (
        rules.command_refusal(specs, command.verb, command.sets)
        or rules.unmet(specs, command.sets)
        or contradiction(state, {setting.knob: setting.value for setting in command.sets})
    )
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
    """Write every setting, in the table's order; report the knobs asked for, and every other that moved with them."""
    before = in_force(state)
    asked = {setting.knob: setting.value for setting in sets}
    for name, knob in knobs.items():
        if name in asked:
            knob.set(state, asked[name])
    changes = []
    for name, knob in knobs.items():
        after = knob.read(state)
        if name in asked or after != before[name]:
            state.since[name] = step
            changes.append(Change(knob=name, old=before[name], in_force=after))
    return changes
