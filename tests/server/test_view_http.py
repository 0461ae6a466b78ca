"""Watching over plain HTTP: the same packets, rules and codes as over a websocket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_PROTOCOL, CLOSE_TOO_BIG, CLOSE_TOO_SLOW
from spiral_core.wire.messages import (
    Ack,
    AnyMessage,
    Frame,
    Message,
    Ping,
    Pong,
    Resumed,
    RunsListed,
    Snapshot,
    Tick,
    ViewHello,
    ViewWelcome,
    Watch,
)
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role
from spiral_server.routes.view_http import CONVERSATIONS
from spiral_server.settings import Pace

from .asking import play, stored
from .house import PATIENCE, House, courier, serving
from .saying import ack, frame, opening

HELLO = codec.encode_packet([ViewHello(protocol=1)])


class Page:
    """A page without a websocket."""

    def __init__(self, http: httpx.AsyncClient, name: str) -> None:
        self.http = http
        self.base = f"/http/view/{name}"
        self.seen: list[AnyMessage] = []

    async def say(self, *messages: Message) -> httpx.Response:
        return await self.http.post(self.base, content=codec.encode_packet(messages))

    async def poll(self) -> httpx.Response:
        answer = await self.http.get(f"{self.base}/poll")
        if answer.status_code == 200:
            self.seen += codec.decode_packet(answer.content)
        return answer

    async def poll_until(self, kind: type[Message], seq: int = -1) -> None:
        while not any(isinstance(one, kind) and getattr(one, "seq", seq) >= seq for one in self.seen):
            assert (await self.poll()).status_code == 200


@asynccontextmanager
async def page_of(house: House, **headers: str) -> AsyncIterator[Page]:
    sent = headers or {**house.cookie, "Origin": house.url}
    async with httpx.AsyncClient(base_url=house.url, headers=sent, timeout=20) as http:
        answer = await http.post("/http/view", content=HELLO)
        assert answer.status_code == 201
        yield Page(http, answer.json()["view"])


def test_polls_carry_what_a_websocket_carries(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, page_of(house) as page:
            await engine.say(*opening(), frame(4, 1))
            await stored(engine, 4)
            assert (await page.say(Watch(run="r1", width=800))).status_code == 204
            await page.poll_until(Snapshot)
            assert [type(message) for message in page.seen[:2]] == [ViewWelcome, RunsListed]
            for seq in range(5, 25):
                await engine.say(frame(seq, seq))
            await engine.say(ack(25, 1, "c"))
            await page.poll_until(Ack)
            await page.poll_until(Frame, 24)
            assert [message.seq for message in page.seen if isinstance(message, Frame)] == list(range(5, 25))
            await page.say(Ping(time=3.0))
            await page.poll_until(Pong)

    play(story())


def test_events_carry_the_same_and_end_with_the_code(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine, page_of(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await page.say(Watch(run="r1", width=800))
            code = None
            async with page.http.stream("GET", f"{page.base}/events") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                kind = ""
                async for line in stream.aiter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: ") and kind == "close":
                        code = json.loads(line.removeprefix("data: "))["code"]
                    elif line.startswith("data: "):
                        page.seen += codec.decode_packet(base64.b64decode(line.removeprefix("data: ")))
                        if isinstance(page.seen[-1], Snapshot):
                            await engine.say(frame(4, 1))
                        if isinstance(page.seen[-1], Frame):
                            await page.say(ViewHello(protocol=1))  # a second greeting breaks the protocol
            assert code == CLOSE_PROTOCOL
            assert (await page.poll()).json()["code"] == CLOSE_PROTOCOL

    with serving(tmp_path) as house:
        play(story(house))


def test_whoever_reads_last_gets_everything(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, page_of(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await page.say(Watch(run="r1", width=800))
            await page.poll_until(Snapshot)
            ((talk, _),) = house.app.state.conversations._known.values()

            async def begun_to_read() -> asyncio.Task[httpx.Response]:
                before = talk._reading
                task = asyncio.create_task(page.http.get(f"{page.base}/poll"))
                async with asyncio.timeout(PATIENCE):
                    while talk._reading == before:
                        await asyncio.sleep(0.005)
                return task

            first = await begun_to_read()
            second = await begun_to_read()
            async with asyncio.timeout(PATIENCE):
                assert (await first).content == b""
            assert not second.done()
            await engine.say(frame(4, 1))
            assert [type(one) for one in codec.decode_packet((await second).content)] == [Tick, Frame]

    play(story())


def test_a_page_that_comes_back_over_http_gets_what_it_missed(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            async with page_of(house) as page:
                await page.say(Watch(run="r1", width=800))
                await page.poll_until(Snapshot)
                await engine.say(frame(4, 1))
                await page.poll_until(Frame)
            (known,) = (message for message in page.seen if isinstance(message, Snapshot))
            (tick,) = (message for message in page.seen if isinstance(message, Tick))
            await engine.say(frame(5, 2), frame(6, 3))
            await stored(engine, 6)
            async with page_of(house) as page:
                await page.say(Watch(run="r1", width=800, epoch=known.epoch, since=tick.number))
                await page.poll_until(Frame, 6)
                assert any(isinstance(message, Resumed) for message in page.seen)
                assert [message.seq for message in page.seen if isinstance(message, Frame)] == [5, 6]

    play(story())


def test_a_page_that_does_not_fetch_is_closed_and_told_so_when_it_asks(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with page_of(house) as page:
            viewers = house.app.state.hub.audience.viewers
            async with asyncio.timeout(10):
                while viewers:
                    await asyncio.sleep(0.02)
            answer = await page.poll()
            while answer.status_code == 200:  # what lay there for it
                answer = await page.poll()
            assert (answer.status_code, answer.json()["code"]) == (410, CLOSE_TOO_SLOW)

    with serving(tmp_path, pace=Pace(stall=0.3)) as house:
        play(story(house))


def test_a_stream_that_nobody_reads_any_more_frees_its_viewer(house: House) -> None:
    async def story() -> None:
        async with page_of(house) as page:
            async with page.http.stream("GET", f"{page.base}/events") as stream:
                await anext(stream.aiter_lines())
                assert house.app.state.hub.audience.viewers
            async with asyncio.timeout(10):
                while house.app.state.hub.audience.viewers:
                    await asyncio.sleep(0.02)

    play(story())


def test_what_breaks_the_protocol_or_is_too_large_is_answered_with_its_code(house: House) -> None:
    bad = {
        codec.encode_packet([Watch(run="", width=1)]): CLOSE_PROTOCOL,
        b"\x00" * (17 * 1024): CLOSE_TOO_BIG,
    }
    with house.http() as http:
        for packet, code in bad.items():
            answer = http.post("/http/view", content=packet)
            assert (answer.status_code, answer.json()["code"]) == (410, code)
        assert http.post("/http/view/unknown", content=HELLO).status_code == 404


def test_the_reasons_of_conversations_that_have_ended_are_kept_for_some_of_them_only(tmp_path: Path) -> None:
    with serving(tmp_path, requests_per_second=0) as house, house.http() as http:
        names = [http.post("/http/view", content=HELLO).json()["view"] for _ in range(3)]
        for name in names:
            assert http.post(f"/http/view/{name}", content=b"\x01").status_code == 410
        assert http.post(f"/http/view/{names[0]}", content=HELLO).status_code == 410
        for _ in range(CONVERSATIONS):
            last = http.post("/http/view", content=HELLO).json()["view"]
            assert http.post(f"/http/view/{last}", content=b"\x01").status_code == 410
        assert http.post(f"/http/view/{names[0]}", content=HELLO).status_code == 404
        assert http.post(f"/http/view/{last}", content=HELLO).status_code == 410


def test_a_conversation_belongs_to_the_token_that_began_it_and_ends_with_it(house: House) -> None:
    logdir = house.settings.logdir
    mine, holder = tokens.make(logdir, Role.VIEWER, None)
    other, _ = tokens.make(logdir, Role.VIEWER, None)

    async def story() -> None:
        async with page_of(house, Authorization=f"Bearer {mine}") as page:
            stranger = {"Authorization": f"Bearer {other}"}
            assert (await page.http.get(f"{page.base}/poll", headers=stranger)).status_code == 404
            assert (await page.poll()).status_code == 200
            tokens.revoke(logdir, holder.name)
            async with asyncio.timeout(15):
                while house.app.state.hub.audience.viewers:
                    await asyncio.sleep(0.05)
            assert (await page.poll()).status_code == 401

    play(story())
