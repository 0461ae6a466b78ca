"""What stands before every route: the Host check and the headers of each answer, and the questions that a route asks.

The rules are in `spiral_server.live.access`; this translates them into answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiral_core.wire import codec
from spiral_core.wire.requests import MAX_REQUEST_BYTES
from spiral_server.launch.doorkeeper import Doorkeeper
from spiral_server.live import access
from spiral_server.live.rates import Allowance, retry_after
from spiral_server.live.tokens import Holder, Right
from spiral_server.metrics import Metrics
from spiral_server.settings import Settings

SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
NO_STORE = {"Cache-Control": "no-store"}
LOOKING = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""
TOO_LARGE = f"a request takes at most {MAX_REQUEST_BYTES} bytes"
BURST_SECONDS = 4.0
"""How much of its rate somebody may use at once: a page asks for a handful of things in a moment, then for none."""
STRANGERS = 10
"""Those who show no token or a wrong one get the tenth part of the rate."""
LOGGED_CHARS = 200
_AT_THE_DOOR = frozenset({b"host", b"origin", b"authorization", b"cookie", b"content-length"})
_ENTRY = "spiral.entry"
"""Key of the `_Entry` in the scope of a request."""

log = structlog.get_logger(__name__)


def content_security_policy(settings: Settings) -> str:
    """Say what the page may load, and who may show it in a frame."""
    ancestors = " ".join(settings.frame_ancestors) or "'none'"
    return (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        f"connect-src 'self'; frame-ancestors {ancestors}; base-uri 'none'"
    )


class RefusedError(Exception):
    """A request that may not come in.

    Parameters
    ----------
    status : int
        HTTP status.
    reason : str
        What to do about it.
    cause : str
        In one word, as it is counted: host, origin, token, role, rate, body.
    """

    def __init__(self, status: int, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.cause = cause


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON in which non-finite numbers are strings."""
    return Response(
        codec.to_json(value), status, media_type="application/json", headers={**NO_STORE, **(headers or {})}
    )


def trouble(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """Answer with an error."""
    return answer({"error": reason}, status, headers)


def _knock_of(scope: Scope) -> tuple[access.Knock, str]:
    """Take the headers that matter at the door, and the length of the body; of repeated ones the first, but no Host."""
    found = {name: value.decode("latin-1") for name, value in reversed(scope["headers"]) if name in _AT_THE_DOOR}
    once = [name for name, _ in scope["headers"]].count(b"host") == 1
    knock = access.Knock(
        host=found.get(b"host") if once else None,
        origin=found.get(b"origin"),
        authorization=found.get(b"authorization"),
        cookie=found.get(b"cookie"),
    )
    return knock, found.get(b"content-length", "")


def settings_of(connection: HTTPConnection) -> Settings:
    """Give the server's settings."""
    return cast(Settings, connection.app.state.settings)


def _raise(refusal: access.Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal.status, refusal.reason, refusal.cause)


class _Entry(NamedTuple):
    """What was found out about a request before any route, once for all that is asked of it later."""

    knock: access.Knock
    token: str | None
    holder: Holder | None


@dataclass(frozen=True)
class Visitor:
    """One who has come in."""

    holder: Holder
    address: str
    token: str = field(repr=False)

    def signature(self, claim: str) -> str:
        """Give what the journal says about who steers."""
        return self.holder.signature(claim, self.address)


def doorkeeper_of(connection: HTTPConnection) -> Doorkeeper:
    """Give the one who knows the tokens."""
    return cast(Doorkeeper, connection.app.state.doorkeeper)


def admit(connection: HTTPConnection, right: Right, token: str | None = None) -> Visitor:
    """Let in only those whose token allows something: the one given, or the one that the request shows.

    Raises
    ------
    RefusedError
        401 without a right token, 403 where its role does not do.
    """
    entry: _Entry = connection.scope[_ENTRY]
    shown, holder = entry.token, entry.holder
    if token is not None:
        shown, holder = token, doorkeeper_of(connection).look().holder(token)
    admitted = access.admission(shown, holder, right)
    if isinstance(admitted, access.Refusal):
        raise RefusedError(admitted.status, admitted.reason, admitted.cause)
    visitor = connection.state.visitor = Visitor(admitted, address_of(connection), shown or "")
    return visitor


def address_of(connection: HTTPConnection) -> str:
    """Tell from where somebody asks."""
    return connection.client.host if connection.client is not None else "unknown"


def visitor_of(connection: HTTPConnection) -> Visitor:
    """Give the one whom `admit` has let in."""
    return cast(Visitor, connection.state.visitor)


def require_origin(connection: HTTPConnection) -> None:
    """Let in only our own page, and programs that carry the token themselves.

    Raises
    ------
    RefusedError
        403.
    """
    entry: _Entry = connection.scope[_ENTRY]
    _raise(access.origin_refusal(entry.knock))


async def token_shown(request: Request) -> None:
    """Let in only those whose token allows what they ask for: to look, or with any other method to steer.

    A coroutine, because FastAPI runs plain functions in a thread each.
    """
    admit(request, Right.WATCH if request.method in LOOKING else Right.STEER)


async def origin_ours(connection: HTTPConnection) -> None:
    """Let in only our own page, and programs that carry the token themselves; a coroutine like `token_shown`."""
    require_origin(connection)


def refused(what: str, connection: HTTPConnection, refusal: RefusedError | access.Refusal) -> None:
    """Log and count a refusal; what was asked for is named by its path alone, for a query may hold a token."""
    cast(Metrics, connection.app.state.metrics).refused.labels(refusal.cause).inc()
    log.warning(
        f"a {what} is refused",
        cause=refusal.cause,
        reason=refusal.reason,
        status=refusal.status,
        path=connection.url.path[:LOGGED_CHARS],
        address=address_of(connection),
    )


class Doors:
    """ASGI layer around all routes: foreign hosts, too much at once, the security headers of every answer.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        rate = settings.requests_per_second
        self._known = Allowance(rate, rate * BURST_SECONDS)
        self._strangers = Allowance(rate / STRANGERS, rate / STRANGERS * BURST_SECONDS)
        self._headers = {**SECURITY_HEADERS, "Content-Security-Policy": content_security_policy(settings)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        connection = HTTPConnection(scope)
        refusal, more = self._refusal(connection)
        if refusal is None:
            counted = _counted(receive) if scope["type"] == "http" else receive
            await self._app(scope, counted, send_guarded)
            return
        refused("websocket" if scope["type"] == "websocket" else "request", connection, refusal)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before the handshake: HTTP 403
        else:
            await trouble(refusal.status, refusal.reason, more)(scope, receive, send_guarded)

    def _refusal(self, connection: HTTPConnection) -> tuple[access.Refusal | None, dict[str, str]]:
        """Judge a request by its headers; give headers for the answer besides."""
        knock, length = _knock_of(connection.scope)
        foreign = access.host_refusal(knock.host, self._settings)
        if foreign is not None:
            return foreign, {}
        if length.isdecimal() and int(length[:20]) > MAX_REQUEST_BYTES:
            # Not read to its end, so nothing else can follow on this connection.
            return access.Refusal(413, TOO_LARGE, "body"), {"Connection": "close"}
        shown = access.token_of(knock, self._settings)
        holder = None if shown is None else doorkeeper_of(connection).look().holder(shown)
        connection.scope[_ENTRY] = _Entry(knock, shown, holder)
        address = address_of(connection)
        if holder is None:
            wait = self._strangers.take(address, time.monotonic())
        else:
            wait = self._known.take((holder.name, address), time.monotonic())
        if wait > 0:
            return access.Refusal(429, "too many requests at once; try again later", "rate"), {
                "Retry-After": retry_after(wait)
            }
        return None, {}


def _counted(receive: Receive) -> Receive:
    """Stop reading a body that is too large and has not said so before."""
    size = 0

    async def receive_counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_REQUEST_BYTES:
            raise RefusedError(413, TOO_LARGE, "body")
        return message

    return receive_counted
