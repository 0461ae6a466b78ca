"""Commands over the websocket of a page: the same as by HTTP, sooner."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_PROTOCOL, CLOSE_TOO_OFTEN, PROTOCOL
from spiral_core.wire.messages import (
    Ack,
    Command,
    CommandRecord,
    CommandRequest,
    Frame,
    Snapshot,
    Steer,
    Steered,
    ViewHello,
    ViewWelcome,
    Watch,
)
from spiral_core.wire.parts import Setting
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role
from spiral_server.routes import connection
from spiral_server.store import redo

from .asking import ask, give, play, shown, stored
from .house import House, Peer, courier, dial, serving, viewer
from .saying import ack, asking, frame, opening, status


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("steering") / "runs") as house:
        yield house


async def steer(page: Peer, request: CommandRequest, run: str = "r1") -> Steered:
    await page.say(Steer(run=run, request=request))
    told: Steered = await page.next_of(Steered, lambda one: one.id == request.id)
    return told


@dataclass
class Told:
    """What one road says to a request, without what makes it a request of its own."""

    status: int
    reason: str
    rev: int | None
    values: dict[str, Any]
    record: dict[str, Any] | None


def by_socket(told: Steered) -> Told:
    return Told(told.status, told.reason, told.rev, told.values, _without_name(codec.plain(told.record)))


def by_http(answer: httpx.Response) -> Told:
    said = answer.json()
    record = said if "state" in said else said.get("record")
    reason = said.get("error", "")
    return Told(
        answer.status_code,
        reason,
        said.get("rev") if record is None else None,
        said.get("values", {}),
        _without_name(record),
    )


def _without_name(record: Any) -> dict[str, Any] | None:
    return None if record is None else {name: record[name] for name in record if name not in ("id", "number", "time")}


CASES = {
    "accepted": (asking("a"), 202),
    "out of bounds": (asking("a", 5000.0), 422),
    "a text": (replace(asking("a"), sets=[Setting(knob="optim.lr", value="fast")]), 422),
    "no such knob": (asking("a", name="optim.rl"), 422),
    "a stale revision": (replace(asking("a"), expected_rev=0), 409),
    "a revision in force": (replace(asking("a"), expected_rev=1), 202),
    "a later step": (replace(asking("a"), at_step=40, supersede=True), 202),
    "too long a name": (asking("a" * 65), 400),
    "no name": (asking(""), 400),
    "another verb": (CommandRequest(id="a", verb="checkpoint"), 202),
}


@pytest.mark.parametrize(
    ("case", "run"), [*((case, "r1") for case in CASES), ("accepted", "none"), ("accepted", "over")]
)
def test_a_page_is_told_what_http_would_answer(tmp_path: Path, case: str, run: str) -> None:
    request, expected = CASES[case]
    name = request.id

    async def story(house: House) -> None:
        async with courier(house) as engine, courier(house, "over") as ended, viewer(house) as page:
            await engine.say(*opening(), ack(4, -1, "guard"))
            await stored(engine, 4)
            await ended.say(*opening("over"), status(4, "finished", run="over"))
            await stored(ended, 4)
            told = await steer(page, request, run)
            again = replace(request, id=name.replace("a", "b"))
            assert by_socket(told) == by_http(await give(house, again, run))
            assert told.status == {"r1": expected, "none": 404, "over": 409}[run]

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_a_command_of_a_page_is_on_disk_before_it_is_answered_and_reaches_the_engine_once(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            told = await steer(page, asking("c1"))
            assert [one.id for one in redo.read(tmp_path / "runs" / "r1" / redo.REDO_FILE).records] == ["c1"]
            assert told.record is not None
            assert (told.record.actor, told.record.source) == ("me as owner, 127.0.0.1", "ui")
            assert (await steer(page, asking("c1"))).status == 200
            assert (await give(house, asking("c1"))).status_code == 200
            assert (await engine.next_of(Command)).id == "c1"
            await engine.say(ack(4, 1, "c1"))
            assert (await page.next_of(Ack)).id == "c1"
            nothing = await steer(page, asking("c2", float("nan")))
            assert (nothing.status, "finite" in nothing.reason) == (422, True)
            again = await steer(page, asking("c1"))
            assert again.record is not None
            assert (again.status, again.record.state) == (200, "applied")
            await stored(engine, 4)
            assert [one for one in engine.seen if isinstance(one, Command)][1:] == []

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_commands_in_one_packet_and_in_one_write_are_given_in_their_order(house: House) -> None:
    async def story() -> None:
        async with courier(house, "order") as engine, viewer(house) as page:
            await engine.say(*opening("order"))
            await stored(engine, 3)
            names = [f"c{number}" for number in range(30)]
            given = [Steer(run="order", request=asking(name)) for name in names]
            packets = [given[:10], *([one] for one in given[10:15]), [Watch(run="order", width=9), *given[15:20]]]
            for packet in [*packets, *([one] for one in given[20:])]:
                page.socket.protocol.send_binary(codec.encode_packet(packet))
            page.socket.transport.write(b"".join(page.socket.protocol.data_to_send()))
            await page.next_of(Steered, lambda one: one.id == names[-1])
            told = [one for one in page.seen if isinstance(one, Steered)]
            assert [one.id for one in told] == names
            assert [one.record.number for one in told if one.record is not None] == list(range(1, 31))
            await engine.next_of(Command, lambda one: one.id == names[-1])
            assert [one.id for one in engine.seen if isinstance(one, Command)] == names

    play(story())


def test_a_command_for_a_run_that_has_to_be_read_back_first_is_given(tmp_path: Path) -> None:
    async def begin(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)

    async def go_on(house: House) -> None:
        async with viewer(house) as page:
            assert house.app.state.hub.loaded("r1") is None
            assert (await steer(page, asking("c1"))).status == 202
        async with courier(house, incarnation=1) as engine:
            await engine.say(*opening(incarnation=1))
            assert (await engine.next_of(Command)).id == "c1"

    for story in (begin, go_on):
        with serving(tmp_path / "runs") as house:
            play(story(house))


def test_a_viewers_token_steers_nothing_and_sees_on(house: House) -> None:
    token, _ = tokens.make(house.settings.logdir, Role.VIEWER, "looks-on")

    async def story() -> None:
        async with courier(house, "seen") as engine, dial(house, "view", {"Authorization": f"Bearer {token}"}) as page:
            await engine.say(*opening("seen"))
            await stored(engine, 3)
            await page.say(ViewHello(protocol=PROTOCOL))
            await page.next_of(ViewWelcome)
            told = await steer(page, asking(), "seen")
            assert (told.status, told.record) == (403, None)
            assert "`spiral token new`" in told.reason
            await shown(page, "seen")
            await engine.say(frame(4, 1, run="seen"))
            await page.next_of(Frame)
        assert (await ask(house, "/api/runs/seen/commands"))["commands"] == []

    play(story())


def test_a_journal_that_cannot_be_written_is_said_and_the_page_may_ask_again(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            in_the_way = tmp_path / "runs" / "r1" / redo.REDO_FILE
            in_the_way.mkdir()
            told = await steer(page, asking("c1"))
            assert (told.status, told.record) == (503, None)
            assert "cannot be written" in told.reason
            in_the_way.rmdir()
            assert (await steer(page, asking("c1"))).status == 202
            assert (await engine.next_of(Command)).id == "c1"

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_who_has_gone_before_the_answer_has_given_the_command_all_the_same(house: House) -> None:
    async def story() -> None:
        async with courier(house, "gone") as engine:
            await engine.say(*opening("gone"))
            await stored(engine, 3)
            async with viewer(house) as page:
                await page.say(Steer(run="gone", request=asking("c1")))
                page.socket.transport.abort()
            assert (await engine.next_of(Command)).id == "c1"

    play(story())


def test_over_plain_http_a_page_posts_its_commands_as_everybody_does(house: House) -> None:
    async def story() -> None:
        headers = {**house.cookie, "Origin": house.url}
        async with httpx.AsyncClient(base_url=house.url, headers=headers, timeout=20) as http:
            hello = codec.encode_packet([ViewHello(protocol=PROTOCOL)])
            talk = (await http.post("/http/view", content=hello)).json()["view"]
            packet = codec.encode_packet([Steer(run="r1", request=asking())])
            answer = await http.post(f"/http/view/{talk}", content=packet)
            assert (answer.status_code, answer.json()["code"]) == (410, CLOSE_PROTOCOL)
            assert "POST api/runs/{run}/commands" in answer.json()["error"]

    play(story())


def test_what_a_guard_or_another_page_has_done_is_told_as_ever(house: House) -> None:
    async def story() -> None:
        async with courier(house, "two") as engine, viewer(house) as one, viewer(house) as other:
            await engine.say(*opening("two"))
            await stored(engine, 3)
            await shown(one, "two")
            await shown(other, "two")
            assert (await steer(one, asking("c1"), "two")).status == 202
            record = await other.next_of(CommandRecord)
            assert (record.id, record.state) == ("c1", "accepted")
            await engine.say(ack(4, 1, "c1", run="two"))
            for page in (one, other):
                assert (await page.next_of(Ack)).id == "c1"

    play(story())


def test_a_command_does_not_wait_for_what_its_page_has_asked_to_see_nor_overtakes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()

    async def story(house: House) -> None:
        hub = house.app.state.hub
        read = hub.showing.watch

        begun = Event()

        async def watch(viewer: Any, message: Watch) -> None:
            begun.set()
            await asyncio.to_thread(go_on.wait, 20)
            await read(viewer, message)

        monkeypatch.setattr(hub.showing, "watch", watch)
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await page.say(Watch(run="r1", width=800))
            assert await asyncio.to_thread(begun.wait, 10)
            assert [(await steer(page, asking(name))).status for name in ("c1", "c2")] == [202, 202]
            # In one packet with what is waited for, and behind it.
            await page.say(Watch(run="r1", width=9), Steer(run="r1", request=asking("c3")))
            await page.say(Steer(run="r1", request=asking("c4")))
            await asyncio.sleep(0.1)
            assert not any(isinstance(one, Snapshot) for one in page.seen)
            go_on.set()
            await page.next_of(Steered, lambda one: one.id == "c4")
            told = [one.id for one in page.seen if isinstance(one, Steered)]
            assert told == ["c1", "c2", "c3", "c4"]

    with serving(tmp_path / "runs") as house:
        play(story(house))
        go_on.set()


def test_a_page_that_steers_and_does_not_read_is_not_heard_any_more(tmp_path: Path) -> None:
    long = CommandRequest(
        id="long", verb="set", sets=[Setting(knob=f"{number:060}", value=1.0) for number in range(180)]
    )

    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            assert (await steer(page, long)).status == 422
            (one,) = house.app.state.hub.audience.viewers
            transport = one.outlet._frames.transport

            def buffers(size: int) -> None:
                for end, which in ((transport, socket.SO_SNDBUF), (page.socket.transport, socket.SO_RCVBUF)):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, which, size)

            buffers(4096)
            page.socket.transport.pause_reading()
            for _ in range(60):
                await page.say(Steer(run="r1", request=replace(asking(), id="long")))
            most = 0
            for _ in range(50):
                await asyncio.sleep(0.01)
                most = max(most, transport.get_write_buffer_size())
            assert 0 < most < 500_000, "60 answers of 16 KB"
            buffers(1_000_000)
            page.socket.transport.resume_reading()
            for _ in range(60):
                await page.next_of(Steered)

    with serving(tmp_path / "runs") as house:
        play(story(house))


@pytest.mark.parametrize("each", [1, 40])
def test_a_page_that_steers_too_often_is_closed(house: House, each: int) -> None:
    async def story() -> None:
        async with viewer(house) as page:
            for _ in range(600 // each):
                try:
                    await page.say(*[Steer(run="none", request=asking())] * each)
                except ConnectionClosed:
                    break
            assert await page.closed() == CLOSE_TOO_OFTEN

    play(story())


def test_a_token_that_has_been_taken_back_steers_nothing_also_before_its_page_is_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = tokens.make(house.settings.logdir, Role.OPERATOR, "leaves")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(connection, "revoked", never)

    async def story() -> None:
        async with courier(house, "left") as engine, dial(house, "view", {"Authorization": f"Bearer {token}"}) as page:
            await engine.say(*opening("left"))
            await stored(engine, 3)
            await page.say(ViewHello(protocol=PROTOCOL))
            await page.next_of(ViewWelcome)
            assert (await steer(page, asking("c1"), "left")).status == 202
            tokens.revoke(house.settings.logdir, "leaves")
            assert (await steer(page, asking("c2"), "left")).status == 401

    play(story())
