"""``/api/runs/{run}``: delete a run, look whether all of it is sound, pack it."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from spiral_server.hub import Hub
from spiral_server.live.commands import TrainingError
from spiral_server.routes.doors import answer, origin_ours, token_shown, trouble
from spiral_server.store.protocol import RunStore

router = APIRouter(prefix="/api", dependencies=[Depends(token_shown), Depends(origin_ours)])


def _store(request: Request) -> RunStore:
    store: RunStore = request.app.state.store
    return store


@router.delete("/runs/{run}")
async def delete(request: Request, run: str) -> Response:
    """Delete a run that is not being trained, with everything in its directory."""
    try:
        hub: Hub = request.app.state.hub
        await hub.delete(run)
    except TrainingError as error:
        return trouble(409, str(error))
    return answer({"deleted": run})


@router.post("/runs/{run}/verify")
async def verify(request: Request, run: str, repair: bool = False) -> Response:
    """Read everything of a run and tell what is damaged; with ``repair`` mend first what the run log still holds."""
    found = await asyncio.to_thread(partial(_store(request).verify, run, repair=repair))
    return answer({"damaged": found})


@router.post("/runs/{run}/compact")
async def compact(request: Request, run: str) -> Response:
    """Pack a run's data and give free space back."""
    before, after = await asyncio.to_thread(_store(request).compact, run)
    return answer({"before": before, "after": after})
