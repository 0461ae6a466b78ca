"""The commands that wait for their boundary, and what becomes of several that meet at one.

Rules, stated without a run that trains: `controls` applies what these let through.

Rule 1: a number is taken once, whatever is sent again.
Rule 2: a command is due at the first boundary whose update is not before its ``at_step``; those that are due together
are answered in the order of their numbers: those of the journal as they count up, then those that the engine has
numbered itself, which count down from -1.
Rule 3: a set gives way to a later superseding one that sets all of its knobs again at the same boundary, if that one
is going to be applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from spiral_core.engine.knobs import contradiction
from spiral_core.engine.state import Phase
from spiral_core.wire import knobs as rules
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import KnobSpec, Verb

STEPS = "run.steps"

PHASES: Mapping[Verb, Phase] = {"pause": "paused", "resume": "training", "step": "training", "stop": "stopped"}
"""What a verb makes of the run at once."""


@dataclass(frozen=True)
class Standing:
    """How a run stands at a boundary, as far as the answer to a command depends on it."""

    phase: Phase
    step: int
    """Updates done."""
    rev: int
    knobs: Mapping[str, KnobSpec]
    """With the values in force."""

    def refusal(self, command: Command) -> str | None:
        """Tell why a command cannot be applied here; None when it can."""
        if self.phase in ("finished", "stopped"):
            return f"the run is {self.phase}"
        return (
            rules.command_refusal(self.knobs, command)
            or rules.stale(command.expected_rev, self.rev)
            or rules.unmet(self.knobs, command.sets)
            or contradiction(self.knobs, {setting.knob: setting.value for setting in command.sets})
        )

    def after(self, command: Command) -> Standing:
        """Give the standing once a command has been applied."""
        knobs = dict(self.knobs)
        for setting in command.sets:
            knobs[setting.knob] = msgspec.structs.replace(knobs[setting.knob], value=setting.value)
        phase = PHASES.get(command.verb, self.phase)
        steps = knobs[STEPS].value if STEPS in knobs else 0
        if isinstance(steps, (int, float)) and 0 < steps <= self.step:
            phase = "finished"
        return Standing(phase=phase, step=self.step, rev=self.rev + 1, knobs=knobs)


class CommandQueue:
    """Commands that have arrived and are not answered yet.

    Parameters
    ----------
    answered : iterable of int
        Numbers that were answered before, such as by an earlier incarnation of the run.
    """

    def __init__(self, answered: Iterable[int] = ()) -> None:
        self._taken = set(answered)
        self._held: dict[int, Command] = {}

    def add(self, command: Command) -> bool:
        """Take a command in; False when its number was taken before."""
        if command.number in self._taken:
            return False
        self._taken.add(command.number)
        self._held[command.number] = command
        return True

    def due(self, update: int) -> list[Command]:
        """Take out what is to be answered at the boundary before this update, by number."""
        due = (number for number, command in self._held.items() if command.at_step is None or command.at_step <= update)
        return [self._held.pop(number) for number in sorted(due, key=_turn)]

    @property
    def held(self) -> list[Command]:
        """Those that wait, in the order of their turn."""
        return sorted(self._held.values(), key=lambda command: (command.at_step or 0, *_turn(command.number)))


def _turn(number: int) -> tuple[bool, int]:
    return number < 0, abs(number)


def superseded(standing: Standing, due: Sequence[Command]) -> dict[int, int]:
    """Tell which commands of a boundary give way, and to which.

    Parameters
    ----------
    standing : Standing
        Before the first of them.
    due : sequence of Command
        In the order of their numbers.

    Returns
    -------
    dict
        Number of the command that is not applied, to the number of the one that takes its place.
    """
    covering = _covering(due)
    gone = set(covering)
    while gone:
        # Whether a later one will be applied depends on which earlier ones are not.
        applied = _applied(standing, due, gone)
        places = {number: next((n for n in covering[number] if n in applied), None) for number in gone}
        found = {number: by for number, by in places.items() if by is not None}
        if len(found) == len(gone):
            return found
        gone = set(found)
    return {}


def _covering(due: Sequence[Command]) -> dict[int, list[int]]:
    """Give for each set the later superseding ones that set every knob of it again, if there are any."""
    knobs = {command.number: {setting.knob for setting in command.sets} for command in due if command.verb == "set"}
    later: list[Command] = []
    covering: dict[int, list[int]] = {}
    for command in reversed(due):
        if command.verb != "set":
            continue
        over = [other.number for other in reversed(later) if knobs[command.number] <= knobs[other.number]]
        if over:
            covering[command.number] = over
        if command.supersede:
            later.append(command)
    return covering


def _applied(standing: Standing, due: Sequence[Command], gone: set[int]) -> set[int]:
    """Give the numbers that are applied when those in ``gone`` are passed over."""
    applied: set[int] = set()
    for command in due:
        if command.number not in gone and standing.refusal(command) is None:
            applied.add(command.number)
            standing = standing.after(command)
    return applied
