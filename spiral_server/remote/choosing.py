"""From the words of a person to a run and to settings; what is close is named where a word is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from spiral_core.wire.knobs import refusal
from spiral_core.wire.parts import FINAL_STATUSES, KnobSpec, RunSummary, Setting, Value
from spiral_server.remote.client import AskingError

SWITCH: Mapping[str, bool] = {
    "true": True,
    "on": True,
    "yes": True,
    "1": True,
    "false": False,
    "off": False,
    "no": False,
    "0": False,
}
NAMED = 3
"""Runs or knobs that are named as close ones."""


def choose_run(runs: Sequence[RunSummary], wanted: str | None) -> RunSummary:
    """Choose the run with an id, or the newest one that trains.

    Parameters
    ----------
    runs : sequence of RunSummary
        Newest first.
    wanted : str or None

    Raises
    ------
    AskingError
        There is none.
    """
    if wanted is not None:
        found = next((one for one in runs if one.id == wanted), None)
        if found is not None:
            return found
        names = [one.id for one in runs]
        close = get_close_matches(wanted, names, NAMED, 0.5) or names[:NAMED]
        raise AskingError(f"there is no run {wanted!r}; there is {_listed(close)}")
    trains = next((one for one in runs if one.status not in FINAL_STATUSES and one.status != "lost"), None)
    if trains is not None:
        return trains
    if not runs:
        raise AskingError("the server has no runs yet: start one with `spiral train --server URL`")
    newest = runs[0]
    raise AskingError(f"no run trains; the newest, {newest.id}, is {newest.status}: name a run if you mean that one")


def settings_of(words: Sequence[str], knobs: Mapping[str, KnobSpec]) -> list[Setting]:
    """Read ``KNOB=VALUE`` words.

    Bounds are left to the server, whose refusal is in the journal.

    Raises
    ------
    AskingError
        A word is none, the knob is not there, or its value is not of its kind.
    """
    return [_setting(word, knobs) for word in words]


def _setting(word: str, knobs: Mapping[str, KnobSpec]) -> Setting:
    name, sign, text = word.partition("=")
    if not sign or not name or not text:
        raise AskingError(f"{word!r} is not KNOB=VALUE, such as optim.lr=3e-4")
    spec = knobs.get(name)
    if spec is None:
        raise AskingError(f"there is no knob {name!r}; {_close_knobs(name, list(knobs))}")
    return Setting(knob=name, value=_value(spec, text))


def _close_knobs(name: str, known: Sequence[str]) -> str:
    ending = [one for one in known if one.endswith(f".{name}")]
    close = (ending + [one for one in get_close_matches(name, known, NAMED, 0.6) if one not in ending])[:NAMED]
    return f"did you mean {_listed(close, 'or')}?" if close else "`spiral knobs` lists those that there are"


def _value(spec: KnobSpec, text: str) -> Value:
    if spec.type == "choice":
        return text
    if spec.type == "bool":
        switch = SWITCH.get(text.lower())
        if switch is None:
            raise AskingError(f"{spec.name} takes true or false, not {text!r}")
        return switch
    try:
        number = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        raise AskingError(str(refusal(spec, text))) from None
    if number in (float("inf"), float("-inf")) or number != number:
        # JSON has no such number.
        raise AskingError(str(refusal(spec, number)))
    return int(number) if spec.type == "int" and number == int(number) else number


def _listed(names: Sequence[str], last: str = "and") -> str:
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
