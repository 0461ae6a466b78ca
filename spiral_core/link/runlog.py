"""The run log: every message of a run, in order, in append-only files.

It is spool, offline record and truth at once. `spiral_core.wire.records` states the form of its files. Writes go
straight to the operating system (no buffer of ours), so a killed process loses at most the record it was writing; a
torn last record is cut off when the log is taken up again.

A log that grows goes on in another file after each eighth of its bound. Once all files together exceed the bound,
`thinning` merges the frames of the oldest ones in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from spiral_core.errors import DecodeError, RunLogError
from spiral_core.wire import codec, records
from spiral_core.wire.messages import Frame, Logged, Strip

PARTS = 8
"""Files that a log of the greatest size consists of."""
_READ_BYTES = 1 << 20

M = TypeVar("M", bound=Logged)


class Position(NamedTuple):
    """A place in a run log: which of its files, and the offset there."""

    part: int
    offset: int
    opening: int = 0
    """Which opening of a file by its reader it belongs to: the file of the next one may have been thinned out."""


@dataclass(frozen=True)
class Record:
    """One record: the message's bytes and the place behind it."""

    data: bytes
    end: Position


def part_path(path: Path, part: int) -> Path:
    """Give a file of a log by its number; number 0 is the log's own path."""
    return path.with_name(f"{path.name}.{part}") if part else path


def parts_of(path: Path) -> list[Path]:
    """Give the files of a log that are there, oldest first."""
    found: list[Path] = []
    while (part := part_path(path, len(found))).exists():
        found.append(part)
    return found


class RunLogWriter:
    """Appends messages to a new run log and numbers them.

    Parameters
    ----------
    path : Path
        Must not exist yet.
    run : str
        Run id, stamped on every message.
    incarnation : int
        Stamped on every message.
    clock : callable
        Wall time in seconds since 1970.
    part_bytes : int
        Size at which another file is begun; 0 for never.

    Attributes
    ----------
    on_append : callable
        Called after each record is with the operating system, with whether somebody waits for such a message; set it
        to ring a courier's doorbell.
    on_part : callable
        Called after another file was begun.

    Raises
    ------
    RunLogError
        The file exists already or cannot be written.
    """

    def __init__(
        self, path: Path, *, run: str, incarnation: int, clock: Callable[[], float], part_bytes: int = 0
    ) -> None:
        self._path = path
        self._run = run
        self._incarnation = incarnation
        self._clock = clock
        self._part_bytes = part_bytes
        self._part = 0
        self._open()
        self.on_append: Callable[[bool], None] = lambda _at_once: None
        self.on_part: Callable[[], None] = lambda: None
        self.seq = -1
        """Of the last message; -1 before the first."""

    def _open(self) -> None:
        path = part_path(self._path, self._part)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            _write_all(self._file, records.MAGIC)
        except OSError as error:
            raise RunLogError(f"cannot create the run log {path}: {error.strerror}") from error
        self._size = len(records.MAGIC)

    def append(self, kind: type[M], step: int, **fields: object) -> M:
        """Stamp a message with run, incarnation, next sequence number and time; write it; give it back.

        Raises
        ------
        RunLogError
            The disk is full or gone. A half-written record is taken back, so the log stays readable.
        """
        message = kind(
            run=self._run,
            incarnation=self._incarnation,
            seq=self.seq + 1,
            step=step,
            time=self._clock(),
            **fields,
        )
        data = records.record(codec.encode(message))
        try:
            _write_all(self._file, data)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise RunLogError(f"cannot write to the run log {self._path}: {error.strerror}; free some space") from error
        self._size += len(data)
        self.seq += 1
        self.on_append(kind is not Frame and kind is not Strip)
        if self._part_bytes and self._size >= self._part_bytes:
            self._next_part()
        return message

    def _next_part(self) -> None:
        full = self._file
        self._part += 1
        try:
            self._open()
        except RunLogError:
            # No room for another file: this one goes on.
            self._part -= 1
            self._file = full
            self._part_bytes += self._part_bytes
            return
        os.close(full)
        self.on_part()

    def close(self) -> None:
        """Close the file; its records are with the operating system already."""
        os.close(self._file)


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    if written < len(data):
        view = memoryview(data)[written:]
        while view:
            view = view[os.write(file, view) :]


def bequeath(path: Path, end: Position, messages: Sequence[Logged]) -> None:
    """Append messages to the log of a process that is gone; a record that it left half written is cut off.

    Parameters
    ----------
    path : Path
        Of the log.
    end : Position
        Behind the last whole record.
    messages : sequence of Logged
        Numbered on from that record.

    Raises
    ------
    RunLogError
        The disk is full or gone; the log then ends with its last whole record.
    """
    try:
        file = os.open(part_path(path, end.part), os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(file, end.offset)
            try:
                _write_all(file, b"".join(records.record(codec.encode(message)) for message in messages))
            except OSError:
                os.ftruncate(file, end.offset)
                raise
        finally:
            os.close(file)
    except OSError as error:
        raise RunLogError(f"cannot write to the run log {path}: {error.strerror}; free some space") from error


class RunLogReader:
    """Reads a run log while it is being written.

    Raises
    ------
    RunLogError
        The file is missing or is no run log.
    """

    start = Position(0, len(records.MAGIC))
    """The first record of any log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._opening = 0
        self.enter(0)

    def enter(self, part: int) -> None:
        """Go to the beginning of a file of the log."""
        path = part_path(self._path, part)
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise RunLogError(f"cannot open the run log {path}: {error.strerror}") from error
        magic = os.pread(file, len(records.MAGIC), 0)
        if magic != records.MAGIC:
            os.close(file)
            raise RunLogError(f"{path} is not a run log: it does not begin with {records.MAGIC.decode()}")
        self.close()
        self._file = file
        self._opening += 1
        self._part = part
        self._successor = str(part_path(self._path, part + 1))
        self._offset = len(records.MAGIC)
        self._rest = b""

    @property
    def position(self) -> Position:
        """Behind the last record that was given."""
        return Position(self._part, self._offset, self._opening)

    def seek(self, position: Position) -> None:
        """Go on reading at a record's place, or before it.

        A file that was left may have been thinned out since, so that the offset means nothing there: it is read from
        its beginning.
        """
        if position.opening == self._opening:
            self._offset = position.offset
            self._rest = b""
        else:
            self.enter(position.part)

    def records(self) -> Iterator[Record]:
        """Give every whole record from here to the present end; a record still being written is left for later.

        Raises
        ------
        RunLogError
            A record in the middle of the log is damaged; names its offset.
        """
        while True:
            # Looked for first: a file that has a successor does not grow any more.
            followed = os.path.exists(self._successor)
            yield from self.records_of_part(complete=followed)
            if not followed:
                return
            if self._rest:
                raise RunLogError(f"{self._here} is damaged at byte {self._offset}: its last record is not whole")
            self.enter(self._part + 1)

    def records_of_part(self, *, complete: bool = True) -> Iterator[Record]:
        """Give every whole record from here to the present end of this file alone; see `records`.

        A read that gives less than was asked for is nearly always the last one. Where the rest comes with the next
        look anyway (not ``complete``), it is taken for that.
        """
        while True:
            more = os.pread(self._file, _READ_BYTES, self._offset + len(self._rest))
            self._rest += more
            begun, used = self._offset, 0
            while (record := self._parse(begun, used)) is not None:
                used = record.end.offset - begun
                yield record
            self._offset += used
            self._rest = self._rest[used:]
            if not more or (len(more) < _READ_BYTES and not complete):
                return

    def _parse(self, begun: int, offset: int) -> Record | None:
        try:
            found = records.parse(self._rest, offset)
        except DecodeError as error:
            raise RunLogError(f"{self._here} is damaged at byte {begun + offset}: {error}") from error
        return None if found is None else Record(found.data, Position(self._part, begun + found.end, self._opening))

    @property
    def _here(self) -> Path:
        return part_path(self._path, self._part)

    def close(self) -> None:
        """Close the file; so does the end of a ``with`` block."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
