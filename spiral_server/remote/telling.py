"""What has happened, in words for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from spiral_core.wire import knobs as rules
from spiral_core.wire.messages import CommandRecord
from spiral_core.wire.parts import KnobSpec, Value

_WORDS = {
    "pause": "paused before step {step}",
    "resume": "trains on from step {step}",
    "stop": "stopped before step {step}",
    "checkpoint": "checkpoint asked for after step {before}",
    "evaluate": "evaluation asked for after step {before}",
}
_LEAST_HELP = 30
"""Characters of a column of help; a narrower terminal has it wrapped."""


def value(given: Value | None) -> str:
    """Write a value in force."""
    if given is None:
        return "mixed"
    if isinstance(given, bool):
        return "true" if given else "false"
    return rules.number(given) if isinstance(given, (int, float)) else given


def outcome(record: CommandRecord) -> list[str]:
    """Tell what has become of a command, a line for each thing that has changed."""
    match record.state:
        case "applied":
            return _applied(record)
        case "rejected":
            return [f"refused: {record.reason}"]
        case "superseded":
            return [f"superseded by command {record.by}: that one was applied in its place"]
        case "expired":
            return [f"expired: {record.reason}"]
        case "accepted":
            when = "the next step" if record.at_step is None else f"step {record.at_step}"
            return [f"accepted as command {record.number}: waits for {when}"]


def _applied(record: CommandRecord) -> list[str]:
    step = record.step or 0
    if record.changes:
        return [
            f"{change.knob} {value(change.old)} -> {value(change.in_force)}, in force since step {step}"
            for change in record.changes
        ]
    if record.verb == "step":
        last = step + record.steps - 1
        return [f"runs step {step}, then pauses" if record.steps == 1 else f"runs steps {step} to {last}, then pauses"]
    return [_WORDS.get(record.verb, f"{record.verb} at step {{step}}").format(step=step, before=step - 1)]


def bounds(spec: KnobSpec) -> str:
    """Tell what a knob may hold."""
    if spec.type == "choice":
        return " | ".join(spec.choices)
    if spec.type == "bool":
        return "true | false"
    whole = ", whole" if spec.type == "int" else ""
    return f"{rules.number(spec.low)} to {rules.number(spec.high)}{f' {spec.unit}' if spec.unit else ''}{whole}"


def table(specs: Sequence[KnobSpec], width: int | None) -> str:
    """Draw the knobs with their values in force.

    Parameters
    ----------
    specs : sequence of KnobSpec
    width : int or None
        Columns of the terminal, for which help is wrapped; None keeps every knob on one line.
    """
    head = ("knob", "in force", "since step", "takes", "what it is")
    rows = [(one.name, value(one.value), str(one.since), bounds(one), one.help) for one in specs]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(4)]
    indent = sum(widths) + 2 * len(widths)
    room = None if width is None else max(width - indent, _LEAST_HELP)
    lines = []
    for row in [head, *rows]:
        first, *more = [row[4]] if room is None else textwrap.wrap(row[4], room) or [""]
        lines.append("  ".join([*(row[place].ljust(widths[place]) for place in range(4)), first]).rstrip())
        lines += [" " * indent + line for line in more]
    return "\n".join(lines)
