"""Steering a run that trains: commands are taken from the inbox, applied at the boundary and answered.

The order is fixed: what is applied is on disk before it is acknowledged, and acknowledged before the next update.
"""

from __future__ import annotations

from spiral_core.engine import controls
from spiral_core.engine.controls import Outcome
from spiral_core.engine.state import RunState
from spiral_core.link.applied import AppliedLog, Entry
from spiral_core.link.inbox import Inbox
from spiral_core.link.recorder import Recorder
from spiral_core.wire.messages import Command


class Steering:
    """The commands of one run, from the inbox to the log.

    Parameters
    ----------
    state : RunState
        Changed by what is applied.
    inbox : Inbox
    applied : AppliedLog
    recorder : Recorder
    last_number : int
        Of the commands that earlier processes have applied to this run.
    """

    def __init__(
        self, state: RunState, inbox: Inbox, applied: AppliedLog, recorder: Recorder, *, last_number: int = 0
    ) -> None:
        self._state = state
        self._inbox = inbox
        self._applied = applied
        self._recorder = recorder
        self._last_number = last_number
        self.steered = False
        """Whether a value has been set since this was last cleared."""

    def drain(self) -> None:
        """Apply and answer what has arrived, without waiting."""
        for command in self._inbox.drain():
            # A server that did not hear the answer sends a command again; its number tells.
            if command.number <= self._last_number:
                continue
            self._last_number = command.number
            before = self._state.phase
            outcome = controls.apply(self._state, command)
            if outcome.state == "applied":
                self._applied.append(entry_of(command, outcome, self._state.rev))
                self.steered |= bool(outcome.changes)
            self._recorder.ack(command, outcome)
            if self._state.phase != before and self._state.phase in ("training", "paused"):
                self._recorder.status(self._state.phase)


def entry_of(command: Command, outcome: Outcome, rev: int) -> Entry:
    """Give the entry of the applied log for a command."""
    return Entry(
        number=command.number,
        id=command.id,
        step=outcome.step,
        verb=command.verb,
        sets=command.sets,
        changes=outcome.changes,
        rev=rev,
        actor=command.actor,
        source=command.source,
    )
