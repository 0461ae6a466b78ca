"""The life of a command: accepted or refused at the door, then applied or rejected by the engine, once.

Holds no connection and waits for nothing; the hub makes a record durable before it calls `Ledger.add`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from spiral_core.errors import SpiralError
from spiral_core.wire.knobs import command_refusal, stale
from spiral_core.wire.messages import Ack, Asked, Command, CommandRecord, CommandRequest
from spiral_core.wire.parts import KnobSpec, Setting, Value
from spiral_core.wire.requests import EXPIRED

LISTED = 1000
"""Newest records that a snapshot carries."""


class Answer(NamedTuple):
    """What became of a request for a command."""

    record: CommandRecord
    repeated: bool


class EndedError(SpiralError):
    """A command for a run that has ended."""


class StaleError(SpiralError):
    """A command for a run that has moved on since the revision that it expects.

    Parameters
    ----------
    reason : str
    rev : int
        In force.
    values : mapping
        In force, of the knobs that were asked for.
    """

    def __init__(self, reason: str, rev: int, values: Mapping[str, Value | None]) -> None:
        super().__init__(reason)
        self.rev = rev
        self.values = dict(values)


class BusyError(SpiralError):
    """Too many commands wait already."""


def check_revision(request: CommandRequest, *, rev: int, knobs: Mapping[str, KnobSpec]) -> None:
    """Refuse at the door what expects a revision that has passed; the engine asks again at the boundary.

    A revision that is not known here yet is left to the engine, which may be ahead of what it has told.

    Raises
    ------
    StaleError
        Names the revision and the values in force.
    """
    if request.expected_rev is not None and request.expected_rev < rev:
        reason = stale(request.expected_rev, rev)
        asked = [setting.knob for setting in request.sets if setting.knob in knobs]
        raise StaleError(str(reason), rev, {name: knobs[name].value for name in asked})


def judge(
    request: CommandRequest, *, run: str, incarnation: int, number: int, knobs: Mapping[str, KnobSpec], time: float
) -> CommandRecord:
    """Make the journal's record of a request: accepted, or rejected with the reason."""
    reason = command_refusal(knobs, request)
    return CommandRecord(
        **_asked_by(request),
        run=run,
        number=number,
        incarnation=incarnation,
        time=time,
        state="accepted" if reason is None else "rejected",
        by=None,
        step=None,
        changes=[],
        reason=reason or "",
        rev=None,
    )


def command_of(record: CommandRecord) -> Command:
    """Give what the engine is told of a record."""
    return Command(run=record.run, number=record.number, time=record.time, **_asked_by(record))


def _asked_by(asked: Asked | CommandRequest) -> dict[str, Any]:
    """Give what is asked for, field by field, as one message hands it to the next."""
    return {field: getattr(asked, field) for field in Asked.__struct_fields__}


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
        if known is not None and known.state != "accepted":
            return None
        record = msgspec.structs.replace(
            known or _unasked(ack),
            state=ack.state,
            by=ack.by,
            step=ack.step if ack.state == "applied" else None,
            changes=ack.changes,
            reason=ack.reason,
            rev=ack.rev,
        )
        self._records[ack.id] = record
        self._waiting.pop(ack.id, None)
        return record

    def expire(self, incarnation: int) -> list[CommandRecord]:
        """Let the commands expire that still wait and were given to an incarnation up to this one; give their records.

        To be asked for once these incarnations have said everything: what expires was not applied and never will be.
        """
        expired = [
            msgspec.structs.replace(record, state="expired", reason=EXPIRED)
            for record in self.unsettled()
            if record.incarnation <= incarnation
        ]
        for record in expired:
            self._records[record.id] = record
            del self._waiting[record.id]
        return expired

    def unsettled(self, after: int = 0) -> list[CommandRecord]:
        """Give the accepted commands that the engine has not answered, with numbers above ``after``, ascending."""
        names = sorted((number, name) for name, number in self._waiting.items() if number > after)
        return [self._records[name] for _, name in names]

    def records(self) -> list[CommandRecord]:
        """Give all records, oldest first."""
        return list(self._records.values())

    def newest(self) -> list[CommandRecord]:
        """Give the newest `LISTED` records, oldest first; those that wait come last.

        Ordered by the revision at which each was settled: a clock may be set back, and engines number what they do by
        themselves apart.
        """
        places = self._places()
        # Whatever was refused at a revision came after the one that led to it.
        newest = sorted(self._records.values(), key=lambda one: (places[one.id], one.state != "applied"))
        return newest[-LISTED:]

    def _places(self) -> dict[str, tuple[float, float]]:
        """Give incarnation and revision at which records were settled, by id; of a few these must be guessed."""
        places: dict[str, tuple[float, float]] = {}
        before = (-math.inf, 0.0)
        for record in sorted(self._records.values(), key=lambda one: one.number):
            if record.state == "accepted":
                places[record.id] = (math.inf, record.number)
            elif record.rev is not None:
                places[record.id] = (record.incarnation, record.rev)
            else:
                # Refused at the door or expired: not before what was asked for earlier.
                places[record.id] = before
            if record.number > 0 and record.state != "accepted":
                before = max(before, places[record.id])
        return places


def _unasked(ack: Ack) -> CommandRecord:
    """Make a record of what the engine has done by itself."""
    return CommandRecord(
        run=ack.run,
        number=ack.number,
        id=ack.id,
        verb=ack.verb,
        sets=[
            Setting(knob=change.knob, value=change.in_force) for change in ack.changes if change.in_force is not None
        ],
        actor=ack.actor,
        source=ack.source,
        time=ack.time,
        incarnation=ack.incarnation,
        state="accepted",
        by=None,
        step=None,
        changes=[],
        reason="",
        rev=None,
    )
