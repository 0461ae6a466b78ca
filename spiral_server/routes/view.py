"""``/ws/view``: where pages watch runs."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

import spiral_core
from spiral_core.errors import RemoteError
from spiral_core.wire.limits import CLOSE_PROTOCOL, PROTOCOL
from spiral_core.wire.messages import AnyMessage, Compare, Steer, ViewWelcome, Visibility, Watch
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.parties import Viewer
from spiral_server.routes.connection import Connection
from spiral_server.routes.doors import settings_of
from spiral_server.routes.steer import PageSteering

router = APIRouter()


@router.websocket("/ws/view")
async def view(socket: WebSocket) -> None:
    """Talk with one page."""
    connection = Connection(socket, Role.VIEW)
    if await connection.accept():
        await connection.converse(_talk(connection, socket))


def welcome(instance: str) -> ViewWelcome:
    """Answer the greeting of a page."""
    return ViewWelcome(protocol=PROTOCOL, instance=instance, server=spiral_core.__version__)


async def heed(hub: Hub, viewer: Viewer, message: AnyMessage) -> None:
    """Do what a page asks to see.

    Raises
    ------
    RemoteError
        It asks for something else.
    """
    match message:
        case Watch():
            await hub.showing.watch(viewer, message)
        case Compare():
            await hub.audience.comparisons.compare(viewer, message)
        case Visibility():
            hub.audience.see(viewer, visible=message.visible)
        case Steer():
            raise RemoteError(CLOSE_PROTOCOL, "here commands are posted: POST api/runs/{run}/commands")
        case _:
            pass


async def _talk(connection: Connection, socket: WebSocket) -> None:
    hub: Hub = socket.app.state.hub
    await connection.greeting()
    connection.send([welcome(settings_of(socket).instance)])
    steering = PageSteering(socket, connection.room, lambda told: connection.send([told]))
    outlet = connection.outlet(lambda: hub.audience.ready(viewer))
    viewer = hub.arrive(outlet)

    def take(messages: list[AnyMessage]) -> bool:
        # What comes behind the word that nobody looks is not to be sent any more.
        looks = [message for message in messages if isinstance(message, Visibility)]
        if len(looks) < len(messages) or not connection.listening:
            return steering.take(messages)
        for message in looks:
            hub.audience.see(viewer, visible=message.visible)
        return True

    try:
        connection.shorten(take)
        while True:
            messages = await connection.receive()
            with steering.turn(messages):
                for message in messages:
                    if isinstance(message, Steer):
                        await steering.give(message)
                    else:
                        await heed(hub, viewer, message)
    finally:
        outlet.end()
        hub.audience.depart(viewer)
