"""What stands before every route: the Host check and the headers of each answer, and the questions that a route asks.

The rules are in `spiral_server.live.access`; this translates them into answers.
"""

from __future__ import annotations

from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiral_core.wire import codec
from spiral_server.live import access
from spiral_server.settings import Settings

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
NO_STORE = {"Cache-Control": "no-store"}


class RefusedError(Exception):
    """A request that may not come in.

    Parameters
    ----------
    status : int
        HTTP status.
    reason : str
        What to do about it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON in which non-finite numbers are strings."""
    return Response(
        codec.to_json(value), status, media_type="application/json", headers={**NO_STORE, **(headers or {})}
    )


def trouble(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """Answer with an error."""
    return answer({"error": reason}, status, headers)


def knock_of(headers: Headers) -> access.Knock:
    """Take the headers that matter at the door."""
    return access.Knock(
        host=headers.get("host"),
        origin=headers.get("origin"),
        authorization=headers.get("authorization"),
        cookie=headers.get("cookie"),
    )


def settings_of(connection: HTTPConnection) -> Settings:
    """Give the server's settings."""
    return cast(Settings, connection.app.state.settings)


def _raise(refusal: access.Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal.status, refusal.reason)


def require_token(connection: HTTPConnection) -> None:
    """Let in only those who show the token.

    Raises
    ------
    RefusedError
        401.
    """
    _raise(access.token_refusal(knock_of(connection.headers), settings_of(connection)))


def require_origin(connection: HTTPConnection) -> None:
    """Let in only our own page, and programs that carry the token themselves.

    Raises
    ------
    RefusedError
        403.
    """
    _raise(access.origin_refusal(knock_of(connection.headers)))


async def token_shown(connection: HTTPConnection) -> None:
    """Let in only those who show the token; a coroutine, because FastAPI runs plain functions in a thread each."""
    require_token(connection)


async def origin_ours(connection: HTTPConnection) -> None:
    """Let in only our own page, and programs that carry the token themselves; a coroutine like `token_shown`."""
    require_origin(connection)


class Doors:
    """ASGI layer around all routes: refuses foreign hosts, adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = access.host_refusal(Headers(scope=scope).get("host"), self._settings)
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before the handshake: HTTP 403
        else:
            await trouble(refusal.status, refusal.reason)(scope, receive, send_guarded)
