"""``/ws/engine``: where couriers bring what their engines say, and fetch commands."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import AnyMessage, EngineHello, EngineWelcome
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.parties import EngineLink
from spiral_server.routes.connection import Connection

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
        connection.send([EngineWelcome(protocol=PROTOCOL, stored=link.stored)])
        connection.bell.open(lambda: _give_out(connection, link))
        connection.shorten(lambda messages: connection.listening and _take(hub, link, messages))
        while True:
            await hub.ingest(link, await connection.receive())
    finally:
        hub.leave(link)


def _take(hub: Hub, link: EngineLink, messages: list[AnyMessage]) -> bool:
    if not hub.takes_at_once(link, messages):
        return False
    hub.take_in(link, messages)
    return True


def _give_out(connection: Connection, link: EngineLink) -> None:
    messages = link.take()
    if messages:
        connection.send(messages)
