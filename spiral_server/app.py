"""Puts the server together: the only module that names concrete classes.

Everything else knows protocols and values. `create_app` takes the directory of runs at once, so that a second server is
refused before it listens.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import spiral_core
from spiral_core.errors import SpiralError
from spiral_core.wire.limits import MAX_PACKET_BYTES
from spiral_server.hub import Hub
from spiral_server.routes import api, engine, page, view, view_http
from spiral_server.routes.description import described
from spiral_server.routes.doors import SECURITY_HEADERS, Doors, RefusedError, answer, require_token, trouble
from spiral_server.routes.socket import FramedSocket
from spiral_server.settings import Settings
from spiral_server.store.errors import UnknownRunError
from spiral_server.store.sqlite_store import SqliteStore

KEEP_ALIVE_SECONDS = 15
"""Longer than the pause between two questions of a person who scrubs through heat maps."""
GRACE_SECONDS = 1
"""How long a stopping server waits for answers under way: Ctrl-C must be quick."""


def create_app(settings: Settings) -> FastAPI:
    """Make the application.

    Raises
    ------
    LogdirInUseError
        Another server holds the directory of runs.
    StoreError
        The directory cannot be used.
    """
    _log_to_stderr()
    hub = Hub(SqliteStore(settings.logdir), pace=settings.pace)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await hub.part()
        app.state.conversations.end()
        await hub.stop()

    # Documentation pages would load scripts from elsewhere; the description itself is served behind the token.
    app = FastAPI(
        title="Spiral",
        version=spiral_core.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.hub = hub
    app.state.shelf = page.Shelf()
    app.state.conversations = view_http.Conversations()
    for part in (api, engine, page, view, view_http):
        app.include_router(part.router)
    app.add_api_route("/openapi.json", _openapi, methods=["GET"], include_in_schema=False)
    app.add_middleware(Doors, settings=settings)
    _answer_errors(app)
    return app


def _log_to_stderr() -> None:
    """Keep standard output for the address of the page, unless the caller has configured logs already."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )


async def _openapi(request: Request) -> Response:
    """Describe the HTTP interface."""
    require_token(request)
    app: FastAPI = request.app
    return answer(described(app))


def _answer_errors(app: FastAPI) -> None:
    """Answer every error with ``{"error": ...}``."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101 - registered for it below
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return trouble(error.status, error.reason, headers)

    async def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it below
        first = error.errors()[0]
        return trouble(400, f"{'.'.join(str(place) for place in first['loc'][1:])}: {first['msg']}")

    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it below
        return trouble(error.status_code, str(error.detail), dict(error.headers or {}))

    async def ours(_: Request, error: Exception) -> Response:
        return trouble(404 if isinstance(error, UnknownRunError) else 503, str(error))

    async def unforeseen(_: Request, error: Exception) -> Response:
        del error  # logged by the server; its text may name what a caller should not know
        # Starlette answers this outside of every layer, so the headers are added here.
        return trouble(500, "the server failed; its log says why", SECURITY_HEADERS)

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(SpiralError, ours)
    app.add_exception_handler(Exception, unforeseen)


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Give the settings under which this application is to be served."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        ws=FramedSocket,
        ws_max_size=MAX_PACKET_BYTES,
        # Our own heartbeat tells a silent peer from a slow one; a second one under it would not.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        # Packed floats hardly shrink, and compressing them costs more time than sending them.
        ws_per_message_deflate=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        lifespan="on",
    )


class Server(uvicorn.Server):
    """Uvicorn, except for two manners: it sends without delay, and it says good-bye to websockets (1001)."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        asyncio turns Nagle's algorithm off only for sockets that were made with their protocol named, and others answer
        40 ms late: the body of an answer waits until its head is acknowledged. Accepted sockets inherit the option.
        """
        for listener in sockets or []:
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close our connections, then everything else."""
        state: Any = getattr(self.config.loaded_app, "state", None) or getattr(self.config.app, "state", None)
        hub = getattr(state, "hub", None)
        if isinstance(hub, Hub):
            await hub.part()
        await super().shutdown(sockets)
