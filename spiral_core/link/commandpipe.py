"""The courier's end of the command pipe, see `inbox`: an engine that does not read holds nothing up."""

from __future__ import annotations

import asyncio
import os

from spiral_core.link.inbox import LENGTH


class CommandPipe:
    """Hands commands down to the engine; what there is no room for in the pipe waits here.

    Parameters
    ----------
    descriptor : int
        Used from one event loop.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._waiting = bytearray()

    def put(self, data: bytes) -> None:
        """Hand down an encoded command as soon as there is room for it; one for an engine that is gone is dropped."""
        idle = not self._waiting
        self._waiting += LENGTH.pack(len(data)) + data
        if idle:
            self._write()
            if self._waiting:
                asyncio.get_running_loop().add_writer(self._descriptor, self._write)

    def _write(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._descriptor, self._waiting)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._waiting.clear()
        asyncio.get_running_loop().remove_writer(self._descriptor)
