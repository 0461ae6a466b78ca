"""The run log: every message of a run, in order, in one append-only file.

It is spool, offline record and truth at once. A record is ::

    length  uint32   bytes of the message
    crc     uint32   CRC-32 of the message
    check   uint32   CRC-32 of the two numbers before it: a damaged length must not look like a record half written
    message          MessagePack, as it goes on the wire

behind an eight-byte file header. Writes go straight to the operating system (no buffer of ours), so a killed process
loses at most the record it was writing; a torn last record is cut off when the log is opened again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from spiral_core.errors import RunLogError
from spiral_core.wire import codec
from spiral_core.wire.limits import MAX_MESSAGE_BYTES
from spiral_core.wire.messages import Logged

MAGIC = b"SPIRLOG1"
_HEAD = struct.Struct("<II")
_CHECK = struct.Struct("<I")
_HEADER_BYTES = _HEAD.size + _CHECK.size
_READ_BYTES = 1 << 20

M = TypeVar("M", bound=Logged)


@dataclass(frozen=True)
class Record:
    """One record: the message's bytes and the file offset behind it."""

    data: bytes
    end: int


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

    Attributes
    ----------
    on_append : callable
        Called after each record is with the operating system; set it to ring a courier's doorbell.

    Raises
    ------
    RunLogError
        The file exists already or cannot be written.
    """

    def __init__(self, path: Path, *, run: str, incarnation: int, clock: Callable[[], float]) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            _write_all(self._file, MAGIC)
        except OSError as error:
            raise RunLogError(f"cannot create the run log {path}: {error.strerror}") from error
        self._path = path
        self._run = run
        self._incarnation = incarnation
        self._clock = clock
        self.on_append: Callable[[], None] = lambda: None
        self.seq = -1
        """Of the last record; -1 before the first."""

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
        data = codec.encode(message)
        try:
            _append(self._file, [data])
        except OSError as error:
            raise RunLogError(f"cannot write to the run log {self._path}: {error.strerror}; free some space") from error
        self.seq += 1
        self.on_append()
        return message

    def close(self) -> None:
        """Close the file; its records are with the operating system already."""
        os.close(self._file)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def bequeath(path: Path, end: int, messages: Sequence[Logged]) -> None:
    """Append messages to the log of a process that is gone; a record that it left half written is cut off.

    Parameters
    ----------
    path : Path
    end : int
        Offset behind the last whole record.
    messages : sequence of Logged
        Numbered on from that record.

    Raises
    ------
    RunLogError
        The disk is full or gone; the log then ends with its last whole record.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(file, end)
            _append(file, [codec.encode(message) for message in messages])
        finally:
            os.close(file)
    except OSError as error:
        raise RunLogError(f"cannot write to the run log {path}: {error.strerror}; free some space") from error


def _append(file: int, encoded: Sequence[bytes]) -> None:
    """Write records; on an error all of them are taken back."""
    start = os.lseek(file, 0, os.SEEK_END)
    try:
        for data in encoded:
            head = _HEAD.pack(len(data), zlib.crc32(data))
            _write_all(file, head + _CHECK.pack(zlib.crc32(head)) + data)
    except OSError:
        os.ftruncate(file, start)
        raise


class RunLogReader:
    """Reads a run log while it is being written.

    Raises
    ------
    RunLogError
        The file is missing or is no run log.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise RunLogError(f"cannot open the run log {path}: {error.strerror}") from error
        self._path = path
        self._position = self.start
        self._rest = b""
        if os.pread(self._file, len(MAGIC), 0) != MAGIC:
            os.close(self._file)
            raise RunLogError(f"{path} is not a run log: it does not begin with {MAGIC.decode()}")

    start = len(MAGIC)
    """Offset of the first record of any log."""

    @property
    def position(self) -> int:
        """Offset behind the last record that was given."""
        return self._position

    def seek(self, position: int) -> None:
        """Go on reading at a record's offset."""
        self._position = position
        self._rest = b""

    def records(self) -> Iterator[Record]:
        """Give every whole record from here to the present end; a record still being written is left for later.

        Raises
        ------
        RunLogError
            A record in the middle of the log is damaged; names its offset.
        """
        while True:
            more = os.pread(self._file, _READ_BYTES, self._position + len(self._rest))
            self._rest += more
            used = 0
            while (record := self._parse(used)) is not None:
                used = record.end - self._position
                yield record
            self._position += used
            self._rest = self._rest[used:]
            if not more:
                return

    def _parse(self, offset: int) -> Record | None:
        body = offset + _HEADER_BYTES
        if len(self._rest) < body:
            return None
        head = self._rest[offset : offset + _HEAD.size]
        length, crc = _HEAD.unpack(head)
        if _CHECK.unpack_from(self._rest, offset + _HEAD.size)[0] != zlib.crc32(head) or length > MAX_MESSAGE_BYTES:
            raise RunLogError(
                f"{self._path} is damaged at byte {self._position + offset}: its length cannot be trusted"
            )
        if len(self._rest) < body + length:
            return None
        data = self._rest[body : body + length]
        if zlib.crc32(data) != crc:
            raise RunLogError(f"{self._path} is damaged at byte {self._position + offset}: checksum does not match")
        return Record(data=data, end=self._position + body + length)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
