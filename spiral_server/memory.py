"""Gives memory back to the system that the C library keeps for itself.

What the server holds does not grow with a run, but the heap under it does: packets and blocks of all sizes leave holes
between what stays, and glibc gives back only what lies at the end of its heap. An hour of a usual run left 40 MB of
holes where 90 MB were in use; ``malloc_trim`` gives them back in a few milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil

LOOK_SECONDS = 5.0
HEADROOM_BYTES = 2_000_000
"""Growth since the last time that is worth another time."""
_M_ARENA_MAX = -8
"""Of ``malloc.h``, mallopt(3)."""


def one_heap() -> None:
    """Have all threads of this process share one heap: room that one gives up is of use to the others.

    To be called before they begin. They take turns under the interpreter lock, so that they need none of their own.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> bool:
    """Give free memory back; tell whether the C library can (glibc does)."""
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        return True
    return False


@asynccontextmanager
async def kept_small(look_seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Look now and then whether the process has grown, and give back what is free."""
    process = psutil.Process()

    def resident() -> int:
        return int(process.memory_info().rss)

    async def look(bound: int) -> None:
        while True:
            await asyncio.sleep(look_seconds)
            if resident() > bound:
                if not await asyncio.to_thread(give_back):
                    return
                bound = resident() + HEADROOM_BYTES

    looking = asyncio.create_task(look(resident() + HEADROOM_BYTES))
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
