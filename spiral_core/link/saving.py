"""When a run's state is kept: digests and checkpoints, now and then, at a steer, when asked for, and at the end."""

from __future__ import annotations

from collections.abc import Callable

from spiral_core.engine import checkpoint
from spiral_core.engine.notices import Notices
from spiral_core.engine.state import RunState
from spiral_core.errors import CheckpointError, RunLogError, StateError
from spiral_core.link.checkpoints import CheckpointFolder
from spiral_core.link.hashes import HashLog, hashes_of
from spiral_core.link.recorder import Recorder
from spiral_core.link.resume import Start
from spiral_core.wire.messages import CheckpointReason


class Saver:
    """Keeps the states of one run.

    Parameters
    ----------
    start : Start
    state : RunState
        Read, never changed.
    recorder : Recorder
        Says what was kept.
    position : callable
        Tells how many of the commands in the applied log the state has behind it.
    notices : Notices
        Says what could not be.
    checkpoint_every : int
        Steps between checkpoints; 0 means none but those that are asked for and the one at the end.
    keep : int
        How many of them stay, >= 1.
    keep_on_steer : bool
        Also take one before each update that is the first under a value that was set; those stay for good.
    hash_every : int
        Steps between digests; 0 means only with checkpoints.
    """

    def __init__(
        self,
        start: Start,
        state: RunState,
        recorder: Recorder,
        notices: Notices,
        position: Callable[[], int],
        *,
        checkpoint_every: int,
        keep: int,
        keep_on_steer: bool,
        hash_every: int,
    ) -> None:
        self._start = start
        self._state = state
        self._recorder = recorder
        self._notices = notices
        self._position = position
        self._checkpoint_every = checkpoint_every
        self._keep = keep
        self._keep_on_steer = keep_on_steer
        self._hash_every = hash_every
        self._folder = CheckpointFolder(start.directory.checkpoints)
        self._hashes = HashLog(start.directory.hashes)
        self._hashed = (state.step, state.rev)
        self._kept = self._here()

    def updated(self) -> None:
        """Keep what is due after an update."""
        if self._checkpoint_every and self._state.step % self._checkpoint_every == 0:
            self.save("every")
        elif self._hash_every and self._state.step % self._hash_every == 0:
            self._hash()

    def steered(self) -> None:
        """Keep the state before the first update under new values, where that is wanted."""
        if self._keep_on_steer:
            self.save("steer")

    def save(self, reason: CheckpointReason) -> str:
        """Take a checkpoint now; give the name of its file, or the empty string where that cannot be.

        Training goes on in either case; why there is no checkpoint is in the notices.
        """
        state = self._state
        self._hash()
        try:
            arrays, metadata = checkpoint.capture(state)
            saved = self._folder.save(
                arrays, metadata, incarnation=self._start.incarnation, position=self._position(), reason=reason
            )
        except (CheckpointError, StateError) as error:
            self._notices.unsaved = f"no checkpoint at step {state.step}: {error}"
            return ""
        self._notices.unsaved = ""
        self._kept = self._here()
        self._folder.prune(self._keep, self._start.holds)
        files = [one.path.name for one in self._folder.listed() if self._start.holds(one)]
        self._recorder.checkpoint(
            file=saved.checkpoint.path.name, size=saved.size, digest=saved.digest, reason=reason, files=files
        )
        return saved.checkpoint.path.name

    def finish(self) -> None:
        """Keep the last state, unless it is kept already."""
        if self._kept != self._here():
            self.save("end")

    def _here(self) -> tuple[int, int]:
        return self._state.step, self._position()

    def close(self) -> None:
        """Close the files."""
        self._hashes.close()

    def _hash(self) -> None:
        place = (self._state.step, self._state.rev)
        if self._hashed != place:
            try:
                self._hashes.append(hashes_of(self._state, self._start.incarnation))
            except RunLogError as error:
                self._notices.unsaved = f"no digest at step {self._state.step}: {error}"
            else:
                self._hashed = place
