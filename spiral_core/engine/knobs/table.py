"""All rows of a run together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spiral_core.engine.knobs import batches, guards, optimizer, projectors, run
from spiral_core.engine.knobs.row import Knob
from spiral_core.engine.state import RunState
from spiral_core.wire.parts import KnobSpec, Value


def table(state: RunState) -> dict[str, Knob]:
    """Give the knobs of this run by name, in the order in which the settings of one command are written.

    That order, not the command's, decides: what is said of all layers comes before what is said of one, and a schedule
    before the rate that is set under it. So a command means the same whatever order it was written in.
    """
    rows = [
        *optimizer.knobs(state),
        *projectors.knobs(state),
        *batches.knobs(state),
        *optimizer.freezing(state),
        *run.knobs(state),
        *guards.knobs(state),
    ]
    return {knob.name: knob for knob in rows}


class Specs(Mapping[str, KnobSpec]):
    """The declarations of a table with the values in force, each made when it is asked for.

    A command concerns few of the knobs. Not to be kept beyond the next change of a value.
    """

    def __init__(self, state: RunState, knobs: Mapping[str, Knob]) -> None:
        self._state = state
        self._knobs = knobs

    def __getitem__(self, name: str) -> KnobSpec:
        return self._knobs[name].spec(self._state)

    def __contains__(self, name: object) -> bool:
        return name in self._knobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._knobs)

    def __len__(self) -> int:
        return len(self._knobs)


def declare(state: RunState) -> list[KnobSpec]:
    """Declare every knob with its value in force."""
    return [knob.spec(state) for knob in table(state).values()]


def in_force(state: RunState) -> dict[str, Value | None]:
    """Give the values in force by knob; None where the parts that a knob drives differ."""
    return {name: knob.read(state) for name, knob in table(state).items()}


def contradiction(knobs: Mapping[str, KnobSpec], asked: Mapping[str, Value]) -> str | None:
    """Tell why settings that are good each for itself cannot be in force together; None when they can.

    Parameters
    ----------
    knobs : mapping
        By name, with the values in force at the boundary.
    asked : mapping
        Values by knob.
    """

    def together(name: str) -> Value | None:
        return asked[name] if name in asked else knobs[name].value if name in knobs else None

    return optimizer.contradiction(together, asked)
