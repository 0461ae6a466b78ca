"""Commands on their way into a run's database: a file beside it, in which each of them is on disk after one write.

To commit a command SQLite takes locks, writes pages of the table, of its index and of the count, and sums them up.
Somebody waits meanwhile, and little of this is still in the caches of a core when a command comes. So a command is put
down here first, which is what makes it durable, and into its table with the run's next transaction, for which nobody
waits. Where the run is written to no more, they are entered once there are many, or when the database is closed. What a
kill leaves here is part of the run's history, and is entered when the run is next written to.

A record is its length, its checksum and its bytes, and behind the last one stands a length of 0. Once every record has
been entered, the next one is written over them; those that follow a kill between the two are entered twice, which
changes nothing.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord
from spiral_server.store.blocks import checksum
from spiral_server.store.complaint import complain
from spiral_server.store.errors import StoreError

REDO_FILE = "commands.redo"
ROOM = 64 * 1024
"""Bytes of the file from the beginning: some 200 commands, of which it seldom holds more than one."""
CROWD = 100
"""Commands that may wait for a transaction of their run before there is one for them."""
QUICK_SECONDS = 0.003
"""A disk that took longer for the last command is not waited for on an event loop."""
BLOCKED_SHARE = 0.1
"""Most of its time that an event loop waits for a disk that is quick."""
_HEAD = struct.Struct("<II")
_END = bytes(_HEAD.size)


class Redo(NamedTuple):
    """What such a file holds."""

    records: list[CommandRecord]
    """In the order in which they were written."""
    damage: str
    """What is wrong between or behind them; empty for nothing."""
    end: int
    """Byte at which the next one belongs."""


def read(path: Path) -> Redo:
    """Read such a file; one that is not there holds nothing.

    Raises
    ------
    StoreError
        It cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise StoreError(f"the commands in {path} cannot be read: {error.strerror}") from error
    records: list[CommandRecord] = []
    damage, at, end = "", 0, 0
    while at + _HEAD.size <= len(data) and data[at : at + _HEAD.size] != _END:
        length, crc = _HEAD.unpack_from(data, at)
        record = _decoded(data[at + _HEAD.size : at + _HEAD.size + length], crc)
        at += _HEAD.size + length
        if record is not None:
            records.append(record)
            end = at
        else:
            # Where its length is sound, others may stand behind it.
            damage = f"a command in {path.name}, behind byte {end}, does not match its checksum"
    return Redo(records, damage, end)


def _decoded(data: bytes, crc: int) -> CommandRecord | None:
    if checksum(data) != crc:
        return None
    try:
        message = codec.decode(data)
    except DecodeError:
        return None
    return message if isinstance(message, CommandRecord) else None


class Disk:
    """How quick a disk is, as far as commands tell: whether an event loop may wait for it.

    Nobody can know that the next write will not stall; then the loop waits for it once, and not again until a thread
    has found the disk quick.

    Parameters
    ----------
    clock : callable, optional
        Gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._took = 0.0
        self._rested = 0.0

    @property
    def quick(self) -> bool:
        """Whether the last command took little time, and long enough ago."""
        return self._took <= QUICK_SECONDS and self._clock() >= self._rested

    def write(self, file: int, data: bytes, at: int) -> None:
        """Write bytes and wait until they are on the disk."""
        begun, self._took = self._clock(), math.inf
        view = memoryview(data)
        while view:
            written = os.pwrite(file, view, at)
            view, at = view[written:], at + written
        os.fdatasync(file)
        now = self._clock()
        self._took = now - begun
        self._rested = now + self._took * (1 / BLOCKED_SHARE - 1)


class RedoLog:
    """Such a file, as its one writer holds it. Any thread may call `append` and `append_soon`.

    Parameters
    ----------
    path : Path
        Made with the first command.
    disk : Disk
        On which it lies.

    Raises
    ------
    StoreError
        What is there cannot be read.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._lock = Lock()
        self._file = -1
        self._pending, self.damage, self._end = read(path)
        if self.damage:
            complain("a command may be lost", path=str(path), reason=self.damage)

    @property
    def pending(self) -> list[CommandRecord]:
        """What has not been entered, oldest first."""
        with self._lock:
            return list(self._pending)

    @property
    def crowded(self) -> bool:
        """Whether what is pending should be entered, though nothing else is to be written."""
        return len(self._pending) > CROWD

    def append(self, record: CommandRecord) -> None:
        """Put a command down; it is on disk when this returns.

        Raises
        ------
        OSError
            It is not, and neither a kill nor a copy brings it back.
        """
        data = codec.encode(record)
        with self._lock:
            if self._file < 0:
                self._open()
            self._append(record, data)

    def append_soon(self, record: CommandRecord) -> bool:
        """Put a command down on an event loop; False where the disk may keep that waiting for long.

        Raises
        ------
        OSError
            As `append`.
        """
        data = codec.encode(record)
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._file < 0 or not self._disk.quick:
                return False
            self._append(record, data)
        finally:
            self._lock.release()
        return True

    def _open(self) -> None:
        """Make room on the disk, so that there is some for commands when others have filled it."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(file).st_size
            os.pwrite(file, bytes(max(0, ROOM - size)), size)
            os.fsync(file)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _append(self, record: CommandRecord, data: bytes) -> None:
        row = _HEAD.pack(len(data), checksum(data)) + data
        try:
            self._disk.write(self._file, row + _END, self._end)
        except BaseException:
            # Whoever asked is told that it has not been given: neither a kill nor a copy may bring it back.
            with suppress(OSError):
                os.pwrite(self._file, _END, self._end)
            raise
        self._end += len(row)
        self._pending.append(record)

    def entered(self, records: Sequence[CommandRecord]) -> None:
        """Take note of what is in its table."""
        with self._lock:
            gone = {id(record) for record in records}
            self._pending = [record for record in self._pending if id(record) not in gone]
            if not self._pending:
                self._end = 0

    def close(self) -> None:
        """Let go of the file; it is deleted where it holds nothing."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            if not self._pending:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)
