"""Where pages watch runs when a proxy between refuses websockets: the same packets over plain HTTP.

``POST /http/view`` opens a conversation and gives its address below it. What the page says is posted there, a packet
at a time; what the server says is read from ``events`` (server-sent events, each a packet in base64) or from ``poll``
(an answer that waits until there is something, packets one after the other).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spiral_core.errors import RemoteError
from spiral_core.wire.limits import CLOSE_NORMAL
from spiral_core.wire.session import Role
from spiral_server.hub import Hub
from spiral_server.live.channel import Parcel
from spiral_server.live.parties import Viewer
from spiral_server.live.tokens import Right
from spiral_server.routes.connection import Bounds, ConnectionBell, Stall, first_of, revoked, session_of
from spiral_server.routes.doors import (
    NO_STORE,
    Visitor,
    admit,
    answer,
    origin_ours,
    settings_of,
    trouble,
    visitor_of,
)
from spiral_server.routes.view import heed, welcome
from spiral_server.settings import Pace

log = structlog.get_logger(__name__)

WAITING_BYTES = 256 * 1024
"""Packets that may wait for the page to fetch them; beyond, they wait in the mailbox, where they are merged."""
POLL_PAUSE = 0.1
"""Least seconds between two answers to polls: each costs both sides as much as several packets."""
CONVERSATIONS = 200
"""Most conversations over HTTP at once, and most of those that have ended and are remembered for their reasons."""


async def _may_watch(request: Request) -> None:
    """Let in those who may watch: what is posted here steers nothing."""
    admit(request, Right.WATCH)


router = APIRouter(prefix="/http/view", include_in_schema=False, dependencies=[Depends(_may_watch)])


class Basket:
    """Packets that wait until the page fetches them (see `spiral_server.live.channel.Outlet`)."""

    def __init__(self, bell: ConnectionBell, pace: Pace) -> None:
        self.leave = bell.leave
        self.filled = asyncio.Event()
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0
        self._stall = Stall(bell.leave, pace.stall)

    @property
    def ready(self) -> bool:
        """Whether there is room."""
        return self._bytes < WAITING_BYTES

    def send(self, parcel: Parcel) -> None:
        """Keep a packet until it is fetched."""
        self._parcels.append(parcel)
        self._bytes += len(parcel.packet)
        self.filled.set()
        # From the first packet on: here nothing but the page's own asking tells that it still takes what is sent.
        self._stall.begin()

    def take(self) -> list[Parcel]:
        """Give everything that waits."""
        taken = list(self._parcels)
        self._parcels.clear()
        self._bytes = 0
        self.filled.clear()
        self._stall.end()
        return taken

    def wake(self) -> None:
        """Wake who waits for a packet, although there may be none."""
        there = self.filled.is_set()
        self.filled.set()
        if not there:
            self.filled.clear()

    def end(self) -> None:
        """Stop counting the seconds, and wake who waits for a packet."""
        self._stall.end()
        self.filled.set()


class Conversation:
    """One page that watches over HTTP."""

    def __init__(self, request: Request) -> None:
        settings = settings_of(request)
        self.id = secrets.token_urlsafe(16)
        self.visitor: Visitor = visitor_of(request)
        self._request = request
        self._hub: Hub = request.app.state.hub
        self._instance = settings.instance
        self._pace = pace = settings.pace
        self._bounds = Bounds()
        self._session = session_of(Role.VIEW, pace)
        self._bell = ConnectionBell()
        self._basket = Basket(self._bell, pace)
        self._viewer: Viewer | None = None
        self._reading = 0
        self._polled = 0.0
        self._turn = asyncio.Lock()
        self.ended: RemoteError | None = None

    async def live(self) -> None:
        """Keep the heartbeat until the conversation ends, and the reason for a page that asks late."""
        try:
            await first_of(self._beat(), self._bell.left(), revoked(self._request))
        except RemoteError as error:
            self.ended = error
            log.info("a conversation over HTTP is closed", code=error.code, reason=error.reason)
        finally:
            self._basket.end()
            if self._viewer is not None:
                self._hub.audience.depart(self._viewer)
        await asyncio.sleep(self._pace.linger)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._session.next_tick() - time.monotonic()))
            self._session.tick(now=time.monotonic())
            self._flush()

    def _flush(self) -> None:
        for packet in self._session.data_to_send():
            self._basket.send(Parcel(packet))

    async def hear(self, packet: bytes) -> None:
        """Take in what the page says, one packet after the other.

        Raises
        ------
        RemoteError
            It breaks the protocol, or the conversation has ended.
        """
        async with self._turn:
            if self.ended is not None:
                raise self.ended
            now = time.monotonic()
            try:
                self._bounds.check(packet, now)
                messages = self._session.receive(packet, now=now)
            except RemoteError as error:
                self._bell.leave(error.code, error.reason)
                raise
            if self._viewer is None and messages:
                self._basket.send(Parcel(self._session.send([welcome(self._instance)])))
                self._viewer = self._hub.arrive(self._basket)
            self._flush()
            for message in messages:
                assert self._viewer is not None  # noqa: S101 - there was a message
                await heed(self._hub, self._viewer, message)

    async def _fetch(self, seconds: float | None, mine: int) -> list[Parcel]:
        """Wait for packets; give none when the time or the conversation is over, or somebody else has begun to read."""
        try:
            async with asyncio.timeout(seconds):
                if self.ended is None and self._reading == mine:
                    await self._basket.filled.wait()
        except TimeoutError:
            return []
        if self._reading != mine:
            # What is there belongs to the new reader: whoever asked here may be gone.
            return []
        taken = self._basket.take()
        if self.ended is None and self._viewer is not None:
            self._hub.audience.ready(self._viewer)
        return taken

    async def events(self) -> AsyncIterator[bytes]:
        """Give packets as server-sent events; the page that stops reading them ends the conversation."""
        mine = self._begin_reading()
        try:
            while self._reading == mine:
                parcels = await self._fetch(None, mine)
                for parcel in parcels:
                    yield parcel.wrapped("events", event)
                if self.ended is not None and not parcels and self._reading == mine:
                    yield closing_event(self.ended)
                    return
        finally:
            if self._reading == mine:
                self._bell.leave(CLOSE_NORMAL, "the page has stopped reading")

    async def poll(self) -> bytes | None:
        """Give packets as soon as there are any; None when the conversation has ended."""
        mine = self._begin_reading()
        pause = self._polled + POLL_PAUSE - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        parcels = await self._fetch(self._pace.poll, mine)
        self._polled = time.monotonic()
        if not parcels and self.ended is not None:
            return None
        return b"".join(parcel.packet for parcel in parcels)

    def _begin_reading(self) -> int:
        self._reading += 1
        self._basket.wake()
        return self._reading

    def end(self, code: int, reason: str) -> None:
        """Ask for an end."""
        self._bell.leave(code, reason)


def event(packet: bytes) -> bytes:
    """Write a packet as a server-sent event; those are text."""
    return b"data: " + base64.b64encode(packet) + b"\n\n"


def closing_event(why: RemoteError) -> bytes:
    """Write the event that stands for a websocket's close frame."""
    return b"event: close\ndata: " + json.dumps({"code": why.code, "reason": why.reason}).encode() + b"\n\n"


class Conversations:
    """All conversations over HTTP."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Conversation, asyncio.Task[None]]] = {}

    def open(self, request: Request) -> Conversation | None:
        """Begin one; None where there are too many."""
        ended = [task for known, task in self._known.values() if known.ended is not None]
        if len(self._known) - len(ended) >= CONVERSATIONS:
            return None
        # Their reasons are kept for pages that ask late, but not for any number of them.
        for task in ended[: max(0, len(ended) - CONVERSATIONS)]:
            task.cancel()
        begun = Conversation(request)
        task = asyncio.create_task(begun.live())
        self._known[begun.id] = begun, task
        task.add_done_callback(lambda _: self._known.pop(begun.id, None))
        return begun

    def find(self, request: Request, name: str) -> Conversation | None:
        """Find one, for the one who began it."""
        found = self._known.get(name, (None, None))[0]
        return found if found is not None and found.visitor.holder == visitor_of(request).holder else None

    def end(self) -> None:
        """Forget those that have ended; nobody is going to ask for their reasons."""
        for _, task in list(self._known.values()):
            task.cancel()


def _over(error: RemoteError) -> Response:
    return answer({"error": error.reason, "code": error.code}, 410)


def _conversations(request: Request) -> Conversations:
    known: Conversations = request.app.state.conversations
    return known


@router.post("", dependencies=[Depends(origin_ours)])
async def begin(request: Request) -> Response:
    """Begin a conversation; the body is the first packet, which greets."""
    begun = _conversations(request).open(request)
    if begun is None:
        return trouble(429, "too many pages watch over plain HTTP; close some, or let websockets through the proxy")
    refused = await _hear(request, begun)
    return refused or answer({"view": begun.id}, 201)


@router.post("/{name}", dependencies=[Depends(origin_ours)])
async def say(request: Request, name: str) -> Response:
    """Say something in a conversation: one packet."""
    found = _conversations(request).find(request, name)
    if found is None:
        return _unknown()
    return await _hear(request, found) or Response(status_code=204, headers=NO_STORE)


async def _hear(request: Request, talk: Conversation) -> Response | None:
    try:
        await talk.hear(await request.body())
    except RemoteError as error:
        talk.end(error.code, error.reason)
        return _over(error)
    return None


@router.get("/{name}/events")
async def events(request: Request, name: str) -> Response:
    """Read what the server says as server-sent events."""
    found = _conversations(request).find(request, name)
    if found is None:
        return _unknown()
    # nginx keeps an answer until it is whole, unless it is told not to.
    headers = {**NO_STORE, "X-Accel-Buffering": "no"}
    return StreamingResponse(found.events(), media_type="text/event-stream", headers=headers)


@router.get("/{name}/poll")
async def poll(request: Request, name: str) -> Response:
    """Read what the server has said since the last question, or wait for it a while."""
    found = _conversations(request).find(request, name)
    if found is None:
        return _unknown()
    said = await found.poll()
    if said is None:
        assert found.ended is not None  # noqa: S101 - None means just that
        return _over(found.ended)
    return Response(said, media_type="application/octet-stream", headers=NO_STORE)


def _unknown() -> Response:
    return trouble(404, "there is no such conversation; begin one with POST http/view")
