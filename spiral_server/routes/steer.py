"""``POST /api/runs/{run}/commands``: where commands come in, past FastAPI.

Somebody waits for what becomes of a command. To find the route among all others and to ask for its dependencies one by
one, as FastAPI does it, takes longer than everything else that is asked here.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRequest
from spiral_core.wire.requests import malformed
from spiral_server.hub import Hub
from spiral_server.live.commands import BusyError, EndedError, StaleError
from spiral_server.live.tokens import Right
from spiral_server.routes.doors import admit, answer, require_origin, trouble

PATH = "/api/runs/{run}/commands"
SUMMARY = "Command"
DESCRIPTION = "Give a command: set knobs, pause, resume, run some steps, stop, write a checkpoint, or evaluate."


async def _command(request: Request) -> Response:
    """Take in a command (see `DESCRIPTION`)."""
    visitor = admit(request, Right.STEER)
    require_origin(request)
    hub: Hub = request.app.state.hub
    try:
        asked = codec.from_json(await request.body(), CommandRequest)
    except DecodeError as error:
        return trouble(400, f"not a command: {error}")
    reason = malformed(asked)
    if reason is not None:
        return trouble(400, reason)
    asked = msgspec.structs.replace(asked, actor=visitor.signature(asked.actor))
    try:
        record, repeated = await hub.submit(request.path_params["run"], asked)
    except EndedError as error:
        return trouble(409, str(error))
    except StaleError as error:
        return answer({"error": str(error), "rev": error.rev, "values": error.values}, 409)
    except BusyError as error:
        return trouble(429, str(error))
    if repeated:
        return answer(record)
    if record.state == "rejected":
        return answer({"error": record.reason, "record": record}, 422)
    return answer(record, 202)


class _Endpoint:
    """`_command` as an ASGI application; a plain function would be wrapped in more layers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await _command(Request(scope, receive))
        await response(scope, receive, send)


def route() -> Route:
    """Give the route, to stand before all others."""
    return Route(PATH, _Endpoint(), methods=["POST"])
