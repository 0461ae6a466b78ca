"""What commands do to a run: they are applied between two steps, all settings of one command or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spiral_core.engine.knobs import Specs, table
from spiral_core.engine.knobs.row import Knob
from spiral_core.engine.queue import PHASES, Standing, superseded
from spiral_core.engine.state import RunState
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Change, KnobSpec, Setting


@dataclass(frozen=True)
class Outcome:
    """What became of a command; ``step`` is the first update computed under the new values."""

    state: Literal["applied", "rejected", "superseded"]
    step: int
    rev: int
    """In force from here on."""
    changes: list[Change]
    reason: str = ""
    to_step: int | None = None
    """The step whose weights a rollback brought back."""
    by: int | None = None
    """Number of the command that took the place of a superseded one."""
    instead_of: tuple[int, ...] = ()
    """Numbers of the commands whose place an applied one took."""


def settle(state: RunState, due: Sequence[Command]) -> Iterator[tuple[Command, Outcome]]:
    """Answer the commands of one boundary, in the order of their numbers.

    Each is applied when it is asked for here. One that gives way is told so once the other has been applied.
    """
    # One alone gives way to nobody, and the table of knobs takes a while to make.
    places = superseded(standing(state), due) if len(due) > 1 else {}
    for command in due:
        if command.number in places:
            continue
        gone = [other for other in due if places.get(other.number) == command.number]
        outcome = apply(state, command)
        yield command, replace(outcome, instead_of=tuple(other.number for other in gone))
        for other in gone:
            yield other, Outcome("superseded", outcome.step, outcome.rev, [], by=command.number)


def standing(state: RunState) -> Standing:
    """Tell how a run stands, as far as the answer to a command depends on it."""
    return _standing(state, dict(Specs(state, table(state))))


def _standing(state: RunState, knobs: Mapping[str, KnobSpec]) -> Standing:
    return Standing(phase=state.phase, step=state.step, rev=state.rev, knobs=knobs)


def apply(state: RunState, command: Command) -> Outcome:
    """Apply a command between two steps, wholly or not at all. Never raises for what a person may have asked."""
    step = state.step + 1
    knobs = table(state)
    reason = _standing(state, Specs(state, knobs)).refusal(command)
    if reason is not None:
        return Outcome("rejected", step, state.rev, [], reason)
    changes = _obey(state, command, knobs)
    state.rev += 1
    return Outcome("applied", step, state.rev, changes)


def _obey(state: RunState, command: Command, knobs: Mapping[str, Knob]) -> list[Change]:
    if command.verb == "set":
        return _set(state, command.sets, knobs)
    if command.verb == "checkpoint" or command.verb == "evaluate":
        state.wanted.add(command.verb)
    else:
        state.phase = PHASES[command.verb]
        state.pause_at = state.step + command.steps if command.verb == "step" else None
    return []


def arrive(state: RunState) -> None:
    """Enter the phase that the step just done leads to: the run is over, or the steps asked for are done."""
    if state.over:
        state.phase = "finished"
    elif state.pause_at is not None and state.step >= state.pause_at:
        state.phase = "paused"
        state.pause_at = None


def _set(state: RunState, sets: Sequence[Setting], knobs: Mapping[str, Knob]) -> list[Change]:
    """Write every setting, in the table's order; report the knobs asked for, and every other that moved with them."""
    asked = {setting.knob: setting.value for setting in sets}
    movable = [(name, knob) for name, knob in knobs.items() if not knob.alone or name in asked]
    before = [knob.read(state) for _, knob in movable]
    for name, knob in movable:
        if name in asked:
            knob.set(state, asked[name])
    changes = []
    for (name, knob), old in zip(movable, before, strict=True):
        after = knob.read(state)
        if name in asked or after != old:
            state.since[name] = state.step + 1
            changes.append(Change(knob=name, old=old, in_force=after))
    return changes
