"""The one rule for what a knob may be set to.

The server asks it at the door and the engine asks it again at the step boundary: same table, same answer, same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spiral_core.wire.messages import Asked, CommandRequest
from spiral_core.wire.parts import GUARD_VERBS, KnobSpec, Setting, Value


def number(value: float) -> str:
    """Write a number for a person: no exponent where a few digits do."""
    return f"{value:.12g}"


def refusal(spec: KnobSpec, value: Value) -> str | None:
    """Tell why ``value`` cannot be set on this knob; None when it can.

    Values are refused, never clamped: what a person asks for either holds or does not.
    """
    if spec.type == "choice":
        return None if value in spec.choices else f"{spec.name} takes one of {', '.join(spec.choices)}, not {value!r}"
    if spec.type == "bool":
        return None if isinstance(value, bool) else f"{spec.name} takes true or false, not {value!r}"
    if isinstance(value, (bool, str)):
        return f"{spec.name} takes a number {_bounds(spec)}, not {value!r}"
    if not math.isfinite(value):
        return f"{spec.name} takes a finite number {_bounds(spec)}, not {value}"
    if spec.type == "int" and value != int(value):
        return f"{spec.name} takes a whole number {_bounds(spec)}, not {number(value)}"
    if not spec.low <= value <= spec.high:
        return f"{spec.name} = {number(value)} is out of bounds: it takes a number {_bounds(spec)}"
    return None


def _bounds(spec: KnobSpec) -> str:
    return f"between {number(spec.low)} and {number(spec.high)}"


def command_refusal(knobs: Mapping[str, KnobSpec], asked: Asked | CommandRequest) -> str | None:
    """Tell why a command cannot be applied; None when it can. One bad setting refuses the whole command."""
    return _misshapen(asked) or (_refused_settings(knobs, asked.sets) if asked.verb == "set" else None)


def stale(expected: int | None, rev: int) -> str | None:
    """Tell why a command that expects another revision cannot be applied; None when it can."""
    if expected is None or expected == rev:
        return None
    return f"expected revision {expected}, but revision {rev} is in force: look at the values, then ask again"


def _misshapen(asked: Asked | CommandRequest) -> str | None:
    """Tell which fields do not go together, whatever the knobs are."""
    if asked.verb in GUARD_VERBS:
        return f"{asked.verb} is for the guards of a run; set guard.* to steer those"
    if asked.verb != "set":
        if asked.sets:
            return f"{asked.verb} takes no settings"
        if asked.supersede:
            return f"{asked.verb} supersedes nothing; leave supersede out"
    elif not asked.sets:
        return "set needs at least one knob and value"
    if asked.verb != "step" and asked.steps != 1:
        return f"{asked.verb} takes no number of steps; that belongs to the verb step"
    numbers = {"steps": (asked.steps, 1), "at_step": (asked.at_step, 0), "expected_rev": (asked.expected_rev, 0)}
    for name, (given, least) in numbers.items():
        if given is not None and given < least:
            return f"{name} takes a whole number from {least} on, not {given}"
    return None


def _refused_settings(knobs: Mapping[str, KnobSpec], sets: Sequence[Setting]) -> str | None:
    seen: set[str] = set()
    for setting in sets:
        if setting.knob not in knobs:
            return f"unknown knob {setting.knob!r}; this run has {', '.join(sorted(knobs)) or 'none yet'}"
        if setting.knob in seen:
            return f"{setting.knob} is set twice in one command"
        seen.add(setting.knob)
        reason = refusal(knobs[setting.knob], setting.value)
        if reason is not None:
            return reason
    return None


def unmet(knobs: Mapping[str, KnobSpec], sets: Sequence[Setting]) -> str | None:
    """Tell which setting needs another knob to hold something else; None when all needs are met.

    The engine alone can ask this: elsewhere, a value in force may be about to change.

    Parameters
    ----------
    knobs : mapping
        By name, with the values in force at the boundary.
    sets : sequence of Setting
        Each good for itself; what they ask for counts as in force.
    """
    asked = {setting.knob: setting.value for setting in sets}
    for setting in sets:
        for need in knobs[setting.knob].needs:
            holds = asked.get(need.knob, knobs[need.knob].value)
            if holds not in need.holds:
                said, wanted = _said(holds), " or ".join(_said(value) for value in need.holds)
                return (
                    f"{setting.knob} cannot be set while {need.knob} is {said}; set {need.knob} to {wanted} first, or "
                    "in the same command"
                )
    return None


def _said(value: Value | None) -> str:
    return number(value) if isinstance(value, (int, float)) else str(value)
