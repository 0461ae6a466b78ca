"""The command inbox: how commands and signals reach the training loop.

The courier writes length-prefixed `Command` messages into a pipe; the loop looks at the pipe at each step boundary
(about a microsecond when it is empty) and sleeps on it while it is paused or paced, so that a command wakes it at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
from types import FrameType

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import Command

LENGTH = struct.Struct("<I")
"""Before each command in the pipe: its bytes."""


class Inbox:
    """The reading end of the command pipe, with Ctrl-C and the parent's death as further reasons to wake up.

    Parameters
    ----------
    lifeline : int or None
        A pipe's reading end that closes when the process that started this one is gone; the run then stops.
    """

    def __init__(self, *, lifeline: int | None = None) -> None:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._lifeline = lifeline
        self._buffer = b""
        self._poll = select.poll()
        self.hung_up = False
        """Whether the writing end is gone: the courier has died, and no command can come."""
        self._read, self.write_end = self._open()
        self._poll.register(self._wake_read, select.POLLIN)
        if lifeline is not None:
            self._poll.register(lifeline, select.POLLIN | select.POLLHUP)
        self.interrupted = False
        """Set once Ctrl-C, SIGTERM or the parent's death asks the run to stop."""

    def _open(self) -> tuple[int, int]:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        self._poll.register(read_end, select.POLLIN)
        return read_end, write_end

    def renew(self) -> bool:
        """Open a new command pipe for a new courier; tell whether the system had room for one.

        What the old one left half said is forgotten.
        """
        old = self._read
        try:
            self._read, self.write_end = self._open()
        except OSError:
            return False
        os.close(old)
        self._buffer = b""
        self.hung_up = False
        return True

    def catch_signals(self) -> None:
        """Turn the first SIGINT or SIGTERM into `interrupted`; a second one ends the process at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"!")

    def close_write_end(self) -> None:
        """Close our copy of the writing end once the courier has its own."""
        os.close(self.write_end)

    def wait(self, seconds: float | None) -> None:
        """Sleep until a command arrives, the run is interrupted, or the time is over (None: no limit)."""
        if self._buffer or self.interrupted:
            return
        events = self._poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        self._note(events)

    def drain(self) -> list[Command]:
        """Give the commands that have arrived, without waiting."""
        events = self._poll.poll(0)
        if not events and not self._buffer:
            return []
        self._note(events)
        return self._parse()

    def _note(self, events: list[tuple[int, int]]) -> None:
        for descriptor, flags in events:
            if descriptor == self._lifeline:
                self.interrupted = True
                self._poll.unregister(descriptor)
            elif descriptor == self._read:
                self._fill(flags)

    def _fill(self, flags: int) -> None:
        if flags & select.POLLIN:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._read, 1 << 16)
        elif flags & (select.POLLHUP | select.POLLERR):
            # The courier is gone: training goes on, and its caller may start another.
            self._poll.unregister(self._read)
            self.hung_up = True

    def _parse(self) -> list[Command]:
        commands: list[Command] = []
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            end = LENGTH.size + length
            if len(self._buffer) < end:
                break
            message = codec.decode(self._buffer[LENGTH.size : end])
            self._buffer = self._buffer[end:]
            if not isinstance(message, Command):
                raise DecodeError(f"the command pipe carried a {type(message).__name__}")
            commands.append(message)
        return commands
