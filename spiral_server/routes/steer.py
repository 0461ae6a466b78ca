"""Where commands come in: as a `Steer` over the websocket of a page, and as ``POST /api/runs/{run}/commands``.

Somebody waits for what becomes of a command. A page has a connection that has been looked at when it was opened, and
says a command there: no headers, no route and no task stand before the journal. What comes by HTTP goes past FastAPI:
to find the route among all others and to ask for its dependencies one by one takes longer than everything else that is
asked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import AnyMessage, CommandRecord, CommandRequest, Steer, Steered
from spiral_core.wire.requests import malformed
from spiral_server.hub import Hub
from spiral_server.live.commands import BusyError, EndedError, StaleError
from spiral_server.live.parties import LiveRun
from spiral_server.live.tokens import Right
from spiral_server.routes.doors import (
    RefusedError,
    Visitor,
    admit,
    answer,
    refused,
    require_origin,
    trouble,
    visitor_of,
)
from spiral_server.store.errors import StoreError, UnknownRunError

PATH = "/api/runs/{run}/commands"
SUMMARY = "Command"
DESCRIPTION = "Give a command: set knobs, pause, resume, run some steps, stop, write a checkpoint, or evaluate."


def _entered(identity: str, record: CommandRecord, *, repeated: bool) -> Steered:
    """Say what the journal has."""
    status = 200 if repeated else 422 if record.state == "rejected" else 202
    return Steered(id=identity, status=status, record=record, reason=record.reason, rev=None, values={})


def _refused(identity: str, error: Exception) -> Steered | None:
    """Say why the journal has nothing; None where that is no answer to a command."""
    match error:
        case StaleError():
            return Steered(id=identity, status=409, record=None, reason=str(error), rev=error.rev, values=error.values)
        case EndedError():
            status = 409
        case BusyError():
            status = 429
        case UnknownRunError():
            status = 404
        case StoreError():
            status = 503
        case _:
            return None
    return _trouble(identity, status, str(error))


def _trouble(identity: str, status: int, reason: str) -> Steered:
    return Steered(id=identity, status=status, record=None, reason=reason, rev=None, values={})


class PageSteering:
    """The commands of one page, in their order.

    Parameters
    ----------
    page : HTTPConnection
        Who has come in there.
    room : asyncio.Event
        Set while the page takes what it is sent; one that does not is not heard either.
    say : callable
        Answers the page.
    """

    def __init__(self, page: HTTPConnection, room: asyncio.Event, say: Callable[[Steered], None]) -> None:
        self._page = page
        self._token = visitor_of(page).token
        self._hub: Hub = page.app.state.hub
        self._room = room
        self._say = say
        self._others_first = False

    @contextmanager
    def turn(self, messages: Sequence[AnyMessage]) -> Iterator[None]:
        """Take no commands meanwhile where there are some among messages that are dealt with one after the other."""
        self._others_first = any(isinstance(message, Steer) for message in messages)
        try:
            yield
        finally:
            self._others_first = False

    def take(self, messages: Sequence[AnyMessage]) -> bool:
        """Give commands for runs that are in memory, without waiting; False where that cannot be.

        They do not wait for what the page has asked to see before.
        """
        if self._others_first or not self._room.is_set():
            return False
        steers = [(message, self._hub.loaded(message.run)) for message in messages if isinstance(message, Steer)]
        found = [(message, live) for message, live in steers if live is not None]
        if len(found) < len(messages):
            return False
        for message, live in found:
            self._give(live, message.request)
        return True

    async def give(self, message: Steer) -> None:
        """Give a command, for which the run may have to be read back."""
        await self._room.wait()
        try:
            live = await self._hub.live(message.run)
        except StoreError as error:
            self._refuse(message.request.id, error)
        else:
            self._give(live, message.request)

    def _give(self, live: LiveRun, asked: CommandRequest) -> None:
        try:
            # Anew for each command: a token may have been taken back since the page has come in.
            visitor = admit(self._page, Right.STEER, self._token)
        except RefusedError as refusal:
            refused("command", self._page, refusal)
            self._say(_trouble(asked.id, refusal.status, str(refusal)))
            return
        reason = malformed(asked)
        if reason is not None:
            self._say(_trouble(asked.id, 400, reason))
            return
        try:
            record, repeated = self._hub.journal.give(live, _signed(asked, visitor))
        except (EndedError, StaleError, BusyError, StoreError) as error:
            self._refuse(asked.id, error)
            return

        def written(done: asyncio.Future[CommandRecord]) -> None:
            error = done.exception()
            if error is None:
                self._say(_entered(asked.id, done.result(), repeated=repeated))
            elif isinstance(error, Exception):
                self._refuse(asked.id, error)

        record.add_done_callback(written)

    def _refuse(self, identity: str, error: Exception) -> None:
        self._say(_refused(identity, error) or _trouble(identity, 500, "the server failed; its log says why"))


def _signed(asked: CommandRequest, visitor: Visitor) -> CommandRequest:
    return msgspec.structs.replace(asked, actor=visitor.signature(asked.actor))


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
    try:
        record, repeated = await hub.submit(request.path_params["run"], _signed(asked, visitor))
    except (EndedError, StaleError, BusyError) as error:
        told = _refused(asked.id, error)
        assert told is not None  # noqa: S101 - these three are all answers
        return _response(told)
    return _response(_entered(asked.id, record, repeated=repeated))


def _response(told: Steered) -> Response:
    if told.rev is not None:
        return answer({"error": told.reason, "rev": told.rev, "values": told.values}, told.status)
    if told.record is None:
        return trouble(told.status, told.reason)
    if told.status == 422:
        return answer({"error": told.reason, "record": told.record}, told.status)
    return answer(told.record, told.status)


class _Endpoint:
    """`_command` as an ASGI application; a plain function would be wrapped in more layers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await _command(Request(scope, receive))
        await response(scope, receive, send)


def route() -> Route:
    """Give the route, to stand before all others."""
    return Route(PATH, _Endpoint(), methods=["POST"])
