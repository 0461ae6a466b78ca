"""HTTP connections that cannot be held open for nothing: how many there may be, and how long a request may take.

Uvicorn bounds the size of headers and the pause between two requests by itself. What is here it does not have: bounds
on connections, in all and by address, and times by which the headers and the body of a request must be complete.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, cast

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from spiral_server.metrics import Metrics
from spiral_server.settings import Settings

log = structlog.get_logger(__name__)

_ANSWER = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


async def stop_accepting(listeners: Iterable[socket.socket]) -> None:
    """Take no more connections; those that were accepted have begun when this is over, with TLS their handshakes.

    To be called before `asyncio.Server.close`, which up to Python 3.12 loses a connection that was accepted in the same
    turn of the loop: nobody closes it (CPython issue 109564).
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        loop.remove_reader(listener.fileno())
    # In one turn the transport is made, in the next its protocol is told.
    for _ in range(2):
        await asyncio.sleep(0)


class BoundedHttp(H11Protocol):
    """One connection; see `bounded`."""

    settings: Settings
    metrics: Metrics
    _deadline: asyncio.TimerHandle | None = None
    _waits_for = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        crowd = self._crowd()
        if crowd:
            self._turn_away(503, b"Service Unavailable", "connections", crowd)
        else:
            self._wait_for("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let it go."""
        self._wait_for("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and look at the clock."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            # Turned away, or a websocket now, which has a heartbeat.
            self._wait_for("")
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait_for("body")
        elif self.conn.their_state is h11.IDLE:
            self._wait_for("headers")
        else:
            self._wait_for("")

    def _wait_for(self, what: str) -> None:
        """Set the time by which headers or body must be complete; more bytes of the same do not move it."""
        if what == self._waits_for:
            return
        self._waits_for = what
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if what:
            seconds = self.settings.header_seconds if what == "headers" else self.settings.body_seconds
            self._deadline = self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self._turn_away(408, b"Request Timeout", "slow", f"the {self._waits_for} of a request took too long")

    def _crowd(self) -> str:
        """Tell why there is no room for this connection; "" when there is."""
        peer = self.client[0] if self.client else None
        if len(self.connections) > self.settings.max_connections:
            return "too many connections at once; try again later"
        if peer is None or peer in self.settings.trusted_proxies:
            return ""
        # Websockets are among them: they keep their place when they take over from HTTP.
        others = sum((getattr(one, "client", None) or ("",))[0] == peer for one in self.connections)
        if others > self.settings.max_connections_per_address:
            return f"too many connections from {peer} at once; close some"
        return ""

    def _turn_away(self, status: int, phrase: bytes, cause: str, reason: str) -> None:
        self.metrics.refused.labels(cause).inc()
        address = self.client[0] if self.client else "unknown"
        log.warning("a connection is refused", cause=cause, reason=reason, status=status, address=address)
        if self.cycle is None or not self.cycle.response_started:
            body = b'{"error":"%s"}' % reason.encode()
            self.transport.write(_ANSWER % (status, phrase, len(body), body))
        self.transport.close()


def bounded(settings: Settings, metrics: Metrics) -> type[BoundedHttp]:
    """Give the protocol of the connections of one server; uvicorn makes an object of it for each."""
    bounds: dict[str, Any] = {"settings": settings, "metrics": metrics}
    return type("BoundedHttp", (BoundedHttp,), bounds)
