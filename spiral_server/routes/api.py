"""``/api``: the runs over HTTP, as JSON; commands come in at `steer`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from spiral_core.wire import codec
from spiral_core.wire.parts import SeriesSpec
from spiral_core.wire.requests import LARGEST
from spiral_server.hub import Hub
from spiral_server.live.snapshot import points_for
from spiral_server.routes.doors import NO_STORE, answer, token_shown, trouble
from spiral_server.store.protocol import SeriesQuery, SeriesRead

MOST_POINTS = 20_000
"""Most points of one series in an answer: two for each pixel of the widest chart."""
DEFAULT_WIDTH = 1000
Step = Annotated[int, Query(gt=-LARGEST, lt=LARGEST)]
"""Beyond, no run has any, and no database takes the number."""

router = APIRouter(prefix="/api", dependencies=[Depends(token_shown)])


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


@router.get("/runs")
async def runs(request: Request) -> Response:
    """List the runs, newest first."""
    return answer({"runs": _hub(request).summaries()})


@router.get("/runs/{run}")
async def run(request: Request, run: str) -> Response:
    """Tell what is known of a run: its line of the list, its configuration and its curves."""
    view = await _hub(request).view(run)
    return answer(
        {
            **codec.plain(view.summary),
            "incarnation": view.incarnation,
            "seq": view.seq,
            "rev": view.rev,
            "started": view.started,
            "state": view.status,
            "series": list(view.series.values()),
            "strips": list(view.strips.values()),
        }
    )


@router.get("/runs/{run}/series")
async def series(
    request: Request,
    run: str,
    names: str = "",
    first: Annotated[Step | None, Query(alias="from")] = None,
    last: Annotated[Step | None, Query(alias="to")] = None,
    width: Annotated[int, Query(ge=1)] = DEFAULT_WIDTH,
) -> Response:
    """Give points of series, two for each pixel of ``width``; ``names`` are parted by commas, none means all."""
    hub = _hub(request)
    specs = (await hub.view(run)).series
    wanted = [name for name in names.split(",") if name]
    known = {spec.name: spec.index for spec in specs.values()}
    missing = [name for name in wanted if name not in known]
    if missing:
        return trouble(404, f"run {run!r} has no series {missing[0]!r}; GET api/runs/{run} lists those that there are")
    indices = frozenset(known[name] for name in wanted) if wanted else None
    points = points_for(width, MOST_POINTS)
    read = await hub.series(run, SeriesQuery(indices, first, last, points))
    # Thousands of numbers take a while to write out; viewers need not wait for that.
    body = await asyncio.to_thread(_series_json, read, specs)
    return Response(body, media_type="application/json", headers=NO_STORE)


def _series_json(read: SeriesRead, specs: dict[int, SeriesSpec]) -> bytes:
    columns = [
        {
            "name": specs[index].name if index in specs else "",
            "index": index,
            "steps": [int(step) for step in points.steps],
            "values": points.values.tolist(),
            "reduced": points.reduced,
        }
        for index, points in read.columns.items()
    ]
    damaged = [{"from": one.first_step, "to": one.last_step, "reason": one.reason} for one in read.damage]
    return codec.to_json({"series": columns, "damaged": damaged})


@router.get("/runs/{run}/knobs")
async def knobs(request: Request, run: str) -> Response:
    """Give the knobs of a run with the values in force."""
    view = await _hub(request).view(run)
    return answer({"knobs": list(view.knobs.values()), "rev": view.rev})


@router.get("/runs/{run}/commands")
async def commands(request: Request, run: str) -> Response:
    """Give the journal of a run, oldest first."""
    view = await _hub(request).view(run)
    return answer({"commands": view.ledger.records()})


@router.get("/runs/{run}/checkpoints")
async def checkpoints(request: Request, run: str) -> Response:
    """List the checkpoints that a run can be resumed from, oldest first."""
    view = await _hub(request).view(run)
    return answer({"checkpoints": list(view.checkpoints.values())})


@router.get("/runs/{run}/heatmaps")
async def heat_maps(request: Request, run: str, step: Step | None = None) -> Response:
    """Give the newest heat maps at or before a step."""
    found = await _hub(request).heat_maps(run, step)
    body = await asyncio.to_thread(codec.to_json, {"heat_maps": found})
    return Response(body, media_type="application/json", headers=NO_STORE)
