"""Old frames become blocks in parts, and whatever comes between two parts is neither lost nor overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from spiral_server.store.protocol import Entry
from spiral_server.store.redo import Disk
from spiral_server.store.run_reader import RunReader
from spiral_server.store.run_writer import LOOSE_FRAMES, RunWriter

from .saying import frame
from .test_store import EVERYTHING, judged

COUNT = LOOSE_FRAMES + 10


def entries(first: int, last: int, sign: float = 1.0) -> list[Entry]:
    said: list[Frame] = [frame(seq, seq, [sign * seq]) for seq in range(first, last)]
    return [Entry(message, codec.encode(message)) for message in said]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    writer = RunWriter("r1", tmp_path / "r1" / "run.db", Disk())
    with writer.transaction():
        # Few at a time: many at once would be made into blocks without being single first.
        writer.append(entries(0, 100))
    for first in range(100, COUNT, 100):
        with writer.transaction():
            writer.append(entries(first, min(COUNT, first + 100)))
    yield writer
    writer.close()


def values_of(writer: RunWriter, tmp_path: Path) -> list[float]:
    read = RunReader("r1", tmp_path / "r1" / "run.db").series(EVERYTHING)
    assert read.damage == []
    return [float(value) for value in read.columns[0].values]


def append_more(writer: RunWriter) -> None:
    writer.redo.append(judged(1))
    with writer.transaction():
        writer.append(entries(COUNT, COUNT + 5))


def mend_one(writer: RunWriter) -> None:
    with writer.transaction():
        writer.replace_row("frames", entries(5, 6, sign=-1.0)[0])


def fail(writer: RunWriter) -> None:
    with pytest.raises(AttributeError), writer.transaction():
        writer.append([*entries(COUNT, COUNT + 50), Entry(None, b"")])


def pack_all(writer: RunWriter) -> None:
    with writer.transaction():
        writer.pack_all()


def nothing(writer: RunWriter) -> None:
    assert writer.compactable


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
@pytest.mark.parametrize("between", [nothing, append_more, mend_one, fail, pack_all])
def test_what_comes_between_two_parts_of_packing_counts(
    writer: RunWriter, tmp_path: Path, between: Callable[[RunWriter], None], parts: int
) -> None:
    expected = np.arange(COUNT + 5 if between is append_more else COUNT, dtype=float)
    if between is mend_one:
        expected[5] = -5.0
    for _ in range(parts):
        writer.compact_some()
        assert values_of(writer, tmp_path) == [float(value) for value in range(COUNT)]
    between(writer)
    assert values_of(writer, tmp_path) == expected.tolist()
    while writer.compactable:
        writer.compact_some()
    assert values_of(writer, tmp_path) == expected.tolist()
    (blocks,) = writer.connection.execute("SELECT COUNT(*) FROM blocks").fetchone()
    assert blocks == (2 if between is pack_all else 1)


def test_the_write_ahead_log_is_merged_by_upkeep_alone_and_stays_small(writer: RunWriter, tmp_path: Path) -> None:
    """By SQLite itself it would be merged within commits, which commands wait for."""
    assert writer.connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    log = tmp_path / "r1" / "run.db-wal"
    database = log.with_name("run.db")
    merged, sizes = [], []
    for start in range(COUNT, COUNT + 6000, 3):
        before = database.stat().st_mtime_ns, database.stat().st_size
        with writer.transaction():
            writer.append(entries(start, start + 3))
        assert (database.stat().st_mtime_ns, database.stat().st_size) == before
        while writer.compactable:
            writer.compact_some()
        merged.append((database.stat().st_mtime_ns, database.stat().st_size) != before)
        sizes.append(log.stat().st_size)
    assert sum(merged) >= 4
    assert max(sizes[1000:]) <= 1.5 * max(sizes[:1000])
