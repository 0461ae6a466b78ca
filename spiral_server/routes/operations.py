"""For those who keep the server running: whether it answers, whether it can take things in, and what it counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from spiral_server.metrics import CONTENT_TYPE, Metrics
from spiral_server.routes.doors import NO_STORE, token_shown

router = APIRouter(include_in_schema=False)

log = structlog.get_logger(__name__)

FRESH_SECONDS = 1.0
"""How long an answer about the disk holds: anybody may ask, and each look costs a sync of the disk."""


class Readiness:
    """Whether the server can take things in.

    Parameters
    ----------
    trouble : callable
        Tells why nothing can be written now, or None; may block for a disk.
    """

    def __init__(self, trouble: Callable[[], str | None]) -> None:
        self.serving = False
        """False until the server has started, and again once it leaves."""
        self._trouble = trouble
        self._known: str | None = None
        self._asked = -FRESH_SECONDS
        self._asking = asyncio.Lock()

    async def refusal(self) -> str | None:
        """Tell why the server is not ready; None when it is."""
        if not self.serving:
            return "starting or leaving"
        async with self._asking:
            if time.monotonic() - self._asked >= FRESH_SECONDS:
                found = await asyncio.to_thread(self._trouble)
                if found != self._known:
                    log.error("not ready", reason=found) if found else log.info("ready again")
                self._known = found
                self._asked = time.monotonic()
            # Where it lies is for the log; anybody may ask here.
            return "the store cannot write; the server's log says why" if self._known else None


@router.get("/healthz")
async def health() -> Response:
    """Tell that the server answers."""
    return Response("ok\n", media_type="text/plain", headers=NO_STORE)


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Tell whether the server can take things in: it has started, and its store can write."""
    refusal = await cast(Readiness, request.app.state.readiness).refusal()
    return Response(f"{refusal or 'ready'}\n", 503 if refusal else 200, media_type="text/plain", headers=NO_STORE)


@router.get("/metrics", dependencies=[Depends(token_shown)])
async def metrics(request: Request) -> Response:
    """Give what the server counts, in the text format of Prometheus."""
    counted = cast(Metrics, request.app.state.metrics).text()
    return Response(counted, headers={**NO_STORE, "Content-Type": CONTENT_TYPE})
