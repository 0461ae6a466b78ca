"""Steering a run that trains: commands are taken from the inbox, applied at their boundary and answered.

The order is fixed: what is applied is on disk before it is acknowledged, and acknowledged before the next update.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from spiral_core.engine import controls, planned
from spiral_core.engine.controls import Outcome
from spiral_core.engine.queue import CommandQueue
from spiral_core.engine.state import RunState
from spiral_core.link.applied import AppliedLog, Entry
from spiral_core.link.inbox import Inbox
from spiral_core.link.recorder import Recorder
from spiral_core.link.triggers import FileTriggers, Found
from spiral_core.wire import knobs as rules
from spiral_core.wire.messages import Asked, Command
from spiral_core.wire.parts import RunStatus
from spiral_core.wire.requests import EXPIRED, MAX_WAITING

NO_ROOM = "the disk of the engine is full, so that this cannot be put down: free some space, then ask again"


class Steering:
    """The commands of one run, from the inbox to the log.

    Parameters
    ----------
    state : RunState
        Changed by what is applied.
    inbox : Inbox
    files : FileTriggers
    applied : AppliedLog
    recorder : Recorder
    answered : iterable of int, optional
        Numbers of commands that earlier incarnations of the run have answered.
    followed : iterable of str, optional
        Ids of what was planned and has been applied by them.
    """

    def __init__(
        self,
        state: RunState,
        inbox: Inbox,
        files: FileTriggers,
        applied: AppliedLog,
        recorder: Recorder,
        answered: Iterable[int] = (),
        followed: Iterable[str] = (),
    ) -> None:
        self._state = state
        self._inbox = inbox
        self._files = files
        self._applied = applied
        self._recorder = recorder
        self._queue = CommandQueue(answered)
        self._followed = set(followed)
        self._told: RunStatus | None = None
        self.steered = False
        """Whether a value has been set since this was last cleared."""

    def drain(self) -> None:
        """Apply and answer what is due before the next update, without waiting; the rest is kept for its boundary."""
        for command in self._inbox.drain():
            if self._files.admits(command):
                self._queue.add(command)
        for found in self._files.look(time.monotonic()):
            self._take(found)
        due = self._queue.due(self._state.step + 1)
        if due and not self._applied.room():
            for command in due:
                self._refuse(command, NO_ROOM)
            due = []
        for command, outcome in controls.settle(self._state, due):
            self.enter(command, outcome)
        self._files.clear()

    def _take(self, found: Found) -> None:
        """Give a number to what was asked for by file; what a server would refuse at its door is refused at once."""
        self._state.own_entries += 1
        asked = {field: getattr(found.request, field) for field in Asked.__struct_fields__}
        # The run log knows the run, and nobody sends this command anywhere.
        own = {"run": "", "number": -self._state.own_entries, "time": 0.0, "actor": found.actor, "source": "file"}
        command = Command(**{**asked, **own})
        reason = found.reason or self._refusal(command)
        if reason is None:
            self._queue.add(command)
        else:
            self._refuse(command, reason)

    def _refusal(self, command: Command) -> str | None:
        standing = controls.standing(self._state)
        if len(self._queue.held) >= MAX_WAITING:
            return f"{MAX_WAITING} commands wait for this run already"
        passed = command.expected_rev is not None and command.expected_rev < standing.rev
        return rules.command_refusal(standing.knobs, command) or (
            rules.stale(command.expected_rev, standing.rev) if passed else None
        )

    def _refuse(self, command: Command, reason: str) -> None:
        self.enter(command, Outcome("rejected", self._state.step + 1, self._state.rev, [], reason))

    def finish(self) -> None:
        """Answer what was asked for by file and has not had its turn; the server lets its own commands expire."""
        for found in self._files.look(time.monotonic(), at_once=True):
            self._take(found)
        for command in self._queue.held:
            if command.number < 0:
                self._refuse(command, EXPIRED)
        self._files.clear()

    def follow(self) -> None:
        """Apply what the configuration plans for the next update, behind everything that people have asked for.

        What they have set may not let it; then it is refused, and the journal has the reason.
        """
        for command in planned.due(self._state.config, self._state.step + 1):
            if command.id in self._followed:
                continue
            self._followed.add(command.id)
            self._state.own_entries += 1
            command = msgspec.structs.replace(command, number=-self._state.own_entries)
            self.enter(command, controls.apply(self._state, command))

    def enter(self, command: Command, outcome: Outcome) -> None:
        """Put down what was done: on disk first, then for everyone to see."""
        if outcome.state == "applied":
            self._applied.append(entry_of(command, outcome))
            self.steered |= bool(outcome.changes)
        self._recorder.ack(command, outcome)
        self.tell()

    def tell(self) -> None:
        """Say whether the run trains or pauses, where that has changed."""
        if self._told is not None and self._state.phase != self._told and self._state.phase in ("training", "paused"):
            self.say()

    def say(self, detail: str = "") -> None:
        """Say whether the run trains or pauses; from the first time on, a change of that is said as well."""
        self._told = "paused" if self._state.phase == "paused" else "training"
        self._recorder.status(self._told, detail)


def entry_of(command: Command, outcome: Outcome) -> Entry:
    """Give the entry of the applied log for a command."""
    return Entry(
        number=command.number,
        id=command.id,
        step=outcome.step,
        verb=command.verb,
        steps=command.steps,
        sets=command.sets,
        changes=outcome.changes,
        rev=outcome.rev,
        actor=command.actor,
        source=command.source,
        instead_of=list(outcome.instead_of),
        reason=outcome.reason,
        to_step=outcome.to_step,
    )
