"""The doorbell between engine and courier: one byte for each record that the engine has added to its log.

What a person waits for is carried at once. Frames are not waited for by themselves: where steps are short, the courier
lets those of `GATHER_SECONDS` come together, because a packet costs courier and server far more than a frame in it, and
the time that both take is taken from commands and acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

GATHER_SECONDS = 0.01
AT_ONCE, SOON = b"!", b"."


def ring(doorbell: int, at_once: bool) -> None:
    """Tell the courier that the log has grown. Never waits: where the pipe is full, the bell rings already."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(doorbell, AT_ONCE if at_once else SOON)


class Doorbell:
    """The courier's end, for one event loop.

    Parameters
    ----------
    descriptor : int
        Reading end of the pipe. Its end of file means that the engine is done or dead.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rung = asyncio.Event()
        self._at_once = asyncio.Event()
        self._answered = float("-inf")
        self.over = asyncio.Event()
        """Set once nothing more will be added to the log."""

    def listen(self) -> None:
        """Begin to hear it, on the loop that runs."""
        asyncio.get_running_loop().add_reader(self._descriptor, self._hear)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            rings = os.read(self._descriptor, 1 << 16)
            if not rings:
                asyncio.get_running_loop().remove_reader(self._descriptor)
                self.over.set()
            self.nudge(at_once=not rings or AT_ONCE in rings)

    def nudge(self, *, at_once: bool) -> None:
        """End a wait from within."""
        self._rung.set()
        if at_once:
            self._at_once.set()

    async def wait(self) -> None:
        """Wait until there is something to carry; a ring that came since the last wait ended counts."""
        loop = asyncio.get_running_loop()
        await self._rung.wait()
        if (until := self._answered + GATHER_SECONDS) > loop.time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._at_once.wait()
        self._rung.clear()
        self._at_once.clear()
        self._answered = loop.time()
