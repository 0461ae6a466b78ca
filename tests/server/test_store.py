"""Laws of a store of runs, on disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord, Logged, Thinned
from spiral_server.live.commands import judge
from spiral_server.store.errors import LogdirInUseError, StoreError, UnknownRunError
from spiral_server.store.protocol import Entry, SeriesQuery, is_run_id
from spiral_server.store.rebuild import view_of
from spiral_server.store.run_writer import LOOSE_FRAMES
from spiral_server.store.sqlite_store import SqliteStore

from .saying import NOW, ack, asking, frame, heat_maps, knob, opening, status, strip

EVERYTHING = SeriesQuery(None, None, None, 100_000)


def judged(number: int) -> CommandRecord:
    knobs = {"optim.lr": knob()}
    return judge(asking(f"c{number}"), run="r1", incarnation=0, number=number, knobs=knobs, time=NOW)


def keep(store: SqliteStore, *messages: Any, run: str = "r1") -> None:
    store.append(run, [Entry(message, codec.encode(message)) for message in messages]).result(10)


def read(store: SqliteStore, **query: Any) -> dict[int, list[tuple[float, float]]]:
    got = store.series("r1", EVERYTHING._replace(**query))
    assert got.damage == []
    return {
        index: list(zip(points.steps.tolist(), points.values.tolist(), strict=True))
        for index, points in got.columns.items()
    }


def run_file(store: SqliteStore) -> Path:
    return store._logdir / "r1" / "run.db"


def packed(store: SqliteStore) -> None:
    """Wait until the store has made blocks of the old frames, which it does when it has nothing else to do."""
    deadline = time.monotonic() + 30
    while count(store, "frames") > LOOSE_FRAMES:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count(store: SqliteStore, rows: str) -> int:
    with closing(sqlite3.connect(run_file(store))) as connection:
        return int(connection.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])


def alter(store: SqliteStore, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(run_file(store))) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def flip(database: Path, table: str, where: str = "1") -> None:
    """Flip one bit in the middle of one blob."""
    with closing(sqlite3.connect(database)) as connection, connection:
        place, data = connection.execute(f"SELECT rowid, data FROM {table} WHERE {where} LIMIT 1").fetchone()
        spoilt = bytearray(data)
        spoilt[len(spoilt) // 2] ^= 1
        connection.execute(f"UPDATE {table} SET data = ? WHERE rowid = ?", (bytes(spoilt), place))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.floats(), min_size=1, max_size=3), min_size=1, max_size=30),
    st.lists(st.integers(1, 30), max_size=4),
)
def test_what_is_kept_is_read_back_also_after_repetitions(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], cuts: list[int]
) -> None:
    store = SqliteStore(tmp_path_factory.mktemp("runs"))
    frames = [frame(seq, seq, values) for seq, values in enumerate(rows)]
    for cut in [*sorted(cuts), len(frames)]:
        keep(store, *frames[:cut])
    got = store.series("r1", EVERYTHING).columns
    for index in range(3):
        expected = [values[index] for values in rows if index < len(values)]
        if expected:
            np.testing.assert_array_equal(got[index].values, expected)
    store.close()


def test_thousands_of_frames_become_blocks_and_read_the_same(store: SqliteStore) -> None:
    values = np.random.default_rng(0).normal(size=1500)
    values[700] = np.nan
    for first in range(0, 1500, 100):
        keep(store, *(frame(seq, seq, [values[seq]]) for seq in range(first, first + 100)))
    packed(store)
    got = store.series("r1", EVERYTHING)
    np.testing.assert_array_equal(got.columns[0].values, values)
    assert not got.columns[0].reduced
    assert count(store, "blocks WHERE count = 256") == 5
    assert count(store, "frames") == 1500 - 5 * 256
    part = read(store, first=100, last=110, indices=frozenset({0}))
    assert part[0] == [(float(step), values[step]) for step in range(100, 111)]


def test_a_far_view_reads_summaries_and_loses_no_spike(store: SqliteStore) -> None:
    values = np.zeros(6000)
    values[[3, 2000, 5999]] = [9.0, -7.0, 8.0]
    values[4000] = np.inf
    for first in range(0, 6000, 250):
        keep(store, *(frame(seq, seq, [values[seq]]) for seq in range(first, first + 250)))
    got = store.series("r1", SeriesQuery(None, None, None, 100)).columns[0]
    assert got.reduced
    assert len(got.values) < 130
    drawn = dict(zip(got.steps.tolist(), got.values.tolist(), strict=True))
    assert (drawn[3], drawn[2000], drawn[5999], drawn[4000]) == (9.0, -7.0, 8.0, np.inf)
    # A range that cuts through a block sees the extremes within the range, not those of the whole block.
    edge = store.series("r1", SeriesQuery(None, 4, 5990, 100)).columns[0]
    assert 9.0 not in edge.values
    assert edge.steps[0] == 4


def test_a_resumed_run_replaces_everything_from_its_first_step_on(store: SqliteStore) -> None:
    keep(store, *(frame(seq, seq, [1.0]) for seq in range(800)))
    keep(store, *(frame(seq, 500 + seq, [2.0], incarnation=1) for seq in range(50)))
    got = store.series("r1", EVERYTHING).columns[0]
    assert got.steps.tolist() == list(range(550))
    assert got.values.tolist() == [1.0] * 500 + [2.0] * 50
    assert store.stored("r1", 0).result(5) == 799
    assert store.stored("r1", 1).result(5) == 49
    assert store.stored("r1", 2).result(5) == -1


def test_a_flipped_byte_in_a_block_is_reported_and_never_served(store: SqliteStore) -> None:
    for first in range(0, 800, 100):
        keep(store, *(frame(seq, seq, [float(seq)]) for seq in range(first, first + 100)))
    flip(run_file(store), "block_data")
    got = store.series("r1", EVERYTHING)
    assert got.columns[0].steps.tolist() == list(range(256, 800))
    assert [(damage.first_step, damage.last_step) for damage in got.damage] == [(0, 255)]
    assert "checksum" in got.damage[0].reason


def test_a_damaged_node_of_the_pyramid_is_made_again_from_its_blocks(store: SqliteStore) -> None:
    values = np.random.default_rng(1).normal(size=6000)
    for first in range(0, 6000, 250):
        keep(store, *(frame(seq, seq, [values[seq]]) for seq in range(first, first + 250)))
    far = SeriesQuery(None, None, None, 16)
    before = store.series("r1", far).columns[0]
    for level in (0, 1, 2):
        flip(run_file(store), "nodes", f"level = {level} AND place = 0")
        assert [damage.kind for damage in store.verify("r1")] == ["node"]
        got = store.series("r1", far)
        assert got.damage == [] or level < 1
        np.testing.assert_array_equal(got.columns[0].values, before.values)
        assert store.verify("r1", repair=True) == []


def test_a_block_that_has_changed_places_is_not_served(store: SqliteStore) -> None:
    for first in range(0, 800, 100):
        keep(store, *(frame(seq, seq, [float(seq)]) for seq in range(first, first + 100)))
    alter(store, "UPDATE blocks SET first_step = 1 WHERE id = 1")
    got = store.series("r1", EVERYTHING)
    assert got.damage
    assert 0 not in got.columns[0].steps


def test_a_flipped_byte_in_a_single_frame_is_reported_before_and_after_it_is_packed(store: SqliteStore) -> None:
    keep(store, *(frame(seq, seq) for seq in range(10)))
    flip(run_file(store), "frames", "step = 3")
    for last in (10, 600):
        keep(store, *(frame(seq, seq) for seq in range(10, last)))
        got = store.series("r1", EVERYTHING)
        assert [damage.first_step for damage in got.damage] == [3]
        assert 3 not in got.columns[0].steps
        assert {2, 4} < set(got.columns[0].steps.tolist())


def test_damaged_messages_and_commands_are_left_out_of_the_history(store: SqliteStore) -> None:
    store.journal(judged(1)).result(5)
    keep(store, *opening(), heat_maps(4, 1), heat_maps(5, 2))
    flip(run_file(store), "messages", "kind = 'knobs-declared'")
    flip(run_file(store), "messages", "step = 2")
    flip(run_file(store), "commands")
    history = store.history("r1")
    assert len(history.damage) == 3
    assert history.commands == []
    found = store.heat_maps("r1", None)
    assert found is not None
    assert found.step == 1


def test_a_file_that_is_no_database_is_an_error_of_ours_and_harms_no_other_run(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    keep(store, *opening())
    keep(store, *opening(run="r2"), run="r2")
    store.close()
    (tmp_path / "r1" / "run.db").write_bytes(b"garbage" * 1000)
    (tmp_path / "catalog.db").unlink()
    store = SqliteStore(tmp_path)
    assert [(summary.id, "cannot be read" in summary.trouble) for summary in store.runs()] == [
        ("r1", True),
        ("r2", False),
    ]
    with pytest.raises(StoreError):
        store.history("r1")
    assert [damage.kind for damage in store.verify("r1", repair=True)] == ["file"]
    store.close()


def test_heat_maps_are_found_at_or_before_a_step(store: SqliteStore) -> None:
    keep(store, *opening(), *(heat_maps(4 + i, 10 * i, level=float(i)) for i in range(5)))
    assert [found.step for step in (0, 9, 25, None) if (found := store.heat_maps("r1", step))] == [0, 0, 20, 40]
    assert store.heat_maps("r1", -1) is None


def test_old_heat_maps_are_thinned_out_and_new_ones_kept(store: SqliteStore) -> None:
    keep(store, *(heat_maps(seq, seq, side=1) for seq in range(1100)))
    keep(store, heat_maps(1100, 1100, side=1))
    with closing(sqlite3.connect(run_file(store))) as connection:
        steps = [row[0] for row in connection.execute("SELECT step FROM messages ORDER BY step")]
    assert 500 < len(steps) < 800
    assert steps[-200:] == list(range(901, 1101))


def test_a_view_is_rebuilt_as_it_was(store: SqliteStore) -> None:
    story = [*opening(), frame(4, 1), strip(5, 1, 0.5), heat_maps(6, 1), strip(7, 2, 0.7), frame(8, 2)]
    keep(store, *story)
    store.journal(judged(1)).result(5)
    store.journal(judged(2)).result(5)
    keep(store, ack(9, 1, "c1"))
    view = view_of("r1", store.history("r1"))
    assert (view.incarnation, view.seq, view.frame_step, view.rev) == (0, 9, 2, 1)
    assert (view.summary.status, view.summary.step, view.summary.name) == ("lost", 2, "a run")
    assert view.knobs["optim.lr"].value == 0.2
    assert [record.state for record in view.ledger.records()] == ["applied", "accepted"]
    assert [float(message.values.numpy()[0]) for message in view.strips.values()] == [pytest.approx(0.7)]
    assert view.newest_heat_maps is not None


def test_where_frames_were_merged_before_they_came_is_part_of_the_view(store: SqliteStore) -> None:
    head = {"run": "r1", "incarnation": 0, "seq": 5, "step": 90, "time": NOW}
    keep(store, *opening(), frame(4, 1), Thinned(**head, first_step=1, frames=90, stretch=512))
    told = view_of("r1", store.history("r1")).thinned
    assert [(one.first_step, one.step, one.frames) for one in told] == [(1, 90, 90)]


def test_the_catalogue_is_a_cache_that_can_be_lost_or_damaged(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    keep(store, *opening(), frame(4, 17), status(5, "finished", step=17))
    store.note(view_of("r1", store.history("r1")).summary)
    store.close()
    listed = []
    for spoil in (
        lambda: None,
        (tmp_path / "catalog.db").unlink,
        lambda: (tmp_path / "catalog.db").write_bytes(b"x" * 9),
    ):
        spoil()
        store = SqliteStore(tmp_path)
        listed.append(store.runs())
        store.close()
    assert listed[0] == listed[1] == listed[2]
    assert (listed[0][0].status, listed[0][0].step) == ("finished", 17)


def test_one_server_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(LogdirInUseError, match="another server holds"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_what_a_kill_leaves_of_a_deleted_run_is_swept_away_and_hinders_nobody(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    keep(store, *opening())
    # As a kill leaves it, between the two halves of deleting.
    (tmp_path / ".deleted-r1" / "checkpoints").mkdir(parents=True)
    store.delete("r1")
    assert not (tmp_path / "r1").exists()
    store.close()
    SqliteStore(tmp_path).close()
    assert not list(tmp_path.glob(".*"))


def test_what_somebody_no_longer_waits_for_is_kept_and_the_store_goes_on(store: SqliteStore) -> None:
    """A connection that breaks takes its waiting tasks with it, in the middle of a commit too."""
    waiting = [store.append("r1", [Entry(message, codec.encode(message))]) for message in opening()]
    waiting += [store.stored("r1", 0) for _ in range(20)]
    for future in waiting:
        future.cancel()
    assert store.stored("r1", 0).result(5) == len(opening()) - 1


def test_after_a_failed_write_no_gap_gets_on_disk(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, *opening())
    writer = store._writing._writers["r1"]

    def full_disk(entries: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "append", full_disk)
        with pytest.raises(StoreError, match="no space left"):
            keep(store, frame(4, 1))
    with pytest.raises(StoreError, match="what came before is missing"):
        keep(store, frame(5, 2))
    # A command that shares its commit with what is refused is kept.
    refused = store.append("r1", [Entry(one, codec.encode(one)) for one in (frame(5, 2),)])
    store.journal(judged(1)).result(5)
    assert isinstance(refused.exception(5), StoreError)
    assert [record.number for record in store.history("r1").commands] == [1]
    assert store.stored("r1", 0).result(5) == 3
    keep(store, frame(4, 1), frame(5, 2))
    assert [step for step, _ in read(store)[0]] == [1, 2]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../r1", "a/b", "a\\b", ".hidden", "a\n", "a\0", "é", "x" * 81, "catalog.db", "server.lock"]
)
def test_what_cannot_be_a_run_id_never_reaches_the_file_system(text: str, store: SqliteStore) -> None:
    assert not is_run_id(text)
    for ask in (
        lambda: store.append(text, []),
        lambda: store.history(text),
        lambda: store.series(text, EVERYTHING),
        lambda: store.heat_maps(text, None),
        lambda: store.stored(text, 0),
    ):
        with pytest.raises(UnknownRunError):
            ask()
    assert is_run_id("needle-20260101-120000.1_a")


WRITER = """
import sys
from pathlib import Path
from spiral_core.wire import codec
from spiral_server.live.commands import judge
from spiral_server.store.protocol import Entry
from spiral_server.store.sqlite_store import SqliteStore
sys.path.insert(0, sys.argv[2])
from saying import NOW, asking, frame, knob
store = SqliteStore(Path(sys.argv[1]))
def told(word, number):
    return lambda done: (print(word, number, flush=True) if done.exception() is None else None)
for seq in range(1_000_000):
    message = frame(seq, seq, [float(seq)])
    store.append("r1", [Entry(message, codec.encode(message))]).add_done_callback(told("frame", seq))
    if seq % 50 == 0:
        asked, knobs = asking(f"c{seq}"), {"optim.lr": knob()}
        record = judge(asked, run="r1", incarnation=0, number=1 + seq // 50, knobs=knobs, time=NOW)
        store.journal(record).add_done_callback(told("command", record.number))
    if seq % 200 == 0:
        store.stored("r1", 0).result()
"""


def test_what_was_confirmed_survives_a_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path / "runs"), str(Path(__file__).parent)]
    confirmed: dict[str, int] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            word, number = line.split()
            confirmed[word] = int(number)
            if int(number) >= 1500:
                break
        child.kill()
        for line in child.stdout:
            if line.endswith("\n"):
                confirmed[line.split()[0]] = int(line.split()[1])
    store = SqliteStore(tmp_path / "runs")
    got = store.series("r1", EVERYTHING)
    history = store.history("r1")
    stored = store.stored("r1", 0).result(5)
    store.close()
    assert got.damage == history.damage == []
    assert stored >= confirmed["frame"] >= 1500
    assert got.columns[0].values.tolist() == list(range(stored + 1))
    assert len(history.commands) >= confirmed["command"] > 20


def test_a_command_costs_the_same_however_many_there_are_and_all_are_counted(store: SqliteStore) -> None:
    keep(store, *opening())
    store.journal(judged(1)).result(5)
    connection = store._writing._writers["r1"].connection
    said: list[str] = []
    connection.set_trace_callback(said.append)
    for number in (2, 3, 2):
        store.journal(judged(number)).result(5)
        store.stored("r1", 0).result(5)
    connection.set_trace_callback(None)
    looked = [sentence for sentence in said if sentence.startswith(("SELECT", "DELETE"))]
    assert looked
    for sentence in looked:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sentence}").fetchall()
        assert not [step for *_, step in plan if step.startswith("SCAN")]
    history = store.history("r1")
    assert ([record.number for record in history.commands], history.damage) == ([1, 2, 3], [])


def test_a_closed_store_takes_nothing_more(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    waiting = [
        store.append("r1", [Entry(message, codec.encode(message))])
        for message in opening()
        if isinstance(message, Logged)
    ]
    store.close()
    assert not wait(waiting, 0).not_done
    assert all(future.exception() is None for future in waiting)
    with pytest.raises(StoreError, match="closed"):
        keep(store, frame(4, 1))
