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

CLOSE_SECONDS = 10.0
"""How long a peer is given to answer a close frame, unless it is closed for not reading."""
QUIET_SECONDS = 0.2
"""How long nothing must come from a peer that has been told off, before its connection goes."""
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
        self.on_packet: Callable[[bytes], bool] | None = None
        """Offered each packet before it is queued; tells whether it has taken it."""
        self._failed = False
        """Whether the peer has sent what is no websocket frame, and has been told."""
        self._patience = 0.0
        """When the connection of such a peer goes, however much still comes."""

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

    def data_received(self, data: bytes) -> None:
        """Take bytes in; forget them when nothing that comes can matter any more."""
        if self._failed:
            self._hang_up_when_quiet()
        else:
            super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; a text that is not even UTF-8 is refused as any text is, and is no failure of ours."""
        if self.curr_msg_data_type == "text":
            self.frames = [b"".join(self.frames).decode(errors="replace").encode()]
        elif self.on_packet is not None and self.queue.empty() and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            if self.on_packet(self.frames[0]):
                self.frames = []
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Say what is wrong with the frames of the peer, and hang up once it has heard.

        One who is still sending when its connection goes learns that it has gone, and not the code that says why.
        """
        self._failed = True
        # For those who are about to say something: they are told that nobody is there, and need not look first.
        self.disconnected = True
        said = self.conn.close_sent or self.conn.close_rcvd
        code, reason = (1002, "") if said is None else (said.code, said.reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._patience = asyncio.get_running_loop().time() + CLOSE_SECONDS
        self._hang_up_when_quiet()

    def _hang_up_when_quiet(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        loop = asyncio.get_running_loop()
        # Uvicorn leaves the connection alone while there is this timer.
        self.close_timer = loop.call_at(min(self._patience, loop.time() + QUIET_SECONDS), self._hang_up)

    def _hang_up(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not even read
        else:
            self.transport.close()

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
