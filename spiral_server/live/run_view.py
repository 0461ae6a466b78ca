"""The state of one run, folded from what its engine has said and what people have asked.

Folds messages; keeps no history of frames (the store does) and knows no viewer.
"""

from __future__ import annotations

import msgspec

from spiral_core.wire.messages import (
    Ack,
    CommandRecord,
    Frame,
    GuardsDeclared,
    HeatMaps,
    KnobsDeclared,
    KnobsMoved,
    Logged,
    ProbeBatch,
    RunStarted,
    RunSummary,
    SeriesDeclared,
    StatusChanged,
    Strip,
)
from spiral_core.wire.parts import FINAL_STATUSES, Change, GuardSpec, KnobSpec, RunStatus, SeriesSpec
from spiral_server.live.commands import Ledger


class RunView:
    """What is known of a run now.

    Parameters
    ----------
    run : str
        Id of the run.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.connected = False
        self.incarnation = -1
        self.seq = -1
        self.frame_step: int | None = None
        """Step of the newest frame of this incarnation."""
        self.started: RunStarted | None = None
        self.status: StatusChanged | None = None
        self.series: dict[int, SeriesSpec] = {}
        self.knobs: dict[str, KnobSpec] = {}
        self.guards: list[GuardSpec] = []
        self.rev = 0
        self.ledger = Ledger()
        self.heat_maps: dict[tuple[str, str], HeatMaps] = {}
        self.probe: ProbeBatch | None = None
        self.strips: dict[str, Strip] = {}
        self._step = 0
        self._created = 0.0
        self._updated = 0.0

    def admits(self, message: Logged) -> bool:
        """Tell whether a message is new: neither repeated nor of an incarnation that has been replaced."""
        return (message.incarnation, message.seq) > (self.incarnation, self.seq)

    def fold(self, message: Logged) -> CommandRecord | None:
        """Take in a new message; give the command record that it settles, if any."""
        if message.incarnation != self.incarnation:
            self.incarnation = message.incarnation
            self.frame_step = None
        self.seq = message.seq
        if not isinstance(message, Ack):
            # An acknowledgement speaks of the update to come.
            self._step = message.step
        self._created = self._created or message.time
        self._updated = message.time
        return self._enter(message)

    def _enter(self, message: Logged) -> CommandRecord | None:
        match message:
            case Frame():
                self.frame_step = message.step
            case Ack():
                self._apply(message)
                return self.ledger.settle(message)
            case HeatMaps():
                self.heat_maps[message.method, message.layer] = message
            case Strip():
                self.strips[message.name] = message
            case StatusChanged():
                self.status = message
            case RunStarted():
                self.started = message
                self._created = min(self._created, message.time)
            case SeriesDeclared():
                self.series = {spec.index: spec for spec in message.series}
            case KnobsDeclared():
                self.knobs = {spec.name: spec for spec in message.knobs}
                self.rev = message.rev
            case KnobsMoved():
                self._bring_into_force(message.changes, message.step)
            case GuardsDeclared():
                self.guards = message.guards
            case ProbeBatch():
                self.probe = message
            case _:
                pass
        return None

    def _apply(self, ack: Ack) -> None:
        self.rev = max(self.rev, ack.rev)
        if ack.state != "applied":
            return
        self._bring_into_force(ack.changes, ack.step)

    def _bring_into_force(self, changes: list[Change], step: int) -> None:
        for change in changes:
            spec = self.knobs.get(change.knob)
            if spec is not None:
                self.knobs[change.knob] = msgspec.structs.replace(spec, value=change.in_force, since=step)

    def resume_at(self, *, incarnation: int, seq: int, frame_step: int | None, time: float) -> None:
        """Set where a view stands whose frames were not folded, because it was read back from the store."""
        self.incarnation, self.seq, self.frame_step = incarnation, seq, frame_step
        self._step = max(self._step, frame_step or 0)
        self._updated = max(self._updated, time)

    @property
    def ended(self) -> bool:
        """Whether the run's last word was a final one."""
        return self.status is not None and self.status.status in FINAL_STATUSES

    @property
    def state(self) -> RunStatus:
        """Status to show: an engine that is gone without a final word is lost."""
        if not self.connected and not self.ended:
            return "lost"
        return "starting" if self.status is None else self.status.status

    @property
    def summary(self) -> RunSummary:
        """One line of the list of runs."""
        started = self.started
        return RunSummary(
            id=self.run,
            name=self.run if started is None else started.name,
            status=self.state,
            step=self._step,
            total_steps=0 if started is None else started.total_steps,
            model="" if started is None else started.model,
            data="" if started is None else started.data,
            created=self._created,
            updated=self._updated,
            detail="" if self.status is None else self.status.detail,
            connected=self.connected,
        )

    @property
    def newest_heat_maps(self) -> HeatMaps | None:
        """The heat maps that arrived last."""
        return max(self.heat_maps.values(), key=lambda maps: (maps.incarnation, maps.seq), default=None)
