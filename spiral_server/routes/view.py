"""``/ws/view``: where pages watch runs."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

import spiral_core
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import AnyMessage, Compare, ViewWelcome, Visibility, Watch
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.parties import Viewer
from spiral_server.routes.connection import Connection
from spiral_server.routes.doors import settings_of

router = APIRouter()


@router.websocket("/ws/view")
async def view(socket: WebSocket) -> None:
    """Talk with one page."""
    connection = Connection(socket, Role.VIEW)
    if await connection.accept():
        await connection.converse(_talk(connection, socket.app.state.hub, settings_of(socket).instance))


def welcome(instance: str) -> ViewWelcome:
    """Answer the greeting of a page."""
    return ViewWelcome(protocol=PROTOCOL, instance=instance, server=spiral_core.__version__)


async def heed(hub: Hub, viewer: Viewer, message: AnyMessage) -> None:
    """Do what a page asks for."""
    match message:
        case Watch():
            await hub.showing.watch(viewer, message)
        case Compare():
            await hub.audience.comparisons.compare(viewer, message)
        case Visibility():
            hub.audience.see(viewer, visible=message.visible)
        case _:
            pass


async def _talk(connection: Connection, hub: Hub, instance: str) -> None:
    await connection.greeting()
    connection.send([welcome(instance)])
    outlet = connection.outlet(lambda: hub.audience.ready(viewer))
    viewer = hub.arrive(outlet)
    try:
        while True:
            for message in await connection.receive():
                await heed(hub, viewer, message)
    finally:
        outlet.end()
        hub.audience.depart(viewer)
