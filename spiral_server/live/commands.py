"""The life of a command: accepted or refused at the door, then applied or rejected by the engine, once.

Holds no connection and waits for nothing; the hub makes a record durable before it calls `Ledger.add`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from spiral_core.errors import SpiralError
from spiral_core.wire.knobs import command_refusal
from spiral_core.wire.messages import Ack, Command, CommandRecord, CommandRequest
from spiral_core.wire.parts import KnobSpec, Setting

MAX_ID_CHARS = 64
MAX_ACTOR_CHARS = 120
"""A name and an address fit; a page of text does not."""
MAX_SETS = 256
"""More than any run has knobs."""
MAX_WAITING = 1000
"""Commands that may wait for an engine; a person clicks no faster than this in a lost hour."""
ENDED = "the run ended before this command was applied"
LISTED = 1000
"""Newest records that a snapshot carries."""


class Answer(NamedTuple):
    """What became of a request for a command."""

    record: CommandRecord
    repeated: bool


class EndedError(SpiralError):
    """A command for a run that has ended."""


class BusyError(SpiralError):
    """Too many commands wait already."""


def malformed(request: CommandRequest) -> str | None:
    """Tell why a request cannot even be recorded; None when it can."""
    if not 1 <= len(request.id) <= MAX_ID_CHARS:
        return f"id takes 1 to {MAX_ID_CHARS} characters; choose a new one for each command"
    if len(request.actor) > MAX_ACTOR_CHARS:
        return f"actor takes at most {MAX_ACTOR_CHARS} characters"
    if len(request.sets) > MAX_SETS:
        return f"one command sets at most {MAX_SETS} knobs"
    return None


def judge(
    request: CommandRequest, *, run: str, number: int, knobs: Mapping[str, KnobSpec], time: float
) -> CommandRecord:
    """Make the journal's record of a request: accepted, or rejected with the reason."""
    reason = command_refusal(knobs, request.verb, request.sets)
    return CommandRecord(
        run=run,
        number=number,
        id=request.id,
        verb=request.verb,
        sets=request.sets,
        actor=request.actor,
        source=request.source,
        time=time,
        state="accepted" if reason is None else "rejected",
        step=None,
        changes=[],
        reason=reason or "",
        rev=None,
    )


def command_of(record: CommandRecord) -> Command:
    """Give what the engine is told of a record."""
    return Command(
        run=record.run,
        number=record.number,
        id=record.id,
        verb=record.verb,
        sets=record.sets,
        actor=record.actor,
        source=record.source,
        time=record.time,
    )


class Ledger:
    """The commands of one run by id, in the order of their numbers."""

    def __init__(self) -> None:
        self._records: dict[str, CommandRecord] = {}
        self._waiting: dict[str, int] = {}
        self._highest = 0

    def find(self, identity: str) -> CommandRecord | None:
        """Give the record with this id."""
        return self._records.get(identity)

    def reserve(self) -> int:
        """Take the next number; it is never given again, also when its record fails to reach the disk."""
        self._highest += 1
        return self._highest

    @property
    def waiting(self) -> int:
        """Number of accepted commands that the engine has not answered."""
        return len(self._waiting)

    def add(self, record: CommandRecord) -> None:
        """Enter a record that is on disk; a second record of the same id is ignored."""
        self._highest = max(self._highest, record.number)
        if record.id in self._records:
            return
        self._records[record.id] = record
        if record.state == "accepted":
            self._waiting[record.id] = record.number

    def settle(self, ack: Ack) -> CommandRecord | None:
        """Enter the engine's answer; None when it says nothing new.

        An engine also reports changes that nobody asked this server for, such as those of a guard; they get a record
        of their own.
        """
        self._highest = max(self._highest, ack.number)
        known = self._records.get(ack.id)
        if known is not None and not (known.state == "accepted" or known.reason == ENDED):
            return None
        record = CommandRecord(
            run=ack.run,
            number=ack.number if known is None else known.number,
            id=ack.id,
            verb=ack.verb,
            sets=_asked(ack) if known is None else known.sets,
            actor=ack.actor if known is None else known.actor,
            source=ack.source if known is None else known.source,
            time=ack.time if known is None else known.time,
            state=ack.state,
            step=ack.step if ack.state == "applied" else None,
            changes=ack.changes,
            reason=ack.reason,
            rev=ack.rev,
        )
        self._records[ack.id] = record
        self._waiting.pop(ack.id, None)
        return record

    def expire(self) -> list[CommandRecord]:
        """Reject the commands that still wait, because the run has ended; give their records.

        An answer of the engine that arrives later all the same overrules this.
        """
        expired = [msgspec.structs.replace(record, state="rejected", reason=ENDED) for record in self.unsettled()]
        for record in expired:
            self._records[record.id] = record
        self._waiting.clear()
        return expired

    def unsettled(self, after: int = 0) -> list[CommandRecord]:
        """Give the accepted commands that the engine has not answered, with numbers above ``after``, ascending."""
        names = sorted((number, name) for name, number in self._waiting.items() if number > after)
        return [self._records[name] for _, name in names]

    def records(self) -> list[CommandRecord]:
        """Give all records, oldest first."""
        return list(self._records.values())

    def newest(self) -> list[CommandRecord]:
        """Give the newest `LISTED` records, oldest first; what engines number by themselves has its place by time."""
        return sorted(self.records(), key=lambda record: record.time)[-LISTED:]


def _asked(ack: Ack) -> list[Setting]:
    return [Setting(knob=change.knob, value=change.in_force) for change in ack.changes if change.in_force is not None]
