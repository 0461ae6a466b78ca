"""``/api/runs/{run}``: delete a run, look whether all of it is sound, pack it."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from spiral_server.hub import Hub
from spiral_server.routes.doors import answer, origin_ours, token_shown, trouble
from spiral_server.store.errors import BusyRunError

router = APIRouter(prefix="/api", dependencies=[Depends(token_shown), Depends(origin_ours)])


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


@router.delete("/runs/{run}")
async def delete(request: Request, run: str) -> Response:
    """Delete a run that is not being trained, with everything in its directory."""
    try:
        await _hub(request).delete(run)
    except BusyRunError as error:
        return trouble(409, str(error))
    return answer({"deleted": run})


@router.post("/runs/{run}/verify")
async def verify(request: Request, run: str, repair: bool = False) -> Response:
    """Read everything of a run and tell what is damaged; with ``repair`` mend first what the run log still holds."""
    found = await _hub(request).verify(run, repair=repair)
    return answer({"damaged": found})


@router.post("/runs/{run}/compact")
async def compact(request: Request, run: str) -> Response:
    """Pack a run's data and give free space back."""
    before, after = await _hub(request).compact(run)
    return answer({"before": before, "after": after})
