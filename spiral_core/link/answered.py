"""What earlier incarnations of a run have answered.

A server may not have heard it: the run log of an incarnation that died with its courier is not carried any more. So a
resumed run says these answers again before anything else, and takes none of these commands once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spiral_core.link.applied import Entry
from spiral_core.wire.messages import Ack


@dataclass(frozen=True)
class Answered:
    """Answers of earlier incarnations."""

    acks: tuple[Ack, ...] = ()
    """One for each command, in the order in which they were answered."""
    numbers: frozenset[int] = frozenset()
    """Of all commands that are not to be taken again."""

    @property
    def own(self) -> int:
        """How far the engine has counted in numbers of its own: -1, -2 and so on."""
        return max(0, -min(self.numbers, default=0))


def answered(run: str, applied: Iterable[Entry], said: Iterable[Ack]) -> Answered:
    """Gather what was answered.

    Parameters
    ----------
    run : str
    applied : iterable of Entry
        The applied log; what is in it counts, whether it was acknowledged or not.
    said : iterable of Ack
        Of the run logs of earlier incarnations, oldest first.
    """
    acks: dict[int, Ack] = {}
    for ack in said:
        acks.setdefault(ack.number, ack)
    gone: set[int] = set()
    for entry in applied:
        acks.setdefault(entry.number, entry.ack(run=run, incarnation=0, seq=0, time=0.0))
        gone.update(entry.instead_of)
    return Answered(tuple(acks.values()), frozenset(acks) | gone)
