"""The applied log: every command that was applied, on disk before its values are used.

One JSON object per line: number, id, step, verb, changes, rev, actor, source, reason, and to_step where a rollback has
brought back the weights of that step. A run is its configuration, its seed and this file.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from spiral_core.engine.controls import Outcome
from spiral_core.errors import RunLogError
from spiral_core.wire import codec
from spiral_core.wire.messages import Command


class AppliedLog:
    """Appends applied commands, each on disk (fsync) when `append` returns.

    Raises
    ------
    RunLogError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunLogError(f"cannot open {path}: {error.strerror}") from error
        self._path = path

    def append(self, command: Command, outcome: Outcome, rev: int) -> None:
        """Write one applied command and wait until the disk has it.

        Raises
        ------
        RunLogError
            The disk is full or gone.
        """
        entry = {
            "number": command.number,
            "id": command.id,
            "step": outcome.step,
            "verb": command.verb,
            "changes": codec.plain(outcome.changes),
            "rev": rev,
            "actor": command.actor,
            "source": command.source,
            "reason": outcome.reason,
            **({} if outcome.to_step is None else {"to_step": outcome.to_step}),
        }
        try:
            os.write(self._file, msgspec.json.encode(entry) + b"\n")
            os.fsync(self._file)
        except OSError as error:
            raise RunLogError(f"cannot write to {self._path}: {error.strerror}; free some space") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
