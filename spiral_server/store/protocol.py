"""What a store of runs does, whatever it is made of.

Says nothing of files or databases. What gives a future may be called on an event loop; the future is resolved by a
thread of the store, or is resolved already (`RunStore.journal`). All other calls may block for a disk and belong on a
thread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from spiral_core.wire.messages import CommandRecord, HeatMaps, RunMessage
from spiral_core.wire.parts import RunSummary
from spiral_server.live.decimation import Points
from spiral_server.store.errors import UnknownRunError

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
_RESERVED = re.compile(r"(catalog\.db|server\.)", re.ASCII)
"""Beginnings of the names of our own files beside the run directories."""


def is_run_id(text: str) -> bool:
    """Tell whether a text may name a run, and so a directory: no separator, no leading dot, no name of ours."""
    return _RUN_ID.fullmatch(text) is not None and _RESERVED.match(text) is None


def check_run_id(text: str) -> str:
    """Give a valid run id back, before anything touches the file system.

    Raises
    ------
    UnknownRunError
        The text cannot name a run.
    """
    if not is_run_id(text):
        raise UnknownRunError(f"{text[:100]!r} is no run id: it takes letters, digits, '.', '_' and '-', at most 80")
    return text


DamageKind: TypeAlias = Literal["block", "frame", "lost", "node", "message", "strip", "command", "missing", "file"]
"""``lost``: single frames that were found damaged and taken out; ``missing``: rows that cannot be found; ``file``: the
database as such."""


class Entry(NamedTuple):
    """A message of a run together with its encoding."""

    message: RunMessage
    data: bytes


class Damage(msgspec.Struct, frozen=True):
    """Something on disk that is not what was written: left out of every answer, and told."""

    run: str
    first_step: int
    last_step: int
    reason: str
    kind: DamageKind = "file"
    incarnation: int = 0
    first_seq: int = -1
    last_seq: int = -1
    row: int = -1
    """Of the table that the kind names."""


class SeriesQuery(NamedTuple):
    """Which points of which series.

    ``indices`` None means all series; ``first`` and ``last`` are steps, both included, None for no bound; ``points`` is
    the number of finite points wanted of each series at most.
    """

    indices: frozenset[int] | None
    first: int | None
    last: int | None
    points: int


@dataclass
class SeriesRead:
    """Points by series index, with what could not be read."""

    columns: dict[int, Points] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)


@dataclass
class History:
    """What a run's view is rebuilt from."""

    messages: list[RunMessage] = field(default_factory=list)
    """Oldest first, without frames; of heat maps, probe batches and strips only the newest."""
    commands: list[CommandRecord] = field(default_factory=list)
    """As they were journaled; what became of them is in the acknowledgements."""
    incarnation: int = -1
    seq: int = -1
    frame_step: int | None = None
    time: float = 0.0
    damage: list[Damage] = field(default_factory=list)


class RunStore(Protocol):
    """Keeps runs.

    Laws: what a future has confirmed survives a kill of the process; messages repeated by (incarnation, seq) are
    ignored; an incarnation that begins at a step replaces all older frames from that step on; damaged parts are
    reported and never given out.
    """

    def runs(self) -> list[RunSummary]:
        """List the runs, as they were when last noted."""

    def knows(self, run: str) -> bool:
        """Tell whether there is such a run."""

    def stored(self, run: str, incarnation: int) -> Future[int]:
        """Give the last sequence number on disk, -1 for none, once all that was given before is written or failed."""

    def append(self, run: str, entries: Sequence[Entry]) -> Future[None]:
        """Keep messages; the future is resolved when they are on disk.

        After a failure the messages that follow fail too, until `stored` is asked: no gap gets on disk.
        """

    def journal(self, record: CommandRecord, *, at_once: bool = False) -> Future[None]:
        """Keep a command, replacing an older state of it; the future is resolved when it is on disk.

        ``at_once``: may be before this returns, where that takes no time to speak of, ahead of what was given before.
        """

    def hold(self, seconds: float) -> None:
        """Begin nothing that nobody waits for, for so long from now: a command is under way."""

    def rest(self, seconds: float) -> None:
        """Do what waits, so long from now: the command is over."""

    def note(self, summary: RunSummary) -> None:
        """Keep a line of the list of runs, some time soon."""

    def history(self, run: str) -> History:
        """Read what the view of a run is rebuilt from."""

    def series(self, run: str, query: SeriesQuery) -> SeriesRead:
        """Read points, decimated."""

    def heat_maps(self, run: str, step: int | None) -> HeatMaps | None:
        """Read the newest heat maps at or before a step; None for the newest of all."""

    def verify(self, run: str, *, repair: bool = False) -> list[Damage]:
        """Read everything of a run and give what is damaged; ``repair``: what is damaged still after mending."""

    def compact(self, run: str) -> tuple[int, int]:
        """Pack what is loose and give free space back; give the bytes before and after."""

    def delete(self, run: str) -> None:
        """Delete a run with everything that belongs to it."""

    def close(self) -> None:
        """Write what waits, then let go of the directory."""
