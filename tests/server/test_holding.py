"""While a command is under way, the store leaves disk and interpreter to it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from spiral_core.wire import codec
from spiral_core.wire.messages import Logged
from spiral_server.journal import TELL_SECONDS
from spiral_server.store import writing
from spiral_server.store.protocol import Entry
from spiral_server.store.run_writer import LOOSE_FRAMES
from spiral_server.store.sqlite_store import SqliteStore

from .asking import give, play, stored
from .house import House, courier, serving
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
    store.hold(0.0)
    store.append("r1", entries(frame(2, 2))).result(10)
    assert frames.done()


def test_frames_do_not_wait_for_ever_while_commands_come_one_behind_the_other(store: SqliteStore) -> None:
    store.hold(FOREVER)
    store.append("r1", entries(frame(1, 1))).result(10)
    done: list[str] = []
    store.append("r1", entries(frame(2, 2))).add_done_callback(lambda _: done.append("frame"))
    commands = [store.journal(judged(number)) for number in range(1, 1500)]
    commands[-1].add_done_callback(lambda _: done.append("last command"))
    commands[-1].result(60)
    assert done[0] == "frame"


def test_old_frames_are_not_packed_while_a_command_is_under_way(store: SqliteStore) -> None:
    store.hold(FOREVER)
    many = [frame(seq, seq) for seq in range(LOOSE_FRAMES + 100)]
    for at in range(0, len(many), 100):
        store.append("r1", entries(*many[at : at + 100])).result(10)
    store.journal(judged(1)).result(10)
    time.sleep(0.3)  # a block takes 5 ms
    assert blocks(store) == 0
    store.hold(0.0)
    store.append("r1", entries(frame(len(many), len(many)))).result(10)
    deadline = time.monotonic() + 30
    while blocks(store) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_holds_the_store_until_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    real = SqliteStore.hold

    def hold(store: SqliteStore, seconds: float) -> None:
        held.append(seconds)
        real(store, seconds)

    monkeypatch.setattr(SqliteStore, "hold", hold)

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
            assert len(held) == 1
            await engine.say(ack(5, 1, "c1"))
            await stored(engine, 5)
            # Those who watch are told first.
            assert held[1:] == [TELL_SECONDS]

    with serving(tmp_path / "runs") as house:
        play(story(house))
