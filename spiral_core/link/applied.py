"""The applied log: every command that was applied, on disk before its values are used.

Sealed JSON lines (`chain`), never rewritten. The first says whose log it is; then come, in the order of their
revisions, the applied commands (number, id, step, verb, sets, changes, rev, actor, source), and one line for each time
that the run was resumed. A run is its configuration, its seed and this file.

A resumed run goes on from a checkpoint: ``resumed`` is its step, ``rev`` its revision. Of the commands that held until
then, those behind the first ``kept`` belong to a future that was given up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from spiral_core.errors import RunLogError
from spiral_core.link import chain
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack
from spiral_core.wire.parts import Change, Setting, Struct, Verb


class Origin(Struct, frozen=True, kw_only=True):
    """First line: whose log this is."""

    run: str
    name: str
    config: str
    """SHA-256 of ``config.json``."""


class Entry(Struct, frozen=True, kw_only=True):
    """One command as it was applied; ``step`` is the first update computed under the new values."""

    number: int
    id: str
    step: int
    verb: Verb
    steps: int
    """Updates until ``step`` pauses."""
    sets: list[Setting]
    changes: list[Change]
    rev: int
    """In force from here on."""
    actor: str
    source: str
    instead_of: list[int]
    """Numbers of the commands whose place it took; they were superseded."""
    reason: str = ""
    """Why a guard has done it."""
    to_step: int | None = None
    """The step whose weights a rollback brought back."""

    def ack(self, *, run: str, incarnation: int, seq: int, time: float) -> Ack:
        """Give the acknowledgement of the command."""
        return Ack(
            run=run,
            incarnation=incarnation,
            seq=seq,
            step=self.step,
            time=time,
            number=self.number,
            id=self.id,
            verb=self.verb,
            state="applied",
            changes=self.changes,
            reason=self.reason,
            rev=self.rev,
            actor=self.actor,
            source=self.source,
        )


class Resumed(Struct, frozen=True, kw_only=True):
    """The run has gone on from a checkpoint."""

    resumed: int
    """Step of the checkpoint."""
    rev: int
    """Revision of the checkpoint."""
    kept: int
    """How many of the commands that held until then still hold."""
    incarnation: int


@dataclass
class History:
    """An applied log, read and folded."""

    origin: Origin
    lines: list[Entry | Resumed] = field(default_factory=list)
    """All that was ever written, oldest first."""
    entries: list[Entry] = field(default_factory=list)
    """The commands that hold, oldest first."""
    torn: int = 0
    """Bytes of a half-written last line."""

    @property
    def written(self) -> list[Entry]:
        """All commands that were ever applied, oldest first, those that were given up included."""
        return [line for line in self.lines if isinstance(line, Entry)]

    @property
    def resumptions(self) -> list[Resumed]:
        """All resumptions, oldest first."""
        return [line for line in self.lines if isinstance(line, Resumed)]

    @property
    def incarnation(self) -> int:
        """Number of the newest incarnation that has begun."""
        return max((one.incarnation for one in self.resumptions), default=0)

    def holds(self, *, step: int, rev: int, incarnation: int) -> bool:
        """Tell whether what an incarnation wrote down after a step is part of the run as it now is."""
        return all(
            (step, rev) <= (later.resumed, later.rev) for later in self.resumptions if later.incarnation > incarnation
        )


def config_digest(path: Path) -> str:
    """Give the SHA-256 of a configuration file.

    Raises
    ------
    RunLogError
        It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunLogError(f"cannot read {path}: {error.strerror}; is this the directory of a run?") from error


def read(path: Path) -> History:
    """Read an applied log and fold it over the resumptions.

    Raises
    ------
    RunLogError
        The log is missing or damaged.
    """
    held = chain.read(path)
    if not held.entries:
        raise RunLogError(f"{path} is empty: the run had not begun; start it anew")
    try:
        history = History(msgspec.convert(held.entries[0], Origin), torn=held.torn)
        for entry in held.entries[1:]:
            _fold(history, entry)
    except msgspec.ValidationError as error:
        raise RunLogError(f"{path} was written by another Spiral: {error}") from error
    return history


def _fold(history: History, fields: dict[str, object]) -> None:
    if "resumed" not in fields:
        entry = msgspec.convert(fields, Entry)
        history.lines.append(entry)
        history.entries.append(entry)
        return
    resumed = msgspec.convert(fields, Resumed)
    history.lines.append(resumed)
    del history.entries[resumed.kept :]


class AppliedLog:
    """Appends to an applied log, each line on disk (fsync) when a method returns.

    Raises
    ------
    RunLogError
        The file is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lines = chain.ChainWriter(path, sync=True)
        self.position = len(read(path).entries) if self._lines.lines else 0
        """Number of commands that hold."""

    def begin(self, origin: Origin) -> None:
        """Write the first line."""
        self._lines.append(codec.plain(origin))

    def append(self, entry: Entry) -> None:
        """Write one applied command and wait until the disk has it.

        Raises
        ------
        RunLogError
            The disk is full or gone.
        """
        self._lines.append(codec.plain(entry))
        self.position += 1

    def room(self) -> bool:
        """Tell whether the disk has room for the next commands: what cannot be put down must not be done."""
        return self._lines.room()

    def resume(self, resumed: Resumed) -> None:
        """Write that the run goes on from a checkpoint."""
        self._lines.append(codec.plain(resumed))
        self.position = resumed.kept

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
