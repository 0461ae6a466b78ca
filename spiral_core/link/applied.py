"""The applied log: every command that was applied, on disk before its values are used.

One JSON object per line, an `Entry`. A run is its configuration, its seed and this file.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from spiral_core.errors import RunLogError
from spiral_core.wire.messages import Ack
from spiral_core.wire.parts import Change, Struct, Verb


class Entry(Struct, frozen=True, kw_only=True):
    """One command as it was applied; ``step`` is the first update computed under the new values."""

    number: int
    id: str
    step: int
    verb: Verb
    steps: int
    """Updates until ``step`` pauses."""
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

    def append(self, entry: Entry) -> None:
        """Write one applied command and wait until the disk has it.

        Raises
        ------
        RunLogError
            The disk is full or gone.
        """
        try:
            os.write(self._file, msgspec.json.encode(entry) + b"\n")
            os.fsync(self._file)
        except OSError as error:
            raise RunLogError(f"cannot write to {self._path}: {error.strerror}; free some space") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def entries(path: Path) -> list[Entry]:
    """Read an applied log, oldest first; a last line that was never finished was never in force, and is left out.

    Raises
    ------
    RunLogError
        The file cannot be read, or a line is not what was written; names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise RunLogError(f"cannot read {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RunLogError(f"{path} is damaged at line {number}: {error}") from error
    return found
