"""What a test asks of a real server, on both of its sides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from httpx import Response

from spiral_core.wire import codec
from spiral_core.wire.messages import (
    CommandRequest,
    Snapshot,
    Stored,
    Watch,
)

from .house import House, Peer


def play(story: Coroutine[Any, Any, None], seconds: float = 30) -> None:
    asyncio.run(asyncio.wait_for(story, seconds))


async def give(house: House, request: CommandRequest, run: str = "r1") -> Response:
    with house.http() as http:
        body = codec.to_json(request)
        return await asyncio.to_thread(http.post, f"/api/runs/{run}/commands", content=body)


async def ask(house: House, path: str) -> Any:
    with house.http() as http:
        return (await asyncio.to_thread(http.get, path)).json()


async def stored(engine: Peer, seq: int) -> None:
    await engine.next_of(Stored, lambda message: message.seq >= seq)


async def shown(page: Peer, run: str = "r1") -> Snapshot:
    await page.say(Watch(run=run, width=800))
    snapshot: Snapshot = await page.next_of(Snapshot)
    return snapshot
