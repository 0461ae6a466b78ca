"""The state of one run, folded from what its engine has said and what people have asked.

Folds messages; keeps no history of frames (the store does) and knows no viewer.
"""

from __future__ import annotations

import msgspec

from spiral_core.wire.messages import (
    Ack,
    CheckpointSaved,
    CommandRecord,
    Frame,
    GuardsDeclared,
    HeatMaps,
    KnobsDeclared,
    KnobsMoved,
    Logged,
    ProbeBatch,
    RunStarted,
    SeriesDeclared,
    StatusChanged,
    Strip,
    Thinned,
)
from spiral_core.wire.parts import FINAL_STATUSES, Change, GuardSpec, KnobSpec, RunStatus, RunSummary, SeriesSpec
from spiral_server.live.commands import Ledger


class RunView:
    """What is known of a run now.

    Parameters
    ----------
    run : str
        Id of the run.
    whole : bool
        Whether every message of the past is going to be folded. Where one is lost it may have been the answer to a
        command, and then none is said to have expired.
    """

    def __init__(self, run: str, *, whole: bool = True) -> None:
        self.run = run
        self._whole = whole
        self.connected = False
        self.trouble = ""
        """Why nothing of the run can be written now."""
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
        self.checkpoints: dict[str, CheckpointSaved] = {}
        """Those that are on the engine's disk, by file."""
        self.thinned: list[Thinned] = []
        self.probe: ProbeBatch | None = None
        self.strips: dict[str, Strip] = {}
        self._last_word: tuple[int, int] | None = None
        """Where the newest incarnation that has ended said so: its number, and the sequence number."""
        self._kept = (-1, -1)
        """The same of the newest message on disk."""
        self._step = 0
        self._created = 0.0
        self._updated = 0.0

    def admits(self, message: Logged) -> bool:
        """Tell whether a message is new: neither repeated nor of an incarnation that has been replaced."""
        return (message.incarnation, message.seq) > (self.incarnation, self.seq)

    def fold(self, message: Logged) -> CommandRecord | None:
        """Take in a new message; give the record of the command that it answers, if any."""
        if message.incarnation != self.incarnation:
            self.incarnation = message.incarnation
            self.frame_step = None
            # A run that goes on is not over, and takes commands again before it says what it does.
            self.status = None
            if self._last_word is not None and self._last_word > self._kept:
                # It never reached the disk, and what waited has been handed on to this incarnation.
                self._last_word = None
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
                if self.ended:
                    self._last_word = (message.incarnation, message.seq)
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
            case Thinned():
                self.thinned.append(message)
            case ProbeBatch():
                self.probe = message
            case CheckpointSaved():
                known = {**self.checkpoints, message.file: message}
                self.checkpoints = {file: known[file] for file in message.files if file in known}
            case _:
                pass
        return None

    def kept(self, incarnation: int, seq: int) -> list[CommandRecord]:
        """Note that everything up to a message is on disk; give the records of the commands that it settles."""
        self._kept = max(self._kept, (incarnation, seq))
        return self.expire()

    def expire(self) -> list[CommandRecord]:
        """Let go of the commands that ended incarnations have left undone; give their records.

        An incarnation says everything in order, so that nothing it has applied can still be told after its last word.
        That word has to be on disk: a command that has expired must not wait again for a server that forgot why.
        """
        if self._last_word is None or self._last_word > self._kept or not self._whole:
            return []
        return self.ledger.expire(self._last_word[0])

    def _apply(self, ack: Ack) -> None:
        # What is said once more, for a server that did not hear it, must not bring an old value back.
        if ack.state == "applied" and ack.rev > self.rev:
            self._bring_into_force(ack.changes, ack.step)
        self.rev = max(self.rev, ack.rev)

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
    def _total_steps(self) -> int:
        knob = self.knobs.get("run.steps")
        if knob is not None and isinstance(knob.value, (int, float)):
            return int(knob.value)
        return 0 if self.started is None else self.started.total_steps

    @property
    def summary(self) -> RunSummary:
        """One line of the list of runs."""
        started = self.started
        return RunSummary(
            id=self.run,
            name=self.run if started is None else started.name,
            status=self.state,
            step=self._step,
            total_steps=self._total_steps,
            model="" if started is None else started.model,
            data="" if started is None else started.data,
            created=self._created,
            updated=self._updated,
            detail="" if self.status is None else self.status.detail,
            connected=self.connected,
            trouble=self.trouble,
        )

    @property
    def newest_heat_maps(self) -> HeatMaps | None:
        """The heat maps that arrived last."""
        return max(self.heat_maps.values(), key=lambda maps: (maps.incarnation, maps.seq), default=None)
