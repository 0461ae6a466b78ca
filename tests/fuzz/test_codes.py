"""Each way of saying something wrong gets the code that ``docs/server.md`` has for it, wherever it can be said.

One case is one conversation with a real server. All that comes before is right, so that nothing else is the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed

from server.house import Peer
from server.saying import frame, opening, status
from spiral_core.wire import codec, limits
from spiral_core.wire.limits import (
    CLOSE_BAD_DATA,
    CLOSE_FORBIDDEN,
    CLOSE_PROTOCOL,
    CLOSE_REPLACED,
    CLOSE_TOO_BIG,
    CLOSE_TOO_OFTEN,
    CLOSE_UNAUTHORIZED,
    MAX_PACKET_BYTES,
    PROTOCOL,
    VIEWER_PACKET_BYTES,
)
from spiral_core.wire.messages import (
    Compare,
    EngineHello,
    EngineWelcome,
    Frame,
    Message,
    Pong,
    RunsListed,
    Stored,
    Tick,
    ViewHello,
    ViewWelcome,
    Visibility,
    Watch,
)

from .besieged import DOCUMENTED, PATIENCE, Besieged, Good

MEGABYTE = 2**20
ENGINE, VIEW = EngineHello(protocol=PROTOCOL, run="r1", incarnation=0), ViewHello(protocol=PROTOCOL)
HELLO: dict[str, Message] = {"engine": ENGINE, "view": VIEW, "http": VIEW}
GREETED: dict[str, type[Message]] = {"engine": EngineWelcome, "view": ViewWelcome}
NO_FRAME = 1002


class Case(NamedTuple):
    """What is wrong, where, and the code that it gets.

    ``said`` are packets as they are, or messages of one packet each; ``greeted`` tells whether the right greeting goes
    before them.
    """

    what: str
    door: str
    said: tuple[Any, ...]
    code: int
    greeted: bool = True
    role: str = "owner"


def at(doors: str, what: str, code: int, *said: Any, greeted: bool = True, role: str = "owner") -> list[Case]:
    return [Case(what, door, said, code, greeted, role) for door in doors.split()]


def later(door: str) -> Message:
    """Give a message that is right once a door is open."""
    return Watch(run="r1", width=100) if door != "engine" else opening()[0]


ALL, SOCKETS = "engine view http", "engine view"
CASES = [
    *at(ALL, "garbage first", CLOSE_BAD_DATA, b"garbage", greeted=False),
    *at(ALL, "garbage", CLOSE_BAD_DATA, b"\xff" * 100),
    *at(ALL, "a message that is none", CLOSE_BAD_DATA, codec.join([b"\xc1"])),
    *at(ALL, "a message of an unknown type", CLOSE_BAD_DATA, codec.join([b"\x81\xa4type\xa4quit"])),
    *at(ALL, "a message with an unknown field", CLOSE_BAD_DATA, codec.join([b"\x82\xa4type\xa4ping\xa1x\x01"])),
    *at(SOCKETS, "a text", CLOSE_BAD_DATA, "a text"),
    *at(SOCKETS, "no frame", NO_FRAME, bytearray(b"\xf2\x80\0\0\0\0")),
    *at(SOCKETS, "a frame that is not masked", NO_FRAME, bytearray(b"\x82\x01x")),
    *at(ALL, "truncated in a length", CLOSE_BAD_DATA, codec.encode_packet([Pong(time=1.0)])[:3]),
    *at(ALL, "truncated in a message", CLOSE_BAD_DATA, codec.encode_packet([Pong(time=1.0)])[:-1]),
    *at(ALL, "a message that is cut", CLOSE_BAD_DATA, codec.join([codec.encode(Pong(time=1.0))[:-1]])),
    *at("engine", "20 MB", CLOSE_TOO_BIG, bytes(20 * MEGABYTE)),
    *at("view", "20 MB", CLOSE_TOO_BIG, bytes(20 * MEGABYTE)),
    *at("engine", "20 MB before the greeting", CLOSE_TOO_BIG, bytes(20 * MEGABYTE), greeted=False),
    *at("engine", "a byte more than a packet", CLOSE_TOO_BIG, bytes(MAX_PACKET_BYTES + 1)),
    *at("engine", "a message of 9 MB", CLOSE_BAD_DATA, codec.join([bytes(9 * MEGABYTE)])),
    *at("view http", "a byte more than a viewer's packet", CLOSE_TOO_BIG, bytes(VIEWER_PACKET_BYTES + 1)),
    *at("view", "a thousand packets at once", CLOSE_TOO_OFTEN, *[Visibility(visible=True)] * 1000),
    *at(SOCKETS, "no token", CLOSE_UNAUTHORIZED, greeted=False, role="none"),
    *at(SOCKETS, "a wrong token", CLOSE_UNAUTHORIZED, greeted=False, role="wrong"),
    *at("engine", "a viewer's token", CLOSE_FORBIDDEN, greeted=False, role="viewer"),
    *at("engine", "an operator's token", CLOSE_FORBIDDEN, greeted=False, role="operator"),
    *at("view", "an engine's token", CLOSE_FORBIDDEN, greeted=False, role="engine"),
    *at("engine", "the greeting of a viewer", CLOSE_PROTOCOL, VIEW, greeted=False),
    *at("view http", "the greeting of an engine", CLOSE_PROTOCOL, ENGINE, greeted=False),
    *at("engine", "what a viewer says", CLOSE_PROTOCOL, Watch(run="r1", width=1)),
    *at("engine", "what a server says", CLOSE_PROTOCOL, Stored(seq=3)),
    *at("view http", "what an engine says", CLOSE_PROTOCOL, frame(4, 1)),
    *at("view http", "what a server says", CLOSE_PROTOCOL, Tick(run="r1", number=1)),
    *at(ALL, "another version", CLOSE_PROTOCOL, "hello 99", greeted=False),
    *at(ALL, "a message before the greeting", CLOSE_PROTOCOL, "later", greeted=False),
    *at(ALL, "the greeting again", CLOSE_PROTOCOL, "hello"),
    *at("view http", "too large a comparison", CLOSE_PROTOCOL, Compare(runs=["r"] * 60, series=["s"] * 60, width=9)),
    *at("engine", "a run that climbs", CLOSE_PROTOCOL, replace(ENGINE, run="../r"), greeted=False),
    *at("engine", "an incarnation below 0", CLOSE_PROTOCOL, replace(ENGINE, incarnation=-1), greeted=False),
    *at("engine", "a frame of another run", CLOSE_PROTOCOL, frame(0, 0, run="other")),
    *at("engine", "a frame of an incarnation to come", CLOSE_PROTOCOL, frame(0, 0, incarnation=7)),
    *at("engine", "a number below 0", CLOSE_PROTOCOL, frame(-1, 0)),
    *at("engine", "a step beyond all steps", CLOSE_PROTOCOL, frame(0, 2**60)),
]


def packets(case: Case) -> list[Any]:
    """Give what is sent; a bytearray is written to the connection as it is."""
    named = {
        "hello": HELLO[case.door],
        "later": later(case.door),
        "hello 99": replace(HELLO[case.door], protocol=99),
    }
    said = [named.get(one, one) if isinstance(one, str) else one for one in case.said]
    return [codec.encode_packet([one]) if isinstance(one, Message) else one for one in said]


async def over_websocket(server: Besieged, case: Case) -> int | None:
    async with server.dial(case.door, case.role) as socket:
        peer = Peer(socket)
        if case.greeted:
            await peer.say(HELLO[case.door])
            await peer.next_of(GREETED[case.door])
        with suppress(ConnectionClosed):
            for packet in packets(case):
                if isinstance(packet, bytearray):
                    socket.transport.write(packet)
                else:
                    await socket.send(packet)
        return await peer.closed()


def over_http(server: Besieged, case: Case) -> int:
    with server.http(case.role) as http:
        talk = "/http/view"
        if case.greeted:
            talk += "/" + http.post(talk, content=codec.encode_packet([VIEW])).json()["view"]
        answers = [http.post(talk, content=packet) for packet in packets(case)]
        assert answers[-1].status_code == 410
        return int(answers[-1].json()["code"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.door}: {case.what}")
def test_what_is_wrong_gets_its_documented_code(
    server: Besieged, runner: asyncio.Runner, good: Good, case: Case
) -> None:
    async def story() -> None:
        level = await asyncio.to_thread(server.connected)
        if case.door == "http":
            code: int | None = await asyncio.to_thread(over_http, server, case)
        else:
            code = await over_websocket(server, case)
        assert code == case.code
        await good.beat()
        await server.settled(level)

    runner.run(asyncio.wait_for(story(), PATIENCE))
    assert case.code in DOCUMENTED
    assert server.complaints() == []


@pytest.mark.parametrize(
    ("role", "size", "status"),
    [("owner", 20 * MEGABYTE, 413), ("none", 10, 401), ("wrong", 10, 401), ("engine", 10, 403)],
)
def test_what_is_refused_over_plain_http_before_it_is_read_gets_its_documented_status(
    server: Besieged, role: str, size: int, status: int
) -> None:
    with server.http(role) as http:
        # In pieces, so that only reading tells how much it is.
        pieces = (bytes(64 * 1024) for _ in range(size // (64 * 1024) + 1))
        with suppress(httpx.WriteError):
            assert http.post("/http/view", content=pieces).status_code == status
        assert http.post("/http/view", content=bytes(size)).status_code == status
    assert server.complaints() == []


def test_every_code_of_the_protocol_is_documented() -> None:
    codes = {value for name, value in vars(limits).items() if name.startswith("CLOSE_")}
    assert codes <= DOCUMENTED


def replay(server: Besieged, said: Callable[[Peer], Any]) -> list[Message]:
    """Talk as an engine; give what the door then says."""

    async def story() -> list[Message]:
        async with server.dial("engine", "engine") as socket:
            engine = Peer(socket)
            await engine.say(EngineHello(protocol=PROTOCOL, run="again", incarnation=0))
            await engine.next_of(EngineWelcome)
            await said(engine)
            return list(engine.seen)

    return asyncio.run(story())


def test_messages_that_are_said_again_or_late_are_confirmed_and_left_out(server: Besieged) -> None:
    words = [*opening("again"), frame(4, 1, [1.0, 1.0], run="again"), frame(5, 2, [2.0, 2.0], run="again")]

    async def twice(engine: Peer) -> None:
        await engine.say(*words)
        await engine.next_of(Stored, lambda message: message.seq == 5)
        # Once more as they were, then another message under an old number, then what comes next.
        await engine.say(*words)
        await engine.say(frame(4, 1, [9.0, 9.0], run="again"))
        await engine.say(status(6, "training", run="again", step=2))
        await engine.next_of(Stored, lambda message: message.seq == 6)

    replay(server, twice)
    with server.http() as http:
        series = http.get("/api/runs/again/series").json()["series"]
    assert [column["values"] for column in series] == [[1.0, 2.0], [1.0, 2.0]]


def test_of_two_couriers_of_a_run_the_older_and_that_of_the_older_incarnation_are_replaced(server: Besieged) -> None:
    async def greet(incarnation: int) -> Peer:
        engine = Peer(await server.dial("engine", "engine"))
        await engine.say(EngineHello(protocol=PROTOCOL, run="twice", incarnation=incarnation))
        return engine

    async def story() -> None:
        first, second = await greet(1), await greet(1)
        await second.next_of(EngineWelcome)
        assert await first.closed() == CLOSE_REPLACED
        late = await greet(0)
        assert await late.closed() == CLOSE_REPLACED
        await second.socket.close()

    asyncio.run(story())


def test_a_viewer_who_asks_again_or_for_what_is_not_there_is_served(server: Besieged) -> None:
    async def story() -> None:
        async with Good(server), server.dial("view", "viewer") as socket:
            viewer = Peer(socket)
            await viewer.say(VIEW)
            for run in ("steady", "steady", "none", "../x", "steady"):
                await viewer.say(Watch(run=run, width=2**40, since=2**60, epoch="x"), Visibility(visible=False))
                await viewer.say(Visibility(visible=True), Visibility(visible=True))
            await viewer.next_of(RunsListed)
            await viewer.until(lambda message: getattr(message, "run", None) is not None and type(message) is not Frame)

    asyncio.run(story())
