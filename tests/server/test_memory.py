"""Memory that the server does not use any more goes back to the system."""

from __future__ import annotations

import asyncio
import time

import psutil

from spiral_server import memory

HELD = 150_000
BYTES = 1000
"""Of each: what is smaller than 512 bytes, Python keeps in an arena of its own."""


def test_holes_between_what_stays_are_given_back() -> None:
    process = psutil.Process()

    async def live() -> tuple[int, int]:
        async with memory.kept_small(look_seconds=0.02):
            held = [bytes(BYTES) for _ in range(HELD)]
            full = process.memory_info().rss
            # What stays is spread over the whole, so that the heap has no free end.
            staying = held[::50]
            held.clear()
            deadline = time.monotonic() + 20
            while process.memory_info().rss > full - HELD * BYTES * 0.7 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert len(staying) == HELD / 50
            return full, process.memory_info().rss

    full, left = asyncio.run(live())
    assert left < full - HELD * BYTES * 0.7
