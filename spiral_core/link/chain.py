"""Files of JSON lines that cannot be changed unnoticed: each line is sealed together with all before it.

The last field of a line, ``seal``, is a 64-bit BLAKE2b digest of the seal before it and of the line without its own.
So a flipped bit, a line that was taken out or one from another file is found when the file is read. A process that is
killed while it writes leaves at most a torn last line, which is cut when the file is opened again: nothing that
`ChainWriter.append` has returned from is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from spiral_core.errors import RunLogError
from spiral_core.link import durable

ROOM_BYTES = 128 * 1024
"""A line with as many settings as one command may have fits, with the changes that it made."""
HELD_BYTES = ROOM_BYTES + 32 * 1024
"""Taken at once: room for some fifty entries of the usual length, and for one of the longest."""
_SEAL_BYTES = 8
_KEY = b',"seal":"'
_END = b'"}'
_SUFFIX_BYTES = len(_KEY) + 2 * _SEAL_BYTES + len(_END)


def _seal(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=_SEAL_BYTES).hexdigest().encode()


@dataclass
class Chain:
    """What a file holds, and where the sound part of it ends."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    seal: bytes = b""
    """Of the last line."""
    end: int = 0
    """Bytes of whole lines."""
    torn: int = 0
    """Bytes of a line behind them that a killed process has left half written."""


def read(path: Path) -> Chain:
    """Read a file and check every seal.

    Raises
    ------
    RunLogError
        The file is missing, or a line of it is damaged; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunLogError(f"cannot read {path}: {error.strerror}") from error
    chain = Chain()
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        body = _body(line, chain.seal)
        try:
            # Also what bears a right seal: anybody can make one.
            entry = None if body is None else json.loads(body)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise _damage(path, number)
        chain.entries.append(entry)
        chain.seal = line[-len(_END) - 2 * _SEAL_BYTES : -len(_END)]
        chain.end += len(line) + 1
    # A whole line without its end was not torn by a killed writer: its last byte has changed.
    if rest and _body(rest[:-1], chain.seal) is not None:
        raise _damage(path, len(lines) + 1)
    chain.torn = len(rest)
    return chain


def _body(line: bytes, before: bytes) -> bytes | None:
    """Give a line without its seal; None when the seal does not fit."""
    body, suffix = line[:-_SUFFIX_BYTES] + b"}", line[-_SUFFIX_BYTES:]
    return body if suffix == _KEY + _seal(before, body) + _END else None


def _damage(path: Path, line: int) -> RunLogError:
    return RunLogError(
        f"{path} is damaged: line {line} does not fit its seal; it cannot be replayed or resumed from: put back a copy"
    )


class ChainWriter:
    """Appends entries to such a file; continues one that is there, without its torn last line.

    Parameters
    ----------
    path : Path
    sync : bool
        Wait for the disk at each entry.

    Attributes
    ----------
    torn : int
        Bytes of a half-written line that were cut when the file was opened.
    lines : int
        Number of lines.

    Raises
    ------
    RunLogError
        The file is damaged, or cannot be written.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._sync = sync
        there = path.exists()
        chain = read(path) if there else Chain()
        self._seal = chain.seal
        self._held = 0
        """Up to where the disk keeps room for this file."""
        self.torn, self.lines = chain.torn, len(chain.entries)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if chain.torn:
                os.ftruncate(self._file, chain.end)
            if sync and not there:
                durable.sync_folder(path.parent)
        except OSError as error:
            raise RunLogError(f"cannot open {path}: {error.strerror}") from error

    def append(self, entry: Mapping[str, object]) -> None:
        """Seal and write one entry, which has at least one field.

        Raises
        ------
        RunLogError
            The disk is full or gone. A half-written line is taken back.
        """
        body = msgspec.json.encode(entry)
        seal = _seal(self._seal, body)
        line = body[:-1] + _KEY + seal + _END + b"\n"
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            if self._sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            self._held = 0
            raise RunLogError(f"cannot write to {self._path}: {error.strerror}; free some space") from error
        self._seal = seal
        self.lines += 1

    def room(self) -> bool:
        """Tell whether there is room for the next entries; what has been found is held for them.

        Room is taken for many entries at once, because taking it costs as much as writing one.
        """
        end = os.lseek(self._file, 0, os.SEEK_END)
        if end + ROOM_BYTES <= self._held:
            return durable.allowed(end + ROOM_BYTES)
        for wanted in (HELD_BYTES, ROOM_BYTES):
            if durable.hold(self._file, end, wanted):
                self._held = end + wanted
                return True
        # Where the file system keeps no room there may be some all the same; then it is looked for each time.
        return durable.fits(self._file, end, ROOM_BYTES)

    def close(self) -> None:
        """Close the file, and give back what was held for it."""
        os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_END))
        os.close(self._file)
