"""``spiral runs``: the same words do the same, beside a server and without one."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spiral_core.wire import codec
from spiral_server.launch.private import write_private
from spiral_server.store.protocol import Entry, SeriesQuery
from spiral_server.store.sqlite_store import SqliteStore

from .house import House, serving
from .saying import frame, opening, status
from .test_damage import log_of
from .test_store import flip


def story(run: str, count: int = 600) -> list[Any]:
    frames = [frame(4 + k, 1 + k, [float(k), -1.0], run=run) for k in range(count)]
    return [*opening(run), *frames, status(4 + count, "finished", run=run, step=count)]


@pytest.fixture(params=["served", "alone"])
def logdir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Two finished runs, and a server that keeps them or none."""
    runs = tmp_path / "runs"
    store = SqliteStore(runs)
    for run in ("one", "two"):
        store.append(run, [Entry(message, codec.encode(message)) for message in story(run)]).result(20)
    store.close()
    if request.param == "alone":
        yield runs
        return
    with serving(runs) as house:
        announce(house, runs)
        yield runs


def announce(house: House, logdir: Path) -> None:
    """Write what `spiral serve` writes, for those who look for it."""
    write_private(logdir / "server.json", {"url": house.url, "pid": 0, "token": house.settings.token})


def spiral(logdir: Path, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    base = [sys.executable, "-m", "spiral_server.cli", "runs", *words, "--logdir", str(logdir)]
    return subprocess.run(base, input=answer, capture_output=True, text=True, check=False)


def test_runs_are_listed_shown_packed_verified_and_deleted(logdir: Path) -> None:
    listed = json.loads(spiral(logdir, "list", "--json").stdout)
    assert {one["id"]: (one["status"], one["step"]) for one in listed} == {
        "one": ("finished", 600),
        "two": ("finished", 600),
    }
    shown = json.loads(spiral(logdir, "show", "one", "--json").stdout)
    assert [(line["name"], line["lowest"], line["highest"], line["last"]) for line in shown["series"]] == [
        ("train/s0", 0.0, 599.0, 599.0),
        ("train/s1", -1.0, -1.0, -1.0),
    ]
    packed = json.loads(spiral(logdir, "compact", "one", "--json").stdout)
    assert packed["run"] == "one"
    with closing(sqlite3.connect(logdir / "one" / "run.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM frames").fetchone() == (0,)
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert packed["after"] == (logdir / "one" / "run.db").stat().st_size
    verified = spiral(logdir, "verify")
    assert (verified.returncode, verified.stdout) == (0, "one: sound\ntwo: sound\n") or verified.stdout == (
        "two: sound\none: sound\n"
    )
    kept = spiral(logdir, "delete", "one", answer="n\n")
    assert kept.returncode == 1
    assert (logdir / "one" / "run.db").exists()
    assert spiral(logdir, "delete", "one", "--yes").stdout == "deleted one\n"
    assert not (logdir / "one").exists()
    assert [one["id"] for one in json.loads(spiral(logdir, "list", "--json").stdout)] == ["two"]
    gone = spiral(logdir, "show", "one")
    assert gone.returncode == 2
    assert "there is no run 'one'; there is two" in gone.stderr


def test_damage_is_told_with_its_steps_and_mended_from_the_run_log(logdir: Path) -> None:
    flip(logdir / "one" / "run.db", "block_data")
    found = spiral(logdir, "verify", "one")
    assert found.returncode == 1
    assert "one: 1 damaged\n  steps 1 to 256: block 1" in found.stdout
    assert "--repair mends" in found.stderr
    log_of(logdir / "one", story("one"))
    mended = spiral(logdir, "verify", "one", "--repair")
    assert (mended.returncode, mended.stdout) == (0, "one: sound\n")


def test_a_run_that_cannot_be_read_is_verified_with_the_others_and_can_be_deleted(logdir: Path) -> None:
    (logdir / "one" / "run.db").write_bytes(b"this is no database " * 100)
    # The list of runs is only a cache of what the databases say.
    (logdir / "catalog.db").unlink()
    verified = spiral(logdir, "verify")
    assert verified.returncode == 1
    assert "two: sound" in verified.stdout
    assert "one: 1 damaged" in verified.stdout
    assert "the data of run one cannot be read" in verified.stdout
    assert spiral(logdir, "delete", "one", "--yes").stdout == "deleted one\n"
    assert not (logdir / "one").exists()


def test_a_backup_is_a_run_like_the_original(logdir: Path, tmp_path: Path) -> None:
    log_of(logdir / "one", story("one"))
    target = tmp_path / "backup"
    assert spiral(logdir, "backup", "one", str(target)).returncode == 0
    again = spiral(logdir, "backup", "one", str(target))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (target / "one" / "frames.log").read_bytes() == (logdir / "one" / "frames.log").read_bytes()
    store = SqliteStore(target)
    assert store.verify("one") == []
    assert len(store.series("one", SeriesQuery(None, None, None, 10_000)).columns[0].steps) == 600
    store.close()


def test_a_backup_of_a_run_that_is_being_written_is_one_state_of_it(tmp_path: Path) -> None:
    from spiral_server.store.copying import back_up

    store = SqliteStore(tmp_path / "runs")
    messages = story("one", 5000)
    waiting = []
    for start in range(0, len(messages), 100):
        some = messages[start : start + 100]
        waiting.append(store.append("one", [Entry(message, codec.encode(message)) for message in some]))
        if start == 2500:
            waiting[0].result(10)
            back_up(tmp_path / "runs", "one", tmp_path / "copy")
    waiting[-1].result(10)
    store.close()
    with closing(SqliteStore(tmp_path / "copy")) as copy:
        assert copy.verify("one") == []
        last = copy.stored("one", 0).result(5)
        points = copy.series("one", SeriesQuery(None, None, None, 10_000)).columns.get(0)
        assert points is None or points.values.tolist() == [float(k) for k in range(last - 3)]


def test_a_run_that_trains_is_not_deleted(tmp_path: Path) -> None:
    import asyncio

    from .house import courier

    with serving(tmp_path / "runs") as house:
        announce(house, tmp_path / "runs")

        async def train() -> subprocess.CompletedProcess[str]:
            async with courier(house) as engine:
                await engine.say(*opening())
                return await asyncio.to_thread(spiral, tmp_path / "runs", "delete", "r1", "--yes")

        done = asyncio.run(train())
    assert done.returncode == 2
    assert "is being trained: stop it first" in done.stderr
    assert (tmp_path / "runs" / "r1" / "run.db").exists()


def test_a_directory_that_a_silent_server_holds_is_not_touched(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    done = spiral(tmp_path, "list")
    store.close()
    assert done.returncode == 1
    assert "another server holds" in done.stderr
