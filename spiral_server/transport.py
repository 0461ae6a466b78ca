"""HTTP connections that cannot be held open for nothing: how many there may be, and how long a request may take.

Uvicorn bounds the pause between two requests by itself. What is here it does not have: bounds on connections, in all
and by address, on headers and on requests that wait for an answer, and times by which the headers and the body of a
request must be complete.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from spiral_server.metrics import Metrics
from spiral_server.settings import Settings

log = structlog.get_logger(__name__)

HEADER_BYTES = 16 * 1024
"""Of a request that are no body: its first line and headers, or what frames the body, its last headers included.

The size of a part that has come whole is not looked at, and where in a part a request begins is not known: up to two
parts more may pass, and what follows the end of another body in one part is counted with that end.
"""
_PART_BYTES = 4096
"""What is parsed at a time."""
MAX_WAITING = 8
"""Requests that were sent before the answer to another one on the same connection; browsers send none."""
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


class _Refused(Exception):
    """A request that is not parsed further."""


class BoundedHttp(HttpToolsProtocol):
    """One connection; see `bounded`."""

    settings: Settings
    metrics: Metrics
    _deadline: asyncio.TimerHandle | None = None
    _waits_for = ""
    _under_way = "headers"
    """What of a request is not complete: headers or body; nothing between two requests."""
    _no_body = 0
    """Bytes that have come of it since it began, or since the last byte of its body."""
    _refusal: tuple[int, bytes, str, str] | None = None
    _answering: RequestResponseCycle | None = None
    """The request that is being answered; uvicorn keeps the last that came."""

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
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and look at the clock."""
        for begin in range(0, len(data), _PART_BYTES):
            if self._is_over():
                break
            part = data[begin : begin + _PART_BYTES]
            super().data_received(part)
            if self._under_way and not self._is_over():
                self._no_body += len(part)
                if self._no_body > HEADER_BYTES:
                    reason = f"the headers of a request take at most {HEADER_BYTES} bytes"
                    self._turn_away(431, b"Request Header Fields Too Large", "headers", reason)
        if self._is_over():
            self._wait_for("")
        elif not self._under_way and self.timeout_keep_alive_task is None and self._is_answered():
            # Bytes that are no request have ended uvicorn's wait for the next one.
            self._wait_for("headers")
        else:
            self._wait_for(self._under_way)

    def on_message_begin(self) -> None:
        """Take note that a request begins, unless too many wait for an answer."""
        if len(self.pipeline) >= MAX_WAITING:
            self._refusal = 429, b"Too Many Requests", "rate", "too many requests at once on one connection"
            raise _Refused
        self._under_way, self._no_body = "headers", 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body mean nothing here."""
        if self._under_way == "headers":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take note that a body follows.

        What comes behind an upgrade is not parsed as a body, and in part lost, and what is said to a websocket does not
        wait for another answer.
        """
        upgrade = self.parser.should_upgrade()
        if upgrade:
            lengths = {value for name, value in self.headers if name in (b"content-length", b"transfer-encoding")}
            if lengths - {b"0"} or not self._is_answered():
                reason = "an upgrade has no body, and comes when all that was asked before is answered"
                self._refusal = 400, b"Bad Request", "http", reason
                raise _Refused
        super().on_headers_complete()
        if upgrade and not self._should_upgrade():
            self.cycle.keep_alive = False
        self._under_way, self._no_body = "body", 0

    def on_body(self, body: bytes) -> None:
        """Take a part of it."""
        self._no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note that the request is complete."""
        self._under_way = ""
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand over to a websocket; one that cannot read its own headers would wait for others for ever."""
        super().handle_websocket_upgrade()
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            self._turn_away(400, b"Bad Request", "http", "no handshake of a websocket, or a header too long for one")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - passed on as it is
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or what a callback of the parser has refused."""
        self._turn_away(*(self._refusal or (400, b"Bad Request", "http", msg)))

    def _is_over(self) -> bool:
        """Tell whether nothing more is read here: turned away, or a websocket now, which has a heartbeat."""
        return self.transport.is_closing() or self.transport.get_protocol() is not self

    def _is_answered(self) -> bool:
        """Tell whether no request waits for the end of its answer."""
        return self.cycle is None or self.cycle.response_complete

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
        # An answer would be taken for that to another request while one is under way.
        first = self._under_way == "body" and not self.pipeline and not self.cycle.response_started
        if first or self._is_answered():
            body = b'{"error":"%s"}' % reason.encode()
            self.transport.write(_ANSWER % (status, phrase, len(body), body))
        self.transport.close()


def bounded(settings: Settings, metrics: Metrics) -> type[BoundedHttp]:
    """Give the protocol of the connections of one server; uvicorn makes an object of it for each."""
    bounds: dict[str, Any] = {"settings": settings, "metrics": metrics}
    return type("BoundedHttp", (BoundedHttp,), bounds)
