"""``/ws/view``: where pages watch runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from fastapi import APIRouter
from starlette.websockets import WebSocket

import spiral_core
from spiral_core.wire.limits import PROTOCOL, VIEW_TICK_SECONDS
from spiral_core.wire.messages import ViewWelcome, Watch
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.parties import Viewer
from spiral_server.routes.connection import Connection, first_of
from spiral_server.routes.doors import settings_of

router = APIRouter()


@router.websocket("/ws/view")
async def view(socket: WebSocket) -> None:
    """Talk with one page."""
    connection = Connection(socket, Role.VIEW)
    if await connection.accept():
        await connection.converse(_talk(connection, socket.app.state.hub, settings_of(socket).instance))


async def _talk(connection: Connection, hub: Hub, instance: str) -> None:
    await connection.greeting()
    welcome = ViewWelcome(protocol=PROTOCOL, instance=instance, server=spiral_core.__version__)
    await connection.send([welcome])
    viewer = hub.arrive(connection.bell)
    try:
        await first_of(_take_in(connection, hub, viewer), _give_out(connection, viewer))
    finally:
        hub.depart(viewer)


async def _take_in(connection: Connection, hub: Hub, viewer: Viewer) -> None:
    while True:
        for message in await connection.receive():
            if isinstance(message, Watch):
                await hub.watch(viewer, message)


async def _give_out(connection: Connection, viewer: Viewer) -> None:
    """Send what waits: at once after a pause or when a person waits for it, else once in a tick."""
    bell, mailbox = connection.bell, viewer.mailbox
    sent = 0.0
    while True:
        await bell.wake.wait()
        delay = sent + VIEW_TICK_SECONDS - time.monotonic()
        if delay > 0 and not mailbox.urgent:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await bell.rush.wait()
        bell.wake.clear()
        bell.rush.clear()
        packet = mailbox.drain()
        if packet:
            sent = time.monotonic()
            await connection.forward(packet)
        if mailbox.pending:
            bell.ring(urgent=mailbox.urgent)
