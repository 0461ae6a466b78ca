"""The run log on a disk that may be full: training goes on, and what must not be lost waits for room.

Curves, strips and maps of the steps meanwhile are left out, and it is said which. Answers to commands and the like are
written into a little room that is kept for them, so that people hear of the full disk at once; when that is used up,
they wait in memory and are written, in their order, as soon as there is room.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from spiral_core.errors import RunLogError
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire.messages import Frame, HeatMaps, KnobsMoved, Logged, Strip

RESERVED_BYTES = 256 * 1024
"""Kept on the disk while a run trains; room for some hundred answers, and for the files beside the log."""
RETRY_SECONDS = 0.5
LEFT_OUT = (Frame, Strip, HeatMaps, KnobsMoved)


class PatientLog:
    """Appends to a run log; a full disk is no error.

    Parameters
    ----------
    log : RunLogWriter
    reserve : Path
        A file that keeps room on the same disk.

    Attributes
    ----------
    words : str
        What a person should know: since when the disk is full, or which steps are missing.
    """

    def __init__(self, log: RunLogWriter, reserve: Path) -> None:
        self._log = log
        self._reserve = reserve
        self._waiting: list[tuple[type[Logged], int, dict[str, object]]] = []
        self._full = False
        self._why = ""
        self._retry_at = 0.0
        self._first: int | None = None
        """The first step that was left out since the disk is full."""
        self.words = ""
        self._keep_room()

    def append(self, kind: type[Logged], step: int, **fields: object) -> None:
        """Write a message now or later, or leave it out where it may be."""
        if self._full and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._full = not (self._keep_room() and self._catch_up())
            if not self._full:
                self._say_missing(step)
        if self._full and issubclass(kind, LEFT_OUT):
            self._leave_out(kind, step)
            return
        self._waiting.append((kind, step, fields))
        if not self._catch_up():
            self._fill_up(step)

    def _catch_up(self) -> bool:
        """Write what waits; tell whether nothing is left."""
        while self._waiting:
            kind, step, fields = self._waiting[0]
            try:
                self._log.append(kind, step, **fields)
            except RunLogError as error:
                self._why = str(error)
                return False
            self._waiting.pop(0)
        return True

    def _fill_up(self, step: int) -> None:
        if not self._full:
            self._full = True
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self.words = f"{self._why}; steps from {step} on are not recorded until then"
            self._free_room()
        kept = []
        for kind, at, fields in self._waiting:
            if issubclass(kind, LEFT_OUT):
                self._leave_out(kind, at)
            else:
                kept.append((kind, at, fields))
        self._waiting = kept
        self._catch_up()

    def _leave_out(self, kind: type[Logged], step: int) -> None:
        if issubclass(kind, Frame) and self._first is None:
            self._first = step

    def _say_missing(self, step: int) -> None:
        first, self._first = self._first, None
        last = step - 1
        self.words = "" if first is None else f"steps {first} to {last} were not recorded: the disk was full"

    def _keep_room(self) -> bool:
        try:
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.posix_fallocate(file, 0, RESERVED_BYTES)
            finally:
                os.close(file)
        except OSError:
            return False
        return True

    def _free_room(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink()

    def close(self) -> None:
        """Write what waits, as far as there is room, and give the room back."""
        self._free_room()
        self._catch_up()
