"""Puts the server together: the only module that names concrete classes.

Everything else knows protocols and values. `create_app` takes the directory of runs at once, so that a second server is
refused before it listens.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

import spiral_core
from spiral_core import hugepages, scheduling
from spiral_core.errors import SpiralError
from spiral_core.wire.limits import MAX_PACKET_BYTES
from spiral_server import logs, memory
from spiral_server.hub import Hub
from spiral_server.launch.doorkeeper import Doorkeeper
from spiral_server.launch.launcher import Launcher
from spiral_server.launch.listening import own_address
from spiral_server.metrics import Metrics
from spiral_server.routes import api, engine, launches, operations, page, reference, steer, upkeep, view, view_http
from spiral_server.routes.doors import (
    SECURITY_HEADERS,
    Doors,
    RefusedError,
    content_security_policy,
    refused,
    trouble,
)
from spiral_server.routes.socket import FramedSocket
from spiral_server.settings import Settings
from spiral_server.store.errors import UnknownRunError
from spiral_server.store.measured import MeasuredStore
from spiral_server.transport import bounded, stop_accepting

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 15
"""Longer than the pause between two questions of a person who scrubs through heat maps."""
SWITCH_SECONDS = 5e-4
"""For so long a thread keeps the interpreter from another one."""
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
    if not structlog.is_configured():
        logs.configure(secrets=[settings.token])
    metrics = Metrics()
    store = MeasuredStore(settings.logdir, metrics)
    hub = Hub(store, pace=settings.pace)
    metrics.observe(hub.present)
    doorkeeper = Doorkeeper(settings.logdir, settings.token)
    readiness = operations.Readiness(store.trouble)
    launcher = _launcher(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        launcher.reattach()
        async with doorkeeper.watching(), memory.kept_small():
            readiness.serving = True
            yield
            readiness.serving = False
        await launcher.close()
        await hub.part()
        app.state.conversations.end()
        await hub.stop()

    # FastAPI's own documentation pages load scripts from elsewhere; `routes.reference` needs none.
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
    app.state.metrics = metrics
    app.state.doorkeeper = doorkeeper
    app.state.launcher = launcher
    app.state.readiness = readiness
    app.state.shelf = page.Shelf()
    app.state.conversations = view_http.Conversations()
    app.router.routes.append(steer.route())
    for part in (api, engine, launches, operations, page, reference, upkeep, view, view_http):
        app.include_router(part.router)
    app.add_middleware(Doors, settings=settings)
    _answer_errors(app, {**SECURITY_HEADERS, "Content-Security-Policy": content_security_policy(settings)})
    return app


def _launcher(settings: Settings) -> Launcher:
    hindrance = ""
    if settings.tls_cert is not None:
        hindrance = (
            "this server speaks TLS itself, under a name that its own engines do not reach it by: start runs with "
            "`spiral train --server https://NAME`, or leave TLS to a proxy"
        )
    url = own_address(settings.host, settings.port, settings.scheme)
    return Launcher(settings.logdir, url=url, token=settings.token, most=settings.max_engines, hindrance=hindrance)


def _answer_errors(app: FastAPI, guards: dict[str, str]) -> None:
    """Answer every error with ``{"error": ...}``."""

    async def turned_away(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101 - registered for it below
        refused("request", request, error)
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return trouble(error.status, error.reason, headers)

    async def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it below
        first = error.errors()[0]
        return trouble(400, f"{'.'.join(str(place) for place in first['loc'][1:])}: {first['msg']}")

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it below
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Each route knows its own methods only, and several share a path.
            headers["Allow"] = ", ".join(_methods(request))
        return trouble(error.status_code, str(error.detail), headers)

    async def ours(_: Request, error: Exception) -> Response:
        return trouble(404 if isinstance(error, UnknownRunError) else 503, str(error))

    async def unforeseen(_: Request, error: Exception) -> Response:
        del error  # logged by the server; its text may name what a caller should not know
        # Starlette answers this outside of every layer, so the headers are added here.
        return trouble(500, "the server failed; its log says why", guards)

    async def hung_up(_: Request, error: Exception) -> Response:
        del error  # nobody is there to be answered, and nothing of ours has failed
        return Response(status_code=400)

    app.add_exception_handler(RefusedError, turned_away)
    app.add_exception_handler(ClientDisconnect, hung_up)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(SpiralError, ours)
    app.add_exception_handler(Exception, unforeseen)


def _methods(request: Request) -> list[str]:
    """List the methods that the path of a request takes."""
    routes = request.app.router.routes
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Give the settings under which this application is to be served."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded(settings, app.state.metrics),
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
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        lifespan="on",
    )


def own_process() -> None:
    """Arrange a process that is a server and no more, before its threads begin: one heap, and the event loop first.

    Its turns are short (see `scheduling`), its pages large (see `hugepages`).

    By itself a thread that computes, as the store's, keeps the interpreter for 5 ms each time that the loop wants it
    back, and all that was imported is searched for garbage in which there is none. Both delay commands.
    """
    memory.one_heap()
    scheduling.short_turns()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    hugepages.collapse()


class Server(uvicorn.Server):
    """Uvicorn, except for its manners: it sends at once, sleeps well, reloads on SIGHUP, and parts from websockets."""

    look_seconds = 1.0
    """Between two calls of `on_tick`. Uvicorn's own tenth of a second is half of what an idle server uses."""
    _exit = False
    _wake: Callable[[], object] | None = None

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop; from any thread, and heard at once."""
        return self._exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._exit = value
        if value and self._wake is not None:
            with suppress(RuntimeError):  # the loop is closed: it has stopped
                self._wake()

    async def main_loop(self) -> None:
        """Serve until it is to stop."""
        asked = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, asked.set)
        counter = 0
        # The counter is one of tenths of a second.
        while not await self.on_tick(counter):
            counter += 10
            with suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), self.look_seconds)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        asyncio turns Nagle's algorithm off only for sockets that were made with their protocol named, and others answer
        40 ms late: the body of an answer waits until its head is acknowledged. Accepted sockets inherit the option.
        """
        for listener in sockets or []:
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read again what can be read again: the tokens, and the files of TLS; connections stay open."""
        state = cast(FastAPI, self.config.app).state
        state.doorkeeper.look(again=True)
        settings: Settings = state.settings
        if self.config.ssl is not None and settings.tls_cert is not None:
            try:
                self.config.ssl.load_cert_chain(settings.tls_cert, settings.tls_key)
            except (OSError, ssl.SSLError) as error:
                log.error("the certificate stays as it was", reason=str(error), file=str(settings.tls_cert))
                return
        log.info("reloaded", tokens=True, certificate=settings.tls_cert is not None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close our connections, then everything else."""
        state: Any = getattr(self.config.loaded_app, "state", None) or getattr(self.config.app, "state", None)
        hub = getattr(state, "hub", None)
        for server in self.servers:
            await stop_accepting(server.sockets)
        if isinstance(hub, Hub):
            await hub.part()
        await super().shutdown(sockets)
