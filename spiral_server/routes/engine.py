"""``/ws/engine``: where couriers bring what their engines say, and fetch commands."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import EngineHello, EngineWelcome
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.parties import EngineLink
from spiral_server.routes.connection import Connection, first_of

router = APIRouter()


@router.websocket("/ws/engine")
async def engine(socket: WebSocket) -> None:
    """Talk with the courier of one run."""
    connection = Connection(socket, Role.INGEST)
    if await connection.accept():
        await connection.converse(_talk(connection, socket.app.state.hub))


async def _talk(connection: Connection, hub: Hub) -> None:
    hello = await connection.greeting()
    assert isinstance(hello, EngineHello)  # noqa: S101 - the session lets nothing else through
    link = await hub.join(hello, connection.bell)
    try:
        await connection.send([EngineWelcome(protocol=PROTOCOL, stored=link.stored)])
        await first_of(_take_in(connection, hub, link), _give_out(connection, link))
    finally:
        hub.leave(link)


async def _take_in(connection: Connection, hub: Hub, link: EngineLink) -> None:
    while True:
        await hub.ingest(link, await connection.receive())


async def _give_out(connection: Connection, link: EngineLink) -> None:
    bell = connection.bell
    while True:
        await bell.wake.wait()
        bell.wake.clear()
        messages = link.take()
        if messages:
            await connection.send(messages)
