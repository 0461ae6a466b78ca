"""A database that an older Spiral has written: every number of it is there after the migration."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from spiral_server.store.errors import StoreError
from spiral_server.store.protocol import SeriesQuery
from spiral_server.store.rebuild import view_of
from spiral_server.store.schema import RUN_SCHEMA_VERSION
from spiral_server.store.sqlite_store import SqliteStore

GOLDEN = Path(__file__).parents[1] / "golden" / "store" / "run-schema-1.db"
EVERYTHING = SeriesQuery(None, None, None, 100_000)


def logdir_with(tmp_path: Path, spoil: str = "") -> Path:
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN, folder / "run.db")
    if spoil:
        with closing(sqlite3.connect(folder / "run.db")) as connection, connection:
            connection.execute(spoil)
    return tmp_path / "runs"


def expected() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What tests/golden/README_store.md says is in the file."""
    values = np.round(np.sin(np.arange(900) / 37), 3)
    values[[77, 300, 301, 700]] = [np.nan, np.inf, -np.inf, 9.0]
    return np.concatenate([values[:850], 100.0 + np.arange(60)])


def test_schema_1_is_brought_up_to_date_with_everything_in_it(tmp_path: Path) -> None:
    store = SqliteStore(logdir_with(tmp_path))
    got = store.series("r1", EVERYTHING)
    assert got.damage == []
    assert got.columns[0].steps.tolist() == list(range(1, 911))
    np.testing.assert_array_equal(got.columns[0].values, expected())
    far = store.series("r1", SeriesQuery(None, None, None, 16)).columns[0]
    assert 9.0 in far.values
    assert far.reduced
    view = view_of("r1", store.history("r1"))
    assert [(record.id, record.state) for record in view.ledger.records()] == [("c1", "applied"), ("c2", "accepted")]
    assert (view.incarnation, view.seq, view.frame_step) == (1, 63, 910)
    heat = store.heat_maps("r1", None)
    assert heat is not None
    assert heat.step == 900
    assert [store.stored("r1", incarnation).result(5) for incarnation in (0, 1, 2)] == [906, 63, -1]
    assert store.verify("r1") == []
    store.close()
    with closing(sqlite3.connect(tmp_path / "runs" / "r1" / "run.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (RUN_SCHEMA_VERSION,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not tables & {"block_summary", "damaged", "old_blocks"}
    # And once more, by a server that finds it up to date.
    store = SqliteStore(tmp_path / "runs")
    assert store.verify("r1") == []
    store.close()


def test_damage_of_the_old_file_is_reported_and_does_not_stop_the_migration(tmp_path: Path) -> None:
    store = SqliteStore(logdir_with(tmp_path, "UPDATE block_data SET crc = crc + 1 WHERE id = 2"))
    got = store.series("r1", EVERYTHING)
    assert [damage.kind for damage in got.damage] == ["lost"]
    gone = range(got.damage[0].first_step, got.damage[0].last_step + 1)
    assert len(gone) == 256
    assert got.columns[0].steps.tolist() == [step for step in range(1, 911) if step not in gone]
    store.close()


def test_damage_that_was_known_then_is_known_still(tmp_path: Path) -> None:
    store = SqliteStore(logdir_with(tmp_path, "INSERT INTO damaged VALUES (1, 90, 915)"))
    got = store.series("r1", EVERYTHING)
    assert [(damage.kind, damage.first_step) for damage in got.damage] == [("lost", 915)]
    store.close()


@pytest.mark.parametrize("version", [0, 3, 999])
def test_a_version_that_is_not_known_is_refused_and_nothing_is_changed(tmp_path: Path, version: int) -> None:
    logdir = logdir_with(tmp_path, f"PRAGMA user_version = {version}")
    before = (logdir / "r1" / "run.db").read_bytes()
    store = SqliteStore(logdir)
    with pytest.raises(StoreError, match=r"newer Spiral|does not say which"):
        store.history("r1")
    store.close()
    with closing(sqlite3.connect(logdir / "r1" / "run.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM block_summary").fetchone() == (3,)
    assert len(before) == (logdir / "r1" / "run.db").stat().st_size
