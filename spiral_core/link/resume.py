"""Where a run begins: anew, or from a checkpoint of an earlier process.

``RUN`` goes on from the newest sound checkpoint, or from the first step where none was taken yet, and what was applied
after it is applied again at the same steps: the run becomes what it would have been without the interruption, and every
acknowledgement stays true. ``RUN@STEP`` goes back to a checkpoint on purpose: what was applied after it is given up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import msgspec

from spiral_core.engine import checkpoint, controls, guards, planned
from spiral_core.engine.config import RunConfig, from_fields
from spiral_core.engine.controls import Outcome
from spiral_core.engine.state import RunState, initial_state
from spiral_core.errors import CheckpointError, ConfigError, RunLogError
from spiral_core.link import applied, environment, hashes, rundir
from spiral_core.link.answered import Answered, answered
from spiral_core.link.applied import AppliedLog, Entry, History, Origin, Resumed
from spiral_core.link.checkpoints import Checkpoint, CheckpointFolder
from spiral_core.link.recorder import Recorder
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command


@dataclass
class Start:
    """A run that this process is about to train, and nobody else."""

    directory: RunDir
    config: RunConfig
    history: History
    lock: int
    """Descriptor that keeps others out."""
    held: RunState | None = None
    """The state to go on from; None begins anew."""
    position: int = 0
    """How many of the commands in the applied log that state has behind it."""
    incarnation: int = 0
    answered: Answered = field(default_factory=Answered)
    """What earlier incarnations have answered."""
    notices: list[str] = field(default_factory=list)
    """What a person should know of the start."""

    @property
    def name(self) -> str:
        """What people call the run."""
        return self.history.origin.name

    @property
    def followed(self) -> set[str]:
        """Ids of what the configuration plans and that was applied before."""
        return {entry.id for entry in self.history.entries if entry.source == planned.SOURCE}

    def state(self) -> RunState:
        """Give the state to begin with."""
        return initial_state(self.config) if self.held is None else self.held

    def holds(self, one: Checkpoint) -> bool:
        """Tell whether a checkpoint is part of the run as it now is."""
        return self.history.holds(step=one.step, rev=one.rev, incarnation=one.incarnation)

    def release(self) -> None:
        """Let others train the run."""
        os.close(self.lock)


def begin(logdir: Path, config: RunConfig, name: str) -> Start:
    """Make the directory of a new run.

    Raises
    ------
    RunLogError
        It cannot be made or written.
    """
    directory = rundir.create(logdir, config, now=time.time())
    return begin_in(directory, config, name)


def begin_in(directory: RunDir, config: RunConfig, name: str) -> Start:
    """Begin a new run in a directory that has only its configuration."""
    lock = directory.hold()
    origin = Origin(run=directory.id, name=name or directory.id, config=applied.config_digest(directory.config))
    log = AppliedLog(directory.applied)
    log.begin(origin)
    log.close()
    return Start(directory, config, History(origin), lock)


def reopen(logdir: Path, reference: str) -> Start:
    """Go on with a run.

    Parameters
    ----------
    logdir : Path
        Where runs are kept.
    reference : str
        ``RUN`` or ``RUN@STEP``; RUN is an id or a path.

    Raises
    ------
    RunLogError
        There is no such run, another process trains it, or its files are damaged. Nothing was changed.
    CheckpointError
        Its checkpoints are damaged, it is finished, or it has none at the step asked for. Nothing was changed.
    """
    run, step = _parted(reference)
    directory = rundir.find(logdir, run)
    lock = directory.hold()
    try:
        return _reopened(directory, step, lock)
    except BaseException:
        os.close(lock)
        raise


def _parted(reference: str) -> tuple[str, int | None]:
    run, at, step = reference.rpartition("@")
    return (run, int(step)) if at and step.isascii() and step.isdecimal() else (reference, None)


def _reopened(directory: RunDir, step: int | None, lock: int) -> Start:
    history = applied.read(directory.applied)
    config = checked_config(directory, history)
    if directory.hashes.exists():
        # It will be continued, which a damaged one cannot be.
        hashes.read(directory.hashes, history)
    start = Start(directory, config, history, lock)
    if history.torn:
        start.notices.append(f"{directory.applied.name}: a half-written last line was cut off; nobody was told of it")
    state, start.position = _restored(start, step)
    start.held = state
    kept = len(history.entries) if step is None else start.position
    start.incarnation = history.incarnation + 1
    resumed = Resumed(resumed=state.step, rev=state.rev, kept=kept, incarnation=start.incarnation)
    log = AppliedLog(directory.applied)
    log.resume(resumed)
    log.close()
    start.history = applied.read(directory.applied)
    start.answered = answered(directory.id, start.history.written, _said(directory, start.incarnation))
    return start


def _said(directory: RunDir, incarnation: int) -> Iterator[Ack]:
    """Give the acknowledgements in the run logs of earlier incarnations, as far as they can be read."""
    for _, path in directory.segments(incarnation):
        with contextlib.suppress(RunLogError), RunLogReader(path) as reader:
            for record in reader.records():
                # Decoding every frame of a long run would take minutes.
                if _ACK in record.data and isinstance(message := codec.decode(record.data), Ack):
                    yield message


_ACK = str(Ack.__struct_config__.tag).encode()


def checked_config(directory: RunDir, history: History) -> RunConfig:
    """Read the configuration of a run, and see that it is the one that the run was started with.

    Raises
    ------
    RunLogError
        It is another one, or cannot be read.
    """
    if applied.config_digest(directory.config) != history.origin.config:
        raise RunLogError(
            f"{directory.config} is not what the run was started with: put back the original, or start a new run with "
            f"spiral train --config {directory.config}"
        )
    return config_from(directory.config)


def config_from(path: Path) -> RunConfig:
    """Read a configuration file.

    Raises
    ------
    RunLogError, ConfigError
        It cannot be read, or cannot be run.
    """
    try:
        fields = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise RunLogError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no configuration: {error}") from error
    return from_fields(fields)


def _restored(start: Start, step: int | None) -> tuple[RunState, int]:
    """Restore the checkpoint asked for, or the newest one that is sound; give its position in the applied log, too.

    A run that has not come to its first checkpoint has no more behind it than what its configuration says.
    """
    folder = CheckpointFolder(start.directory.checkpoints)
    current = [one for one in folder.listed() if start.holds(one)]
    if step is not None:
        chosen = _named(start, folder, current, step)
        return _goes_on(start, restored(folder, chosen, start.config), current), chosen.position
    damage: CheckpointError | None = None
    for chosen in reversed(current):
        try:
            state = restored(folder, chosen, start.config)
        except CheckpointError as error:
            damage = damage or error
            start.notices.append(str(error))
            continue
        return _goes_on(start, state, current), chosen.position
    if damage is not None:
        raise damage
    return initial_state(start.config), 0


def _named(start: Start, folder: CheckpointFolder, current: Sequence[Checkpoint], step: int) -> Checkpoint:
    """Find the checkpoint of a step among those of the run as it now is."""
    chosen = next((one for one in current if one.step == step), None)
    if chosen is None and folder.file(step).exists():
        folder.load(folder.file(step))
        raise CheckpointError(
            f"{folder.file(step)} belongs to a future of the run that was given up; {_choice(start, current)}"
        )
    if chosen is None:
        raise CheckpointError(f"run {start.directory.id} has no checkpoint at step {step}; {_choice(start, current)}")
    return chosen


def restored(folder: CheckpointFolder, chosen: Checkpoint, config: RunConfig) -> RunState:
    """Load and restore a checkpoint.

    Raises
    ------
    CheckpointError
        It is damaged, or does not fit the configuration; names the file.
    """
    arrays, metadata = folder.load(chosen.path)
    try:
        return checkpoint.restore(config, arrays, metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{chosen.path}: {error}") from error


def _choice(start: Start, current: Sequence[Checkpoint]) -> str:
    if not current:
        return f"{start.directory.id} alone goes on from its first step"
    return "there are " + ", ".join(f"{start.directory.id}@{one.step}" for one in current)


def _goes_on(start: Start, state: RunState, current: Sequence[Checkpoint]) -> RunState:
    if state.phase == "finished":
        raise CheckpointError(
            f"run {start.directory.id} is finished: all {state.step} steps are done; to go back to an earlier one, "
            f"{_choice(start, [one for one in current if one.step < state.step])}"
        )
    # Whoever resumes a run wants it to train.
    state.phase, state.pause_at = "training", None
    state.wanted.clear()
    return state


class Past:
    """Commands that were applied after the checkpoint: they are applied again, each at its step.

    Until all are, no new command is taken: it would come before those, and the run would become another one. Guards go
    on following the run, and what they decide is what they decided then.

    Parameters
    ----------
    start : Start
    """

    def __init__(self, start: Start) -> None:
        self._waiting = deque(start.history.entries[start.position :])
        self._known = {entry.id for entry in start.history.entries}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def last_step(self) -> int | None:
        """Step of the last of them; None when there are none left."""
        return self._waiting[-1].step if self._waiting else None

    def covers(self, identity: str) -> bool:
        """Tell whether what is about to be done was done then, or comes too early."""
        return bool(self._waiting) or identity in self._known

    def catch_up(self, state: RunState, recorder: Recorder) -> bool:
        """Apply and acknowledge those that are due before the next update; tell whether a value was set."""
        moved = False
        while self._waiting and boundary(self._waiting[0]) <= state.step:
            entry = self._waiting.popleft()
            command, outcome = reapply(state, entry)
            if (place := contradiction(entry, outcome)) is not None:
                raise RunLogError(f"at step {entry.step} this run has become another one: {place}")
            recorder.ack(command, outcome)
            moved |= bool(outcome.changes)
        return moved


def boundary(entry: Entry) -> int:
    """Give the number of updates that were done when a command was applied; a mark speaks of the last one."""
    return entry.step if entry.verb == "mark" else entry.step - 1


def reapply(state: RunState, entry: Entry) -> tuple[Command, Outcome]:
    """Do to a state what a command did to it when it was recorded; pauses and the like do not matter to numbers.

    Raises
    ------
    RunLogError
        It cannot be applied now.
    """
    command = Command(
        run="",
        number=entry.number,
        id=entry.id,
        verb=entry.verb,
        sets=entry.sets,
        actor=entry.actor,
        source=entry.source,
        time=0.0,
    )
    state.own_entries = max(state.own_entries, -entry.number)
    if entry.verb == "set":
        outcome = controls.apply(state, command)
    elif entry.verb == "rollback":
        outcome = guards.go_back(state, entry.sets, entry.to_step, entry.reason)
    elif entry.verb == "mark":
        outcome = Outcome("applied", state.step, state.rev, [])
    else:
        state.rev += 1
        outcome = Outcome("applied", state.step + 1, state.rev, entry.changes)
    if (outcome.state, outcome.step, outcome.rev) != ("applied", entry.step, entry.rev):
        raise RunLogError(
            f"command {entry.number} was revision {entry.rev} at step {entry.step}, and cannot be now: "
            f"{outcome.reason or f'this is revision {outcome.rev}'}; use the Spiral that recorded it"
        )
    return command, outcome


def contradiction(entry: Entry, outcome: Outcome) -> str | None:
    """Tell in which value a command has done something else than when it was recorded."""
    if entry.verb not in ("set", "rollback"):
        return None
    for then, now in zip_longest(entry.changes, outcome.changes):
        if then is None or now is None:
            return f"{(then or now).knob} by command {entry.number}"
        if then != now:
            moves = f"{then.old} to {then.in_force} then, {now.old} to {now.in_force} now"
            return f"{then.knob} by command {entry.number}: {moves}"
    return None


def note_environment(start: Start) -> None:
    """Write down what this process computes with."""
    environment.note(start.directory.environment_of(start.incarnation))
