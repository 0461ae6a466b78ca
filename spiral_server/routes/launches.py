"""``/api/runs`` and ``/api/engines``: start runs on the server's machine, stop them, start them again, list them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable
from typing import Literal, TypeAlias, cast

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRequest
from spiral_core.wire.parts import RunStatus, RunSummary, Struct
from spiral_core.wire.training import TrainingRequest, training_options, training_words
from spiral_server.hub import Hub
from spiral_server.launch.launcher import LaunchConflictError, Launcher, RefusedLaunchError, TooManyEnginesError
from spiral_server.launch.records import LaunchRecord
from spiral_server.live.commands import BusyError, EndedError
from spiral_server.live.tokens import Right
from spiral_server.routes.doors import answer, origin_ours, token_shown, trouble, visitor_of
from spiral_server.store.errors import UnknownRunError
from spiral_server.store.protocol import is_run_id

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/api", dependencies=[Depends(token_shown)])

Origin: TypeAlias = Literal["launched", "adopted"]
"""``launched`` by a server of this directory; ``adopted``: started elsewhere, and connected by itself."""

_NAMED_BY_DECODER = re.compile(r"\$\.(\w+)|field `(\w+)`")


class EngineLine(Struct, frozen=True, kw_only=True):
    """One engine: of a run that is connected, or that a server of this directory has started."""

    run: str
    name: str
    origin: Origin
    status: RunStatus
    connected: bool
    running: bool | None
    """Whether the process runs; null for one that was started elsewhere."""
    pid: int | None
    begun: float | None
    ended: float | None
    exit: int | None
    """Exit status; negative for the signal that ended it. Null while it runs, and where nobody saw the end."""
    said: list[str]
    """The last lines on standard error of an engine that has ended."""


def _hub(request: Request) -> Hub:
    return cast(Hub, request.app.state.hub)


def _launcher(request: Request) -> Launcher:
    return cast(Launcher, request.app.state.launcher)


def _line(run: str, summary: RunSummary | None, launch: LaunchRecord | None, launcher: Launcher) -> EngineLine:
    running = None if launch is None else launch.living
    engine = None if launch is None or not running else launch.engine
    status: RunStatus = "lost" if summary is None else summary.status
    if launch is not None and running and (summary is None or summary.updated < launch.begun):
        # What is known of the run is from before.
        status = "starting"
    elsewhere = launch is None or (not running and summary is not None and summary.connected)
    return EngineLine(
        run=run,
        name=run if summary is None else summary.name or run,
        origin="adopted" if elsewhere else "launched",
        status=status,
        connected=summary is not None and summary.connected,
        running=running,
        pid=None if engine is None else engine.pid,
        begun=None if launch is None else launch.begun,
        ended=None if launch is None else launch.ended,
        exit=None if launch is None else launch.status,
        said=[] if launch is None or running else launcher.said(launch),
    )


@router.get("/engines")
async def engines(request: Request) -> Response:
    """List the engines that are connected or that were started here, and tell whether more can be."""
    launcher = _launcher(request)
    summaries = {summary.id: summary for summary in _hub(request).summaries()}
    launches = launcher.by_run()
    runs = [*(run for run in launches if run not in summaries), *summaries]
    told = [
        _line(run, summaries.get(run), launches.get(run), launcher)
        for run in runs
        if run in launches or summaries[run].connected
    ]
    may = visitor_of(request).holder.may(Right.STEER)
    return answer({"engines": told, "most": launcher.most, "hindrance": launcher.hindrance, "may_steer": may})


@router.get("/training")
async def training(request: Request) -> Response:
    """List what a run can be asked for: names, kinds, choices and words, for a form."""
    del request
    return answer({"options": list(training_options())})


@router.post("/runs", dependencies=[Depends(origin_ours)])
async def start(request: Request) -> Response:
    """Start a run on the server's machine; the fields are the options of `spiral train`."""
    try:
        asked = codec.from_json(await request.body(), TrainingRequest)
    except DecodeError as error:
        return _refusal(400, f"not a run that can be trained: {error}", _named(str(error)))
    words = training_words(codec.plain(asked))
    if any("\0" in word for word in words):
        return _refusal(400, "a text holds a NUL character: leave it out", "")
    return await _begun(request, _launcher(request).start(words))


@router.post("/runs/{run}/restart", dependencies=[Depends(origin_ours)])
async def restart(request: Request, run: str) -> Response:
    """Go on with a run whose engine has ended, from its newest checkpoint, on the server's machine."""
    summary = _summary(request, run)
    if run not in _launcher(request).by_run() and summary is None:
        raise UnknownRunError(f"there is no run {run[:100]!r}; GET api/runs lists those that there are")
    if summary is not None and summary.connected:
        return trouble(409, f"run {run} is still being trained: stop it first")
    return await _begun(request, _launcher(request).resume(run))


@router.post("/runs/{run}/stop", dependencies=[Depends(origin_ours)])
async def stop(request: Request, run: str) -> Response:
    """Stop a run for good: by a command, and an engine that was started here and does not heed it by signals."""
    summary = _summary(request, run)
    launch = _launcher(request).by_run().get(run)
    if launch is None and summary is None:
        raise UnknownRunError(f"there is no run {run[:100]!r}; GET api/runs lists those that there are")
    living = launch is not None and launch.living
    if summary is not None:
        actor = visitor_of(request).signature("")
        command = CommandRequest(id=uuid.uuid4().hex, verb="stop", actor=actor)
        try:
            if living or summary.connected:
                await _hub(request).submit(run, command)
        except (EndedError, BusyError):
            # It is leaving already, or hears nothing: then a signal tells it.
            pass
    if launch is not None and living:
        _launcher(request).see_off(launch)
    elif summary is None or not summary.connected:
        return trouble(409, f"run {run} is not being trained")
    return answer(_line(run, summary, launch, _launcher(request)), 202)


async def _begun(request: Request, starting: Awaitable[LaunchRecord]) -> Response:
    """Answer with the engine that begins, or why none does."""
    try:
        record = await starting
    except RefusedLaunchError as error:
        return _refusal(422, str(error), error.field)
    except LaunchConflictError as error:
        return trouble(409, str(error))
    except TooManyEnginesError as error:
        return trouble(429, str(error))
    log.info("an engine is started", run=record.run, by=visitor_of(request).signature(""))
    return answer(_line(record.run, _summary(request, record.run), record, _launcher(request)), 201)


def _refusal(status: int, reason: str, field: str) -> Response:
    return answer({"error": reason, "field": field}, status)


def _named(said: str) -> str:
    """Find the field that the decoder speaks of."""
    found = _NAMED_BY_DECODER.search(said)
    return "" if found is None else found[1] or found[2]


def _summary(request: Request, run: str) -> RunSummary | None:
    if not is_run_id(run):
        return None
    return next((summary for summary in _hub(request).summaries() if summary.id == run), None)
