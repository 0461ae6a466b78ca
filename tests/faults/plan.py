"""What a schedule does, drawn in full from its number before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

EVENTS = 22
KILLED: tuple[tuple[str, ...], ...] = (
    ("engine",),
    ("engine", "courier"),
    ("courier",),
    ("courier",),
    ("server",),
    ("server",),
    ("server", "courier"),
    ("server", "engine"),
    ("server", "engine", "courier"),
)
MOST_ENGINES = 2
"""Engines that one schedule kills: each start takes some two seconds of a processor."""


@dataclass(frozen=True)
class Event:
    """One thing that happens, some time after the one before."""

    after: float
    """Seconds."""
    kind: str
    """``command``, ``line``, ``touch``, ``kill`` or ``network``."""
    what: Any


@dataclass(frozen=True)
class Plan:
    """A schedule."""

    seed: int
    train: tuple[str, ...]
    """Options of the engine when it begins the run."""
    circumstances: tuple[str, ...]
    """Options that are no inputs of the run: given again when it is resumed."""
    events: tuple[Event, ...]
    replayed: bool
    """Whether the run is replayed at the end."""


DIGITS = ("--data", "digits", "--batch-size", "8", "--rate", "400")
CNN = (
    "--data",
    "fashion",
    "--batch-size",
    "8",
    "--rate",
    "150",
    "--xai-every",
    "25",
    "--schedule",
    "constant",
    "--warmup-steps",
    "0",
)
COMMON = ("--evaluate-every", "200", "--warmup-steps", "0")
CIRCUMSTANCES = ("--checkpoint-every", "100", "--hash-every", "50", "--threads", "1")


def draw(seed: int) -> Plan:
    """Draw a schedule; the same number gives the same one."""
    chance = Random(seed)
    train = (CNN if seed % 4 == 0 else DIGITS) + COMMON
    kinds = ["kill"] * chance.choice((2, 3)) + ["network"] * chance.choice((0, 1, 2))
    kinds += chance.choices(("command", "line", "touch"), (20, 3, 1), k=EVENTS - len(kinds))
    chance.shuffle(kinds)
    engines = 0
    events: list[Event] = []
    for place, kind in enumerate(kinds):
        what = DRAWN[kind](chance, place)
        if kind == "kill" and "engine" in what["victims"]:
            engines += 1
            if engines > MOST_ENGINES:
                what = {**what, "victims": ["server", "courier"]}
        events.append(Event(chance.choice((0.0, 0.01, 0.03, 0.1, 0.2)), kind, what))
    return Plan(seed, train, CIRCUMSTANCES, tuple(events), seed % 5 == 0)


def _command(chance: Random, place: int) -> dict[str, Any]:
    """Draw a command for HTTP; what it may be relative to is looked up when it is sent."""
    verb = chance.choices(("set", "pause", "resume", "step", "checkpoint", "evaluate"), (12, 1, 2, 1, 1, 1))[0]
    body: dict[str, Any] = {"id": f"c{place}", "verb": verb}
    if verb == "set":
        body["sets"] = _sets(chance)
        body["supersede"] = chance.random() < 0.3
    if verb == "step":
        body["steps"] = chance.randint(1, 4)
    return {
        "body": body,
        "ahead": chance.choice((None, None, None, 5, 60, 400)),
        "expect": chance.choice((None, None, None, None, None, "newest", "stale")),
        "again": chance.choice((0, 0, 1, 2)),
    }


def _sets(chance: Random) -> list[dict[str, Any]]:
    lr = {"knob": "optim.lr", "value": round(10 ** chance.uniform(-4, -2), 6)}
    gain = {"knob": "zspace.gain", "value": round(chance.random(), 3)}
    return chance.choices(([lr], [gain], [lr, gain], [lr, {"knob": "zspace.gain", "value": 2.0}]), (5, 4, 2, 1))[0]


def _line(chance: Random, place: int) -> dict[str, Any]:
    """Draw a line of ``commands.jsonl``; one in five is garbage."""
    body = None if chance.random() < 0.2 else {"id": f"f{place}", "verb": "set", "sets": _sets(chance)}
    return {"body": body, "ahead": chance.choice((None, None, 40))}


def _touch(chance: Random, place: int) -> str:
    return "checkpoint"


def _kill(chance: Random, place: int) -> dict[str, Any]:
    return {"victims": list(chance.choice(KILLED)), "down": chance.choice((0.0, 0.0, 0.1, 0.4))}


def _network(chance: Random, place: int) -> dict[str, Any]:
    how = chance.choice(("cut", "stall", "throttle"))
    return {"how": how, "rate": chance.choice((4_000, 30_000)), "seconds": chance.choice((0.1, 0.3, 0.6))}


DRAWN: dict[str, Callable[[Random, int], Any]] = {
    "command": _command,
    "line": _line,
    "touch": _touch,
    "kill": _kill,
    "network": _network,
}
