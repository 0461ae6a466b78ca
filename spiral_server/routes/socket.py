"""Uvicorn's websocket, which also takes frames that are framed already, and says when it can take more.

A packet for three hundred viewers is one frame, the same bytes for all: frames of a server are not masked. Passing it
through ASGI, three layers and a task for each viewer costs ten times as much as writing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

EXTENSION = "spiral.socket"
"""Key of the socket among the extensions of its scope."""


def framed(packet: bytes) -> bytes:
    """Wrap a packet into one binary websocket frame of a server."""
    return Frame(Opcode.BINARY, packet).serialize(mask=False)


class FramedSocket(WebSocketsSansIOProtocol):
    """One websocket.

    ``on_jam`` is called when the peer reads too slowly for the buffers in between, ``on_clear`` when there is room
    again.
    """

    def __init__(self, *words: Any, **named: Any) -> None:  # noqa: ANN401 - passed on to uvicorn as they are
        super().__init__(*words, **named)
        self.on_jam: Callable[[], None] | None = None
        self.on_clear: Callable[[], None] | None = None

    def handle_connect(self, event: Request) -> None:
        """Open the conversation; its scope knows this object."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = {"socket": self}

    @property
    def _writes(self) -> bool:
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    def write_frame(self, frame: bytes) -> None:
        """Write a whole frame without waiting; nothing happens on a socket that is being closed."""
        if self._writes:
            self.transport.write(frame)

    def pause_writing(self) -> None:
        """Take note that the peer reads too slowly."""
        super().pause_writing()
        if self.on_jam is not None:
            self.on_jam()

    def resume_writing(self) -> None:
        """Take note that there is room again."""
        super().resume_writing()
        if self.on_clear is not None:
            self.on_clear()

    def close_with(self, code: int, reason: str, linger: float) -> None:
        """Send the close frame behind what waits already.

        A peer that does not read finds it when it reads again, within ``linger`` seconds; then the socket goes.
        """
        if not self._writes:
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:  # the peer was faster
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # Uvicorn cancels this timer when the peer has answered.
        self.close_timer = asyncio.get_running_loop().call_later(linger, self.transport.abort)


def framed_socket(socket: WebSocket) -> FramedSocket:
    """Give the socket under a websocket."""
    return cast(FramedSocket, socket.scope["extensions"][EXTENSION]["socket"])
