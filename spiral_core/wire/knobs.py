"""The one rule for what a knob may be set to.

The server asks it at the door and the engine asks it again at the step boundary: same table, same answer, same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spiral_core.wire.parts import GUARD_VERBS, KnobSpec, Setting, Value, Verb


def number(value: float) -> str:
    """Write a number for a person: no exponent where a few digits do."""
    return f"{value:.12g}"


def refusal(spec: KnobSpec, value: Value) -> str | None:
    """Tell why ``value`` cannot be set on this knob; None when it can.

    Values are refused, never clamped: what a person asks for either holds or does not.
    """
    if spec.type == "choice":
        return None if value in spec.choices else f"{spec.name} takes one of {', '.join(spec.choices)}, not {value!r}"
    bounds = f"between {number(spec.low)} and {number(spec.high)}"
    if isinstance(value, (bool, str)):
        return f"{spec.name} takes a number {bounds}, not {value!r}"
    if not math.isfinite(value):
        return f"{spec.name} takes a finite number {bounds}, not {value}"
    if spec.type == "int" and value != int(value):
        return f"{spec.name} takes a whole number {bounds}, not {number(value)}"
    if not spec.low <= value <= spec.high:
        return f"{spec.name} = {number(value)} is out of bounds: it takes a number {bounds}"
    return None


def command_refusal(knobs: Mapping[str, KnobSpec], verb: Verb, sets: Sequence[Setting]) -> str | None:
    """Tell why a command cannot be applied; None when it can. One bad setting refuses the whole command."""
    if verb in GUARD_VERBS:
        return f"{verb} is for the guards of a run; set guard.* to steer those"
    if verb != "set":
        return f"{verb} takes no settings" if sets else None
    if not sets:
        return "set needs at least one knob and value"
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
