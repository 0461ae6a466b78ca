"""Commands by file, for machines where one has a shell and a shared disk, and no way to the server.

In the directory of the run, touching ``stop`` or ``checkpoint`` is that command, and so is each line appended to
``commands.jsonl``, in the JSON that HTTP takes (`CommandRequest`). The engine removes a touched file once it has
answered.

Every command has an id, and what an id asked for is done once. A touched file has the one of its inode and time of
change, so that a file which outlives a killed engine, or cannot be removed, means nothing new. ``commands.jsonl`` is
read from its beginning by each engine: the ids in the applied log and in the run logs tell what has been answered. An
offset alone could not: a line that waits for its step may stand before one that has been applied.
"""

from __future__ import annotations

import hashlib
import math
import os
import pwd
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from spiral_core.errors import DecodeError
from spiral_core.link.rundir import RunDir
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command, CommandRequest
from spiral_core.wire.parts import Verb
from spiral_core.wire.requests import MAX_REQUEST_BYTES, malformed

LOOK_SECONDS = 0.25
"""Looking takes about 5 us; four times a second, a person does not notice the wait and the loop not the look."""
MOST_LINES = 100
"""New lines taken at one look: each that is applied waits for the disk."""
READ_BYTES = 4 * MAX_REQUEST_BYTES
TOUCHED: tuple[tuple[str, Verb], ...] = (("stop", "stop"), ("checkpoint", "checkpoint"))
LINES = "commands.jsonl"


class Found(NamedTuple):
    """What a file asks for."""

    request: CommandRequest
    actor: str
    """Owner of the file."""
    reason: str | None
    """Why it is no command."""


class FileTriggers:
    """The files of one run that people steer with.

    Parameters
    ----------
    directory : RunDir
    answered : iterable of Ack
        Of earlier incarnations of the run.
    """

    def __init__(self, directory: RunDir, answered: Iterable[Ack]) -> None:
        self._touched = [(str(directory.path / name), name, verb) for name, verb in TOUCHED]
        self._path = str(directory.path / LINES)
        acks = list(answered)
        self._known = {ack.id for ack in acks}
        self._own = {ack.id for ack in acks if ack.source == "file"}
        self._next_look = -math.inf
        self._seen: list[str] = []
        self._inode = -1
        self._offset = 0
        self._skipping = False
        """Whether what comes next is the rest of a line that is too long."""
        self._unchanged: tuple[int, int] | None = None
        """Size and time of change of the lines when all of them had been read."""

    def admits(self, command: Command) -> bool:
        """Tell whether a command of the journal is another one than those by file, and remember its id."""
        self._known.add(command.id)
        return command.id not in self._own

    def look(self, now: float, *, at_once: bool = False) -> list[Found]:
        """Give what is asked for and was not seen before; looks a few times a second, or at once.

        Parameters
        ----------
        now : float
            Seconds of a monotonic clock.
        at_once : bool
        """
        if now < self._next_look and not at_once:
            return []
        self._next_look = now + LOOK_SECONDS
        found = [*self._touches(), *self._lines()]
        fresh = []
        for one in found:
            if one.request.id not in self._known:
                self._known.add(one.request.id)
                self._own.add(one.request.id)
                fresh.append(one)
        return fresh

    def clear(self) -> None:
        """Remove the touched files that were seen; to be called once their commands have been answered."""
        for path in self._seen:
            # One that cannot be removed is known by its id.
            with suppress(OSError):
                os.unlink(path)
        self._seen.clear()

    def _touches(self) -> list[Found]:
        found = []
        for path, name, verb in self._touched:
            try:
                held = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(held.st_mode):
                self._seen.append(path)
                identity = f"{name}:{held.st_ino:x}:{held.st_mtime_ns:x}"
                found.append(Found(CommandRequest(id=identity, verb=verb), _owner(held.st_uid), None))
        return found

    def _lines(self) -> list[Found]:
        try:
            held = os.stat(self._path)
            if not stat.S_ISREG(held.st_mode) or self._unchanged == (held.st_size, held.st_mtime_ns):
                return []
            # Without waiting, should it be a pipe by now.
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            held = os.fstat(file)
            if held.st_ino != self._inode or held.st_size < self._offset:
                # Another file has taken its place; ids keep what is in both from being done twice.
                self._inode, self._offset, self._skipping = held.st_ino, 0, False
            data = os.pread(file, READ_BYTES, self._offset)
        except OSError:
            return []
        finally:
            os.close(file)
        found, taken = self._parsed(data, _owner(held.st_uid))
        whole = len(data) < READ_BYTES and b"\n" not in data[taken:]
        self._offset += taken
        self._unchanged = (held.st_size, held.st_mtime_ns) if whole else None
        return found

    def _parsed(self, data: bytes, owner: str) -> tuple[list[Found], int]:
        """Take whole lines out of what was read, and tell how many bytes they are; the last one waits for its end."""
        found: list[Found] = []
        taken = 0
        fresh = 0
        while fresh < MOST_LINES and (end := data.find(b"\n", taken)) >= 0:
            line, place = data[taken:end], self._offset + taken
            taken = end + 1
            if self._skipping:
                self._skipping = False
            elif line.strip():
                found.append(_command(line, place, owner))
                fresh += found[-1].request.id not in self._known
        if taken == 0 and len(data) > MAX_REQUEST_BYTES:
            if not self._skipping:
                found.append(_refused(data, self._offset, owner, _TOO_LONG))
            self._skipping = True
            taken = len(data)
        return found, taken


_TOO_LONG = f"a command takes at most {MAX_REQUEST_BYTES} bytes"


def _command(line: bytes, place: int, owner: str) -> Found:
    if len(line) > MAX_REQUEST_BYTES:
        return _refused(line, place, owner, _TOO_LONG)
    try:
        request = codec.from_json(line, CommandRequest)
    except DecodeError as error:
        return _refused(line, place, owner, f"not a command: {error}")
    reason = malformed(request)
    return Found(request, owner, None) if reason is None else _refused(line, place, owner, reason)


def _refused(line: bytes, place: int, owner: str, reason: str) -> Found:
    """Give a line that is no command an id, the same at each reading."""
    digest = hashlib.blake2b(line[:MAX_REQUEST_BYTES], digest_size=4).hexdigest()
    reason = f"{LINES}, the line at byte {place}: {reason}"
    return Found(CommandRequest(id=f"{LINES}:{place}:{digest}", verb="set"), owner, reason)


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
