"""Damage is never served: it is found, reported, and mended from the run log where that is there."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spiral_core.link.thinning import thin_file
from spiral_core.wire import codec, records
from spiral_server.store import attempts, spool
from spiral_server.store.errors import StoreError
from spiral_server.store.protocol import Entry, SeriesQuery
from spiral_server.store.sqlite_store import SqliteStore

from .saying import ack, frame, heat_maps, opening, strip
from .test_store import EVERYTHING, flip, judged, packed, run_file

COUNT = 700


def story() -> list[Any]:
    values = np.random.default_rng(5).normal(size=COUNT).tolist()
    frames = [frame(4 + k, 1 + k, [values[k], -values[k]]) for k in range(COUNT)]
    end = 4 + COUNT
    return [*opening(), *frames, heat_maps(end, COUNT), strip(end + 1, COUNT, 0.5), ack(end + 2, 1, "c1")]


def keep(store: SqliteStore, messages: list[Any]) -> None:
    for start in range(0, len(messages), 150):
        some = messages[start : start + 150]
        store.append("r1", [Entry(message, codec.encode(message)) for message in some]).result(20)
    packed(store)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a command, as a directory of runs that nobody holds."""
    logdir = tmp_path_factory.mktemp("sound")
    store = SqliteStore(logdir)
    keep(store, story())
    store.journal(judged(1)).result(5)
    store.compact("r1")
    store.close()
    return logdir


def log_of(folder: Path, messages: list[Any]) -> None:
    """Write the run log that the engine had."""
    packed = b"".join(records.record(codec.encode(message)) for message in messages)
    (folder / "frames.log").write_bytes(records.MAGIC + packed)


def told(store: SqliteStore) -> tuple[dict[int, list[tuple[float, float]]], list[bytes], list[str], bool]:
    """Ask for everything; the last value tells whether damage was reported."""
    try:
        read = store.series("r1", EVERYTHING)
        history = store.history("r1")
        maps = store.heat_maps("r1", None)
    except StoreError:
        return {}, [], [], True
    columns = {
        index: list(zip(points.steps.tolist(), points.values.tolist(), strict=True))
        for index, points in read.columns.items()
    }
    # As bytes: NaN is not equal to itself.
    messages = [codec.encode(message) for message in [*history.messages, *([maps] if maps else [])]]
    return columns, messages, [record.id for record in history.commands], bool(read.damage or history.damage)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=0.046875, mask=128)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_byte_that_has_changed_anywhere_in_the_file_is_never_served(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, place: float, mask: int
) -> None:
    check_flip(sound, tmp_path_factory.mktemp("flipped"), place, mask)


@pytest.mark.soak
def test_every_hundredth_byte_changed_in_turn(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    size = (sound / "r1" / "run.db").stat().st_size
    for number in range(0, size, 97):
        check_flip(sound, tmp_path_factory.mktemp("flipped"), number / size, 1 << number % 8)


def check_flip(sound: Path, logdir: Path, place: float, mask: int) -> None:
    (logdir / "r1").mkdir()
    file = logdir / "r1" / "run.db"
    data = bytearray((sound / "r1" / "run.db").read_bytes())
    data[int(place * len(data))] ^= mask
    file.write_bytes(bytes(data))
    store = SqliteStore(logdir)
    try:
        columns, messages, commands, reported = told(store)
    finally:
        store.close()
        shutil.rmtree(logdir)
    expected = {
        index: {(float(one.step), float(one.values.numpy()[index])) for one in story()[4 : 4 + COUNT]}
        for index in (0, 1)
    }
    for index, points in columns.items():
        assert set(points) <= expected[index]
    kept = [codec.encode(message) for message in story() if message.__struct_config__.tag != "frame"]
    assert all(message in kept for message in messages)
    whole = all(set(columns.get(index, [])) == expected[index] for index in (0, 1))
    # Strips and heat maps may be replaced or thinned; what is counted is what must not be missing.
    whole = whole and len(set(messages)) >= len(kept) - 1 and commands == ["c1"]
    assert whole or reported


@pytest.mark.parametrize("table", ["block_data", "messages", "strips", "nodes", "frames"])
def test_what_is_damaged_is_mended_from_the_run_log_when_it_is_read(tmp_path: Path, table: str) -> None:
    store = SqliteStore(tmp_path)
    keep(store, story())
    log_of(tmp_path / "r1", story())
    before = told(store)
    flip(run_file(store), table)
    assert [damage.kind for damage in store.verify("r1")]
    assert told(store) == before if table != "nodes" else True
    assert store.verify("r1", repair=True) == []
    store.close()


def test_single_frames_that_were_taken_out_come_back_when_the_log_does(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    everything = story()
    keep(store, everything[:20])
    flip(run_file(store), "frames", "step = 3")
    keep(store, everything[20:])
    store.compact("r1")
    assert [(damage.kind, damage.first_step) for damage in store.verify("r1", repair=True)] == [("lost", 3)]
    log_of(tmp_path / "r1", everything)
    assert store.verify("r1", repair=True) == []
    got = store.series("r1", EVERYTHING)
    assert got.columns[0].steps.tolist() == list(range(1, COUNT + 1))
    store.close()


def spoilt(logdir: Path, blocks: int) -> SqliteStore:
    """Keep the story, with its log beside it, and damage its first blocks."""
    store = SqliteStore(logdir)
    keep(store, story())
    store.compact("r1")
    log_of(logdir / "r1", story())
    for identity in range(1, blocks + 1):
        flip(run_file(store), "block_data", f"id = {identity}")
    return store


def steps_of(store: SqliteStore) -> list[int]:
    return [int(step) for step in store.series("r1", EVERYTHING).columns[0].steps]


def test_what_a_torn_log_cannot_give_back_stays_reported(tmp_path: Path) -> None:
    store = spoilt(tmp_path, 2)
    log = tmp_path / "r1" / "frames.log"
    # Up to frame 400: the whole first block, and a part of the second, which ends with step 512.
    log_of(tmp_path / "r1", story()[: 4 + 400])
    log.write_bytes(log.read_bytes()[:-20])
    for _ in range(2):
        left = store.verify("r1", repair=True)
        assert [(one.kind, one.first_seq, one.last_seq) for one in left] == [("lost", 4 + 399, 4 + 511)]
        assert steps_of(store) == [*range(1, 400), *range(513, COUNT + 1)]
    log_of(tmp_path / "r1", story())
    assert store.verify("r1", repair=True) == []
    assert steps_of(store) == list(range(1, COUNT + 1))
    store.close()


def test_what_a_thinned_log_cannot_give_back_stays_reported(tmp_path: Path) -> None:
    store = spoilt(tmp_path, 1)
    thin_file(tmp_path / "r1" / "frames.log", 64)
    for _ in range(2):
        left = store.verify("r1", repair=True)
        assert [(one.kind, one.first_step, one.last_step) for one in left] == [("lost", 1, 256)]
        # The extremes are back, the others are known to be missing.
        back = [step for step in steps_of(store) if step <= 256]
        assert 4 <= len(back) < 64
    log_of(tmp_path / "r1", story())
    assert store.verify("r1", repair=True) == []
    assert steps_of(store) == list(range(1, COUNT + 1))
    store.close()


def test_a_run_that_came_thinned_is_mended_from_its_thinned_log(tmp_path: Path) -> None:
    (tmp_path / "r1").mkdir()
    log_of(tmp_path / "r1", story())
    thin_file(tmp_path / "r1" / "frames.log", 8)
    store = SqliteStore(tmp_path)
    keep(store, [entry.message for entry in spool.entries(tmp_path / "r1", 0, lambda _: True)])
    store.compact("r1")
    before = told(store)
    flip(run_file(store), "block_data", "id = 1")
    assert [damage.kind for damage in store.verify("r1")] == ["block"]
    assert store.verify("r1", repair=True) == []
    assert told(store) == before
    store.close()


def test_what_is_damaged_once_more_is_mended_once_more(tmp_path: Path) -> None:
    store = spoilt(tmp_path, 1)
    assert steps_of(store) == list(range(1, COUNT + 1))
    flip(run_file(store), "block_data", "id = 1")
    assert steps_of(store) == list(range(1, COUNT + 1))
    store.close()


def test_what_could_not_be_mended_for_want_of_room_is_mended_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.0)
    store = spoilt(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = run_file(store).with_name("run.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        assert steps_of(store) == list(range(257, COUNT + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps_of(store) == list(range(1, COUNT + 1))
    store.close()


def test_rows_that_cannot_be_found_are_missed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.journal(judged(1)).result(5)
    keep(store, story())
    for statement in ("DELETE FROM blocks WHERE id = 2", "DELETE FROM commands", "DELETE FROM messages WHERE seq = 1"):
        with closing(sqlite3.connect(tmp_path / "r1" / "run.db")) as connection, connection:
            connection.execute(statement)
    assert {damage.kind for damage in store.verify("r1")} == {"missing"}
    assert store.series("r1", SeriesQuery(None, 600, 610, 100)).damage
    assert len(store.history("r1").damage) == 2
    store.close()
