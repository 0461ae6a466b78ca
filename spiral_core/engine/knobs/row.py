"""One row of the table of knobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from spiral_core.engine.state import RunState
from spiral_core.wire.parts import KnobSpec, Need, Value


class Knob(msgspec.Struct, frozen=True):
    """One row of the table: what a person reads, what is allowed, and where it acts."""

    name: str
    group: str
    help: str
    read: Callable[[RunState], Value | None]
    write: Callable[[RunState, Any], None]
    """Takes a float, one of the choices, or a bool."""
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    type: Literal["float", "int", "choice", "bool"] = "float"
    choices: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    alone: bool = False
    """Whether no other knob moves this one: it need not be read to see whether one has."""

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
            choices=list(self.choices),
            needs=list(self.needs),
            boundary="step",
            group=self.group,
            help=self.help,
            value=self.read(state),
            since=state.since.get(self.name, 1),
        )

    def set(self, state: RunState, value: Value) -> None:
        """Write a value that was found good."""
        self.write(state, value if self.type in ("choice", "bool") else float(value))


def choice(
    name: str,
    group: str,
    words: str,
    choices: tuple[str, ...],
    read: Callable[[RunState], Value | None],
    write: Callable[[RunState, Any], None],
) -> Knob:
    """Return a knob that holds one of a few words."""
    return Knob(name, group, words, read, write, high=len(choices) - 1, step=1, type="choice", choices=choices)


def switch(
    name: str,
    group: str,
    words: str,
    read: Callable[[RunState], bool],
    write: Callable[[RunState, Any], None],
    *,
    alone: bool = False,
) -> Knob:
    """Return a knob that is on or off."""
    return Knob(name, group, words, read, write, step=1, type="bool", alone=alone)
