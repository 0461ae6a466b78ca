"""The doorbell between engine and courier: a byte that says that the engine has added to its log.

What a person waits for is carried at once. Frames and strips are not waited for by themselves: where steps are short,
the courier lets those of `GATHER_SECONDS` come together, because a packet costs courier and server far more than a
frame in it, and the time that both take is taken from commands and acknowledgements. Nor does it have to be woken for
each of them: the engine rings for one and is quiet for `QUIET_SECONDS`, and behind that the courier looks by itself for
what came then.

The bell is a pipe, whose end of file says that the engine is gone. What is waited for goes by an eventfd where there is
one (Linux): who writes to a pipe is taken to be about to sleep, and who is woken by it may be put on the same core.
There the engine goes on computing until the next tick of the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time

GATHER_SECONDS = 0.02
QUIET_SECONDS = 0.01
"""Less than `GATHER_SECONDS`: where frames come without a pause, the courier is at its next look by then anyway."""
AT_ONCE, SOON = b"!", b"."
_ONE = (1).to_bytes(8, sys.byteorder)
"""What is added to an eventfd, eventfd(2)."""


def hurry_line() -> int:
    """Make an eventfd that does not block; -1 where the system has none: the pipe does as well, a little later."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
    except OSError:
        return -1


class BellPush:
    """The engine's end.

    Parameters
    ----------
    descriptor : int
        Writing end of the pipe, which does not block.
    hurry : int
        Of `hurry_line`.
    """

    def __init__(self, descriptor: int, hurry: int = -1) -> None:
        self._descriptor = descriptor
        self._hurry = hurry
        self._rung = float("-inf")

    def ring(self, at_once: bool) -> None:
        """Say that the log has grown. Never waits: where the pipe is full, the bell rings already."""
        now = time.monotonic()
        if at_once or now >= self._rung + QUIET_SECONDS:
            self._rung = now
            if at_once and self._hurry >= 0:
                os.write(self._hurry, _ONE)
                return
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._descriptor, AT_ONCE if at_once else SOON)

    def close(self) -> None:
        """Say that nothing more will be added; a second time nothing happens."""
        # The numbers may be another file's by then.
        for one in {self._descriptor, self._hurry} - {-1}:
            os.close(one)
        self._descriptor = self._hurry = -1


class Doorbell:
    """The courier's end, for one event loop.

    Parameters
    ----------
    descriptor : int
        Reading end of the pipe. Its end of file means that the engine is done or dead.
    hurry : int
        The eventfd; -1 for none.
    """

    def __init__(self, descriptor: int, hurry: int = -1) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._hurry = hurry
        self._rung = self._hurried = False
        self._heard = self._answered = float("-inf")
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()
        """Set once nothing more will be added to the log."""

    def listen(self) -> None:
        """Begin to hear it, on the loop that runs."""
        asyncio.get_running_loop().add_reader(self._descriptor, self._hear)
        if self._hurry >= 0:
            asyncio.get_running_loop().add_reader(self._hurry, self._hear_at_once)

    def _hear_at_once(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._hurry, len(_ONE))
            self._heard = asyncio.get_running_loop().time()
            self.nudge(at_once=True)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            rings = os.read(self._descriptor, 1 << 16)
            self._heard = asyncio.get_running_loop().time()
            if not rings:
                asyncio.get_running_loop().remove_reader(self._descriptor)
                self.over.set()
            self.nudge(at_once=not rings or AT_ONCE in rings)

    def nudge(self, *, at_once: bool) -> None:
        """End a wait from within."""
        self._rung = True
        self._hurried |= at_once
        self._consider()

    def _consider(self) -> None:
        if self._waiter is None or self._waiter.done() or not self._rung:
            return
        loop = asyncio.get_running_loop()
        due = self._answered + GATHER_SECONDS
        if self._hurried or due <= loop.time():
            self._waiter.set_result(None)
        elif self._timer is None:
            self._timer = loop.call_at(due, self._ripe)

    def _ripe(self) -> None:
        self._timer = None
        self._consider()

    async def wait(self) -> None:
        """Wait until there may be something to carry; a ring that came since the last wait ended counts."""
        loop = asyncio.get_running_loop()
        # The engine may have added to the log behind the last look, and have been quiet.
        self._rung |= self._answered < self._heard + QUIET_SECONDS
        self._waiter = loop.create_future()
        try:
            self._consider()
            await self._waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._rung = self._hurried = False
        self._answered = loop.time()
