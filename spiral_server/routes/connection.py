"""The shell around a `Session`: reads and writes a websocket, keeps its heartbeat, closes it with the right code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from spiral_core.errors import RemoteError
from spiral_core.wire.limits import (
    CLOSE_BAD_DATA,
    CLOSE_FORBIDDEN,
    CLOSE_SILENT,
    CLOSE_TOO_BIG,
    CLOSE_TOO_OFTEN,
    CLOSE_TOO_SLOW,
    CLOSE_TRY_AGAIN,
    CLOSE_UNAUTHORIZED,
    VIEWER_PACKET_BYTES,
    VIEWER_PACKETS_PER_SECOND,
)
from spiral_core.wire.messages import AnyMessage, Message, Steer
from spiral_core.wire.session import Role, Session
from spiral_server.hub import CLOSE_INTERNAL
from spiral_server.live.channel import Parcel
from spiral_server.live.rates import Allowance
from spiral_server.live.tokens import Right
from spiral_server.routes.doors import (
    BURST_SECONDS,
    RefusedError,
    admit,
    doorkeeper_of,
    refused,
    require_origin,
    settings_of,
    visitor_of,
)
from spiral_server.routes.socket import CLOSE_SECONDS, FramedSocket, framed, framed_socket
from spiral_server.settings import Pace
from spiral_server.store.errors import StoreError

log = structlog.get_logger(__name__)

REASON_BYTES = 123
"""RFC 6455 section 5.5: a close frame holds 125 bytes, two of them for the code."""


class ConnectionBell:
    """Calls one connection (see `spiral_server.live.parties.Bell`)."""

    def __init__(self) -> None:
        self._answer: Callable[[], None] | None = None
        self._left = asyncio.Event()
        self._why = RemoteError(CLOSE_INTERNAL, "")

    def ring(self) -> None:
        """Something is there to be sent."""
        if self._answer is not None:
            self._answer()

    def open(self, answer: Callable[[], None]) -> None:
        """Have each ring answered from now on, and what was rung for before."""
        self._answer = answer
        answer()

    def leave(self, code: int, reason: str) -> None:
        """Ask for the connection to be closed; the first reason counts."""
        if not self._left.is_set():
            self._why = RemoteError(code, reason)
            self._left.set()

    async def left(self) -> None:
        """Wait until asked to leave, then raise why."""
        await self._left.wait()
        raise self._why


class Connection:
    """One websocket and its session.

    Parameters
    ----------
    socket : WebSocket
        Not yet accepted.
    role : Role
        The server's end of the conversation.
    """

    def __init__(self, socket: WebSocket, role: Role) -> None:
        self._socket = socket
        self._role = role
        self._frames = framed_socket(socket)
        self._pace = settings_of(socket).pace
        self._session = session_of(role, self._pace)
        self._bounds = Bounds()
        self._early: list[AnyMessage] = []
        self._looked_at: list[AnyMessage] | None = None
        """Messages of a packet that was not taken as it came (see `shorten`)."""
        self.listening = False
        """Whether nothing that has come is still being dealt with."""
        self.bell = ConnectionBell()

    async def accept(self) -> bool:
        """Check who knocks, and shake hands; False when the connection has been refused."""
        try:
            require_origin(self._socket)
        except RefusedError as refusal:
            refused("websocket", self._socket, refusal)
            await self._socket.close()  # before the handshake: HTTP 403
            return False
        await self._socket.accept()
        try:
            admit(self._socket, Right.FEED if self._role is Role.INGEST else Right.WATCH)
        except RefusedError as refusal:
            # After the handshake, because a page cannot see the status of a failed one.
            refused("websocket", self._socket, refusal)
            self.close(CLOSE_UNAUTHORIZED if refusal.status == 401 else CLOSE_FORBIDDEN, refusal.reason)
            return False
        return True

    async def receive(self) -> list[AnyMessage]:
        """Wait for the next packet and give its messages.

        Raises
        ------
        RemoteError
            The packet breaks the protocol.
        WebSocketDisconnect
            The peer is gone.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        self.listening = True
        try:
            event = await self._socket.receive()
        finally:
            self.listening = False
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        packet = event.get("bytes")
        if packet is None:
            raise RemoteError(CLOSE_BAD_DATA, "packets are binary, not text")
        messages, self._looked_at = self._looked_at, None
        return self._read(packet) if messages is None else messages

    def _read(self, packet: bytes) -> list[AnyMessage]:
        now = time.monotonic()
        if self._role is Role.VIEW:
            self._bounds.check(packet, now)
        messages = self._session.receive(packet, now=now)
        if self._role is Role.VIEW:
            self._bounds.charge(messages, now)
        self._flush()
        return messages

    def shorten(self, take: Callable[[list[AnyMessage]], bool]) -> None:
        """Offer packets as they come, past the queue and the task behind it, while none waits there.

        Those are two turns of the event loop and two calls of the system for each packet. What is not taken like this
        is received as ever; ``take`` tells whether it has taken all messages, or none of them. What was received last
        may still be being dealt with: see `listening`.
        """

        def on_packet(packet: bytes) -> bool:
            try:
                messages = self._read(packet)
                if not take(messages):
                    self._looked_at = messages
                    return False
            except RemoteError as error:
                self._give_up(error.code, error.reason)
            except Exception:
                log.exception("a packet cannot be taken in")
                self._give_up(CLOSE_INTERNAL, "the server failed; its log says why")
            return True

        self._frames.on_packet = on_packet

    def _give_up(self, code: int, reason: str) -> None:
        """Close, and take nothing of what has come already behind a packet that could not be taken in."""
        self._frames.on_packet = lambda _: True
        self.bell.leave(code, reason)

    async def greeting(self) -> Message:
        """Wait for the peer's first words; what it says in the same breath is received next."""
        messages: list[AnyMessage] = []
        while not messages:
            messages = await self.receive()
        self._early = messages[1:]
        return messages[0]

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages as one packet, without waiting; on a connection that is being closed nothing happens."""
        self._frames.write_frame(framed(self._session.send(messages)))

    @property
    def room(self) -> asyncio.Event:
        """Set while what is sent is taken by the peer, or by buffers in between."""
        return self._frames.writable

    def outlet(self, ready: Callable[[], None]) -> SocketOutlet:
        """Give the way out for packets that many viewers are sent; calls back when it can take more after a jam."""
        return SocketOutlet(self._frames, self.bell, self._pace, ready)

    def _flush(self) -> None:
        # Not waited for: heartbeats are small, and their answers must not wait behind a peer that does not read.
        for packet in self._session.data_to_send():
            self._frames.write_frame(framed(packet))

    async def beat(self) -> None:
        """Keep the heartbeat until the peer is silent for too long."""
        while True:
            await asyncio.sleep(max(0.0, self._session.next_tick() - time.monotonic()))
            self._session.tick(now=time.monotonic())
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close, without waiting for the peer to read so far."""
        slow = code in (CLOSE_TOO_SLOW, CLOSE_SILENT)
        linger = self._pace.linger if slow else CLOSE_SECONDS
        self._frames.close_with(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"), linger)

    async def converse(self, *work: Coroutine[Any, Any, None]) -> None:
        """Run the tasks of the connection until the first one ends, then close as its error says."""
        try:
            await first_of(*work, self.beat(), self.bell.left(), revoked(self._socket))
        except RemoteError as error:
            log.info("a connection is closed", code=error.code, reason=error.reason)
            self.close(error.code, error.reason)
        except WebSocketDisconnect:
            pass
        except StoreError as error:
            # The data of a run cannot be read, or the run has been deleted meanwhile.
            log.error("a connection cannot be served", reason=str(error))
            self.close(CLOSE_TRY_AGAIN, str(error))
        except Exception:
            self.close(CLOSE_INTERNAL, "the server failed; its log says why")
            raise


class SocketOutlet:
    """Writes packets for a viewer onto its websocket (see `spiral_server.live.channel.Outlet`)."""

    def __init__(self, frames: FramedSocket, bell: ConnectionBell, pace: Pace, ready: Callable[[], None]) -> None:
        self._frames = frames
        self._stall = Stall(bell.leave, pace.stall)
        self.leave = bell.leave
        self._ready = ready
        frames.on_jam = self._stall.begin
        frames.on_clear = self._clear

    @property
    def ready(self) -> bool:
        """Whether the socket's buffer has room."""
        return self._frames.writable.is_set()

    def send(self, parcel: Parcel) -> None:
        """Write a packet."""
        self._frames.write_frame(parcel.wrapped("websocket", framed))

    def _clear(self) -> None:
        self._stall.end()
        self._ready()

    def end(self) -> None:
        """Let go of the socket: the viewer is gone."""
        self._stall.end()
        self._frames.on_jam = self._frames.on_clear = None


class Stall:
    """Closes the connection of a viewer that takes nothing for too long."""

    def __init__(self, leave: Callable[[int, str], None], seconds: float) -> None:
        self._leave = leave
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something waits that the viewer does not take."""
        if self._timer is None:
            reason = f"this viewer took nothing for {self._seconds:g} s; it may come back"
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._leave, CLOSE_TOO_SLOW, reason)

    def end(self) -> None:
        """Take note that the viewer takes again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Bounds:
    """Bounds what a viewer says; an engine is slowed down where need be, for it must not lose what it has to say."""

    def __init__(self) -> None:
        self._allowance = Allowance(VIEWER_PACKETS_PER_SECOND, VIEWER_PACKETS_PER_SECOND * BURST_SECONDS)

    def check(self, packet: bytes, now: float) -> None:
        """Look at a packet before it is read.

        Raises
        ------
        RemoteError
            Too large, or too many.
        """
        if len(packet) > VIEWER_PACKET_BYTES:
            raise RemoteError(CLOSE_TOO_BIG, f"a viewer's packet takes at most {VIEWER_PACKET_BYTES} bytes")
        self._take(now)

    def charge(self, messages: Sequence[Message], now: float) -> None:
        """Count commands that come in one packet as if each came by itself.

        Raises
        ------
        RemoteError
            Too many.
        """
        for _ in [message for message in messages if isinstance(message, Steer)][1:]:
            self._take(now)

    def _take(self, now: float) -> None:
        if self._allowance.take("", now) > 0:
            raise RemoteError(
                CLOSE_TOO_OFTEN, f"a viewer sends at most {VIEWER_PACKETS_PER_SECOND:.0f} packets a second"
            )


async def revoked(connection: HTTPConnection) -> None:
    """Wait until the token that was shown is taken back, then raise that."""
    visitor = visitor_of(connection)
    await doorkeeper_of(connection).until_revoked(visitor.token, visitor.holder)
    raise RemoteError(CLOSE_UNAUTHORIZED, f"the token {visitor.holder.name!r} has been revoked")


def session_of(role: Role, pace: Pace) -> Session:
    """Begin a session of our end."""
    return Session(role, now=time.monotonic(), heartbeat=pace.heartbeat, silence=pace.silence)


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all, end when one ends, and raise what it raised; the others are cancelled and waited for."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    # A reason to close says more than the disconnect that it led to.
    errors = [result for task, result in zip(tasks, results, strict=True) if task in done and result is not None]
    errors.sort(key=lambda error: isinstance(error, WebSocketDisconnect))
    if errors:
        raise errors[0]
