"""While a command is under way, the store leaves disk and interpreter to it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_PROTOCOL
from spiral_core.wire.messages import Command, EngineWelcome, Frame, Logged, Stored
from spiral_server.audience import Audience
from spiral_server.journal import TELL_SECONDS
from spiral_server.live.mailbox import urgent
from spiral_server.store import writing
from spiral_server.store.protocol import Entry
from spiral_server.store.run_writer import LOOSE_FRAMES
from spiral_server.store.sqlite_store import SqliteStore

from .asking import give, play, shown, stored
from .house import House, courier, serving, viewer
from .saying import ack, asking, frame, opening
from .test_store import judged

FOREVER = 600.0


def entries(*messages: Logged) -> list[Entry]:
    return [Entry(message, codec.encode(message)) for message in messages]


def blocks(store: SqliteStore) -> int:
    with closing(sqlite3.connect(store._logdir / "r1" / "run.db")) as database:
        return int(database.execute("SELECT COUNT(*) FROM blocks").fetchone()[0])


def test_a_command_is_on_disk_at_once_and_frames_wait_until_it_is_over(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "HELD_SECONDS", FOREVER)
    store.hold(FOREVER)
    frames = store.append("r1", entries(frame(1, 1)))
    store.journal(judged(1)).result(10)
    time.sleep(3 * writing.GATHER_SECONDS)
    assert not frames.done()
    store.rest(0.0)
    frames.result(10)


def test_frames_do_not_wait_for_ever_while_commands_come_one_behind_the_other(store: SqliteStore) -> None:
    store.hold(FOREVER)
    store.append("r1", entries(frame(1, 1))).result(10)
    done: list[str] = []
    store.append("r1", entries(frame(2, 2))).add_done_callback(lambda _: done.append("frame"))
    commands = [store.journal(judged(number)) for number in range(1, 1500)]
    commands[-1].add_done_callback(lambda _: done.append("last command"))
    commands[-1].result(60)
    assert done[0] == "frame"


def test_what_had_to_wait_is_done_behind_an_acknowledgement_and_not_where_the_next_command_may_come(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STEERING_SECONDS", FOREVER)
    monkeypatch.setattr(writing, "GATHER_SECONDS", 0.01)
    store.hold(0.0)
    many = [frame(seq, seq) for seq in range(LOOSE_FRAMES + 100)]
    for at in range(0, len(many), 100):
        store.append("r1", entries(*many[at : at + 100])).result(10)
    time.sleep(0.3)  # a block takes 5 ms
    assert blocks(store) == 0
    monkeypatch.setattr(writing, "REST_SECONDS", 30.0)
    monkeypatch.setattr(writing, "GATHER_SECONDS", FOREVER)
    waiting = store.append("r1", entries(frame(len(many), len(many))))
    begun = time.monotonic()
    store.rest(0.05)
    waiting.result(10)
    assert 0.04 < time.monotonic() - begun < 5, "those who watch are told first"
    deadline = time.monotonic() + 30
    while blocks(store) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_packing_goes_on_by_itself_once_nobody_steers_any_more(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STEERING_SECONDS", 0.5)
    store.hold(0.0)
    many = [frame(seq, seq) for seq in range(LOOSE_FRAMES + 100)]
    for at in range(0, len(many), 100):
        store.append("r1", entries(*many[at : at + 100])).result(10)
    deadline = time.monotonic() + 30
    while blocks(store) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_old_frames_are_not_packed_while_a_command_is_under_way(store: SqliteStore) -> None:
    store.hold(FOREVER)
    many = [frame(seq, seq) for seq in range(LOOSE_FRAMES + 100)]
    for at in range(0, len(many), 100):
        store.append("r1", entries(*many[at : at + 100])).result(10)
    store.journal(judged(1)).result(10)
    time.sleep(0.3)  # a block takes 5 ms
    assert blocks(store) == 0


def test_a_command_holds_the_store_until_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    rested: list[float] = []
    events: list[str] = []
    hold, rest, urge = SqliteStore.hold, SqliteStore.rest, Audience.urge
    monkeypatch.setattr(Audience, "urge", lambda audience, live: (events.append("told"), urge(audience, live)))
    monkeypatch.setattr(SqliteStore, "hold", lambda store, seconds: (held.append(seconds), hold(store, seconds)))

    def note_rest(store: SqliteStore, seconds: float) -> None:
        events.append("rested")
        rested.append(seconds)
        rest(store, seconds)

    monkeypatch.setattr(SqliteStore, "rest", note_rest)

    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            assert held == []
            assert (await give(house, asking("c1"))).status_code == 202
            assert len(held) == 1
            assert held[0] > 0
            await engine.say(frame(4, 1))
            await stored(engine, 4)
            assert rested == []
            await engine.say(ack(5, 1, "c1"))
            await stored(engine, 5)
            assert len(held) == 1
            # Those who watch are told first.
            assert rested == [TELL_SECONDS]
            assert events[-2:] == ["told", "rested"]

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_a_disk_that_does_not_take_a_command_keeps_no_frame_from_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, sync = threading.Event(), os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (works.wait(30), sync(file)))

    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            given = asyncio.create_task(give(house, asking("c1")))
            while not house.app.state.hub.journal._writing:
                await asyncio.sleep(0.01)
            begun = time.monotonic()
            for seq in range(4, 8):
                await engine.say(frame(seq, seq))
                await page.next_of(Frame, lambda one, seq=seq: one.seq == seq)
            assert time.monotonic() - begun < 2
            assert not given.done()
            works.set()
            assert (await given).status_code == 202
            assert (await engine.next_of(Command)).id == "c1"

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_a_command_never_overtakes_the_one_before_on_its_way_to_the_engine(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            hub = house.app.state.hub
            live = await hub.live("r1")
            # The first one is written by a thread, and its writing ends before the loop hears of that.
            first, _ = hub.journal.give(live, asking("c1"))
            time.sleep(0.5)
            second, _ = hub.journal.give(live, asking("c2"))
            await asyncio.wait_for(asyncio.gather(first, second), 10)
            for number in range(3, 6):
                await asyncio.sleep(0.05)
                await hub.journal.give(live, asking(f"c{number}"))[0]
            told = [(await engine.next_of(Command)).number for _ in range(5)]
            assert told == [1, 2, 3, 4, 5]

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_behind_a_packet_that_cannot_be_taken_in_nothing_is(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            for message in (frame(4, 2**60), frame(5, 5)):
                engine.socket.protocol.send_binary(codec.encode_packet([message]))
            # Both in one write, so that they come in one read.
            engine.socket.transport.write(b"".join(engine.socket.protocol.data_to_send()))
            assert await engine.closed() == CLOSE_PROTOCOL
        async with courier(house) as engine:
            (welcome,) = (one for one in engine.seen if isinstance(one, EngineWelcome))
            assert welcome.stored == 3, "what came behind is asked for again"

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_an_engine_is_told_now_and_then_what_is_on_disk_and_not_of_each_packet(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            packets = 60
            for seq in range(4, 4 + packets):
                await engine.say(frame(seq, seq))
            await stored(engine, 3 + packets)
            told = [message.seq for message in engine.seen if isinstance(message, Stored)]
            assert told == sorted(set(told))
            assert len(told) < packets / 2

    with serving(tmp_path / "runs") as house:
        play(story(house))


def test_that_a_command_is_accepted_waits_for_the_tick_and_what_became_of_it_does_not() -> None:
    accepted = judged(1)
    assert accepted.state == "accepted"
    assert not urgent(accepted)
    for state in ("applied", "rejected", "superseded", "expired"):
        assert urgent(msgspec.structs.replace(accepted, state=state))
    assert urgent(ack(5, 1, "c1"))
    assert not urgent(frame(4, 1))
