"""Commands beside their table: on disk with one write, in order, entered once, and never what was not written."""

from __future__ import annotations

import os
import resource
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core.wire.messages import CommandRecord
from spiral_server.store import redo, writing
from spiral_server.store.copying import back_up
from spiral_server.store.errors import StoreError
from spiral_server.store.redo import CROWD, REDO_FILE, Disk, RedoLog
from spiral_server.store.run_reader import RunReader
from spiral_server.store.sqlite_store import SqliteStore

from .saying import frame, opening
from .test_store import judged, keep

COUNT = 3


def numbers(records: list[CommandRecord]) -> list[int]:
    return [record.number for record in records]


def entered(store: SqliteStore) -> None:
    """Have a transaction of the run."""
    store.stored("r1", 0).result(10)


def in_table(store: SqliteStore) -> list[int]:
    reader = RunReader("r1", store._logdir / "r1" / "run.db")
    return numbers(reader.history().commands)


def killed(logdir: Path, count: int) -> Path:
    """Make a run whose server was killed behind so many commands; give the file with those that are not entered."""
    store = SqliteStore(logdir)
    keep(store, *opening())
    for number in range(1, count + 1):
        store.journal(judged(number)).result(10)
    path = logdir / "r1" / REDO_FILE
    left = path.read_bytes()
    store.close()
    assert not path.exists(), "what has been entered leaves nothing behind"
    with closing(sqlite3.connect(logdir / "r1" / "run.db")) as connection, connection:
        connection.execute("DELETE FROM commands")
        connection.execute("DELETE FROM journaled")
    path.write_bytes(left)
    return path


Op = tuple[str, int]
OPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5)),
    st.tuples(st.just("entered"), st.integers(0, 8)),
    st.tuples(st.just("kill"), st.integers(0, 400)),
    st.tuples(st.just("close"), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPS, max_size=30))
def test_what_was_put_down_is_there_after_kills_until_it_is_entered(
    tmp_path_factory: pytest.TempPathFactory, ops: list[Op]
) -> None:
    path = tmp_path_factory.mktemp("redo") / REDO_FILE
    log, pending, done, last = RedoLog(path, Disk()), [], set[int](), 0
    for op, count in ops:
        if op == "append":
            for _ in range(count):
                last += 1
                log.append(judged(last))
                pending.append(last)
        elif op == "entered":
            done.update(pending[:count])
            log.entered(log.pending[:count])
            del pending[:count]
        else:
            if op == "close":
                log.close()
                assert path.exists() == bool(pending)
            elif path.exists():
                # Killed in the middle of the next command: some of its bytes are there.
                end = redo.read(path).end if pending else 0
                left = path.read_bytes()
                torn = b"\x99\x01\x00\x00half a command" * 40
                path.write_bytes(left[:end] + torn[:count] + left[end + count :])
            if log._file >= 0:
                os.close(log._file)
            log = RedoLog(path, Disk())
            found = numbers(log.pending)
            # What was entered before a kill may be entered again; nothing else is there, and nothing out of turn.
            assert [number for number in found if number not in done] == [one for one in pending if one not in done]
            assert set(pending) <= set(found)
            pending = found
        assert numbers(log.pending) == pending
    log.close()


def test_no_flipped_bit_is_taken_for_a_command_and_each_is_told(tmp_path: Path) -> None:
    path = tmp_path / REDO_FILE
    log = RedoLog(path, Disk())
    ends = [0]
    for number in range(1, COUNT + 1):
        log.append(judged(number))
        ends.append(log._end)
    sound = path.read_bytes()
    assert numbers(redo.read(path).records) == [1, 2, 3]
    for at in range(0, ends[-1] + 4, 3):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ (1 << at % 8)]) + sound[at + 1 :])
        found, damage, _ = redo.read(path)
        hit = sum(end <= at for end in ends)
        others = [number for number in (1, 2, 3) if number != hit]
        if at - ends[min(hit, COUNT + 1) - 1] < 4:
            # Where its length is wrong, those behind it cannot be found.
            others = [number for number in others if number < hit]
        assert numbers(found.copy()) == others
        assert "does not match its checksum" in damage
    log.close()


def test_a_run_whose_server_was_killed_has_its_commands_and_enters_them_once(tmp_path: Path) -> None:
    path = killed(tmp_path, COUNT)
    store = SqliteStore(tmp_path)
    assert numbers(store.history("r1").commands) == [1, 2, 3]
    assert in_table(store) == []
    entered(store)
    assert in_table(store) == [1, 2, 3]
    store.journal(judged(4)).result(10)
    assert numbers(store.history("r1").commands) == [1, 2, 3, 4]
    left = path.read_bytes()
    store.close()
    # Killed behind the commit, before anything was written over them.
    path.write_bytes(left)
    store = SqliteStore(tmp_path)
    entered(store)
    history = store.history("r1")
    assert (numbers(history.commands), history.damage, store.verify("r1")) == ([1, 2, 3, 4], [], [])
    store.close()


def test_a_command_that_is_damaged_before_it_is_entered_is_told_and_harms_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = killed(tmp_path, COUNT)
    second = redo._HEAD.size + len(redo.codec.encode(judged(1))) + redo._HEAD.size + 10
    data = bytearray(path.read_bytes())
    data[second] ^= 1
    path.write_bytes(data)
    store = SqliteStore(tmp_path)
    history = store.history("r1")
    assert numbers(history.commands) == [1, 3]
    assert [damage.kind for damage in history.damage] == ["command"]
    assert [damage.reason for damage in store.verify("r1")] == [history.damage[0].reason]
    assert "commands.redo" in history.damage[0].reason
    entered(store)
    assert "a command may be lost" in "".join(capsys.readouterr())
    store.journal(judged(4)).result(10)
    assert numbers(store.history("r1").commands) == [1, 3, 4]
    assert [damage.kind for damage in store.verify("r1")] == ["command"]
    store.close()


def test_a_command_does_not_wait_for_the_database(store: SqliteStore) -> None:
    keep(store, *opening())
    with closing(sqlite3.connect(store._logdir / "r1" / "run.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.journal(judged(1)).result(5)
        store.journal(judged(2), at_once=True).result(5)
        other.execute("ROLLBACK")
    assert numbers(store.history("r1").commands) == [1, 2]
    entered(store)
    assert in_table(store) == [1, 2]


def test_commands_that_nothing_follows_are_entered_once_they_are_many(store: SqliteStore) -> None:
    keep(store, *opening())
    for number in range(1, CROWD + 1):
        store.journal(judged(number)).result(10)
    assert in_table(store) == []
    store.journal(judged(CROWD + 1)).result(10)
    store.journal(judged(CROWD + 2)).result(10)
    deadline = time.monotonic() + 10
    while CROWD + 1 not in in_table(store):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_list_of_commands_that_takes_none_keeps_nobody_from_training(store: SqliteStore) -> None:
    keep(store, *opening())
    store.journal(judged(1)).result(5)
    entered(store)
    with closing(sqlite3.connect(store._logdir / "r1" / "run.db")) as other, other:
        other.execute("CREATE TRIGGER stuck BEFORE DELETE ON commands BEGIN SELECT RAISE(IGNORE); END")
    store.journal(judged(1)).result(5)
    store.journal(judged(2)).result(5)
    keep(store, frame(4, 1))
    assert in_table(store) == [1, 2]
    log = store._writing._writers["r1"].redo
    assert numbers(log.pending) == [1]
    with closing(sqlite3.connect(store._logdir / "r1" / "run.db")) as other, other:
        other.execute("DROP TRIGGER stuck")
    keep(store, frame(5, 2))
    assert (in_table(store), log.pending) == ([1, 2], [])
    assert store.verify("r1") == []


def test_a_copy_has_the_commands_that_are_not_entered_yet(store: SqliteStore, tmp_path: Path) -> None:
    keep(store, *opening())
    store.journal(judged(1)).result(5)
    assert in_table(store) == []
    back_up(store._logdir, "r1", tmp_path / "copies")
    copied = SqliteStore(tmp_path / "copies")
    assert numbers(copied.history("r1").commands) == [1]
    copied.close()


def refuse(monkeypatch: pytest.MonkeyPatch, log: RedoLog, record: CommandRecord) -> None:
    """Have a command fail behind its bytes: when they are to be brought to the disk."""

    def broken(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="Input/output"):
            log.append(record)


def test_neither_a_kill_nor_a_copy_brings_back_a_command_that_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r1" / REDO_FILE
    path.parent.mkdir()
    log = RedoLog(path, Disk())
    log.append(judged(1))
    refuse(monkeypatch, log, judged(2))
    assert redo.read(path)[:2] == ([judged(1)], "")
    back_up(tmp_path, "r1", tmp_path / "copies")
    assert redo.read(tmp_path / "copies" / "r1" / REDO_FILE)[:2] == ([judged(1)], "")
    log.append(judged(3))
    assert numbers(redo.read(path).records) == [1, 3]
    log.close()


def test_without_room_a_command_is_refused_and_those_before_it_stay(store: SqliteStore) -> None:
    keep(store, *opening())
    store.journal(judged(1)).result(5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        for at_once in (False, True):
            with pytest.raises(StoreError, match="cannot be written"):
                store.journal(judged(2), at_once=at_once).result(5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store.journal(judged(3)).result(5)
    assert numbers(store.history("r1").commands) == [1, 3]
    assert store.verify("r1") == []


def test_a_file_that_cannot_be_read_is_an_error_of_its_run_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for run in ("r1", "r2"):
        keep(store, *opening(run), run=run)
    store.close()
    (tmp_path / "r1" / REDO_FILE).mkdir()
    (tmp_path / "catalog.db").unlink()
    store = SqliteStore(tmp_path)
    assert [bool(summary.trouble) for summary in sorted(store.runs(), key=lambda one: one.id)] == [True, False]
    with pytest.raises(StoreError, match="cannot be read"):
        store.history("r1")
    with pytest.raises(StoreError, match="cannot be read"):
        store.journal(judged(1)).result(5)
    store.close()


def test_commands_survive_that_databases_are_opened_and_closed_all_the_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "OPEN_RUNS", 1)
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    runs = ("r1", "r2")
    for number in range(1, 301):
        for run in runs:
            record = msgspec.structs.replace(judged(number), run=run)
            future = store.journal(record, at_once=True)
            if number % 7 == 0:
                future.result(10)
            if number % 5 == 0:
                keep(store, frame(number, number, run=run), run=run)
            future.result(10)
    for run in runs:
        history = store.history(run)
        assert (numbers(history.commands), history.damage) == (list(range(1, 301)), [])


class Slow:
    """A disk that takes as long for a command as it is told to, by a clock of its own; none here can be told to.

    Attributes
    ----------
    now, takes : float
        Seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.takes = 0.0
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, _file: int) -> None:
        self.now += self.takes

    def clock(self) -> float:
        return self.now


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


def test_an_event_loop_waits_for_a_quick_disk_alone_and_seldom(tmp_path: Path, slow: Slow) -> None:
    one = Disk(slow.clock)
    logs = [RedoLog(tmp_path / name, one) for name in ("a", "b")]
    assert not logs[0].append_soon(judged(1)), "to make the file takes longer"
    slow.takes = 2 * redo.QUICK_SECONDS
    for log in logs:
        log.append(judged(1))
    slow.now += 60
    assert not logs[0].append_soon(judged(2))
    slow.takes = redo.QUICK_SECONDS / 2
    logs[1].append(judged(2))
    assert not logs[0].append_soon(judged(3)), "it has just been waited for"
    slow.now += slow.takes * (1 / redo.BLOCKED_SHARE - 1) * 1.01
    assert logs[0].append_soon(judged(3)), "what one run has found holds for the others"
    assert not logs[1].append_soon(judged(4))
    slow.now += 60
    for log in logs:
        log.close()
        assert not log.append_soon(judged(5))


def test_a_disk_that_has_failed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Slow) -> None:
    log = RedoLog(tmp_path / REDO_FILE, Disk(slow.clock))
    log.append(judged(1))
    refuse(monkeypatch, log, judged(2))
    slow.now += 60
    assert not log.append_soon(judged(2))
    log.append(judged(2))
    slow.now += 60
    assert log.append_soon(judged(3))
    assert numbers(redo.read(tmp_path / REDO_FILE).records) == [1, 2, 3]
    log.close()


def test_where_the_disk_is_quick_no_thread_is_waited_for(store: SqliteStore, slow: Slow) -> None:
    store._writing._disk = Disk(slow.clock)
    keep(store, *opening())
    store.journal(judged(1)).result(5)
    busy, free = threading.Event(), threading.Event()
    store._writing.submit(writing.Job("r1", lambda _: (busy.set(), free.wait(20))))
    assert busy.wait(5)
    assert store.journal(judged(2), at_once=True).done()
    waiting = store.journal(judged(3))
    assert not waiting.done()
    free.set()
    waiting.result(5)
    assert numbers(store.history("r1").commands) == [1, 2, 3]
