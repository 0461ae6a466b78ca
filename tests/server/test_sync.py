"""``spiral sync`` brings what was trained offline to a server: all of it, once, whatever comes between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire import records
from spiral_core.wire.messages import Logged
from spiral_server.store.protocol import SeriesQuery

from .house import TOKEN, House, serving
from .saying import frame, opening, status

EVERYTHING = SeriesQuery(None, None, None, 1_000_000)


def trained(logdir: Path, run: str, count: int, *, incarnation: int = 0, first: int = 1, ends: bool = True) -> RunDir:
    """Write what an engine leaves behind that no server has heard of."""
    here = RunDir(path=logdir / run, id=run)
    here.path.mkdir(parents=True, exist_ok=True)
    here.config.write_text("{}")
    log = RunLogWriter(
        here.frames_of(incarnation), run=run, incarnation=incarnation, clock=time.time, part_bytes=200_000
    )

    def say(message: Logged) -> None:
        head = set(Logged.__struct_fields__)
        fields = {name: getattr(message, name) for name in message.__struct_fields__ if name not in head}
        log.append(type(message), message.step, **fields)

    for message in opening(run):
        say(message)
    for step in range(first, first + count):
        say(frame(0, step, [float(step), 1.0]))
    if ends:
        say(status(0, "finished", step=first + count - 1))
    log.close()
    return here


def command(house: House, logdir: Path, *words: str, token: str = TOKEN) -> list[str]:
    base = [sys.executable, "-m", "spiral_core.cli", "sync", *words]
    return [*base, "--server", house.url, "--token", token, "--logdir", str(logdir)]


def sync(house: House, logdir: Path, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(house, logdir, *words, token=token), capture_output=True, text=True, check=False)


def steps(house: House, run: str) -> list[int]:
    store = house.app.state.hub._store
    return [int(step) for step in store.series(run, EVERYTHING).columns[0].steps]


def test_runs_are_uploaded_whole_and_a_second_time_changes_nothing(house: House, tmp_path: Path) -> None:
    away = tmp_path / "away"
    trained(away, "a", 3000)
    trained(away, "b", 40, ends=False)
    trained(away, "b", 30, incarnation=1, first=21)
    for _ in range(2):
        done = sync(house, away, "--all")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["a: the server has all of it", "b: the server has all of it"]
        assert steps(house, "a") == list(range(1, 3001))
        assert steps(house, "b") == list(range(1, 51))
    with house.http() as http:
        told = {run["id"]: run["status"] for run in http.get("/api/runs").json()["runs"]}
    assert told == {"a": "finished", "b": "finished"}


def test_an_upload_that_was_killed_goes_on_where_it_was(house: House, tmp_path: Path) -> None:
    away = tmp_path / "away"
    trained(away, "a", 60_000)
    with subprocess.Popen(command(house, away, "a"), stderr=subprocess.PIPE) as first, house.http() as http:
        deadline = time.monotonic() + 60
        while not stored(http, "a"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
    assert stored(http, "a") > 0
    done = sync(house, away, "a")
    assert done.returncode == 0, done.stderr
    assert steps(house, "a") == list(range(1, 60_001))


def stored(http: httpx.Client, run: str) -> int:
    if http.is_closed:
        return 1
    runs = {one["id"]: one["step"] for one in http.get("/api/runs").json()["runs"]}
    return int(runs.get(run, 0))


def test_a_torn_tail_is_cut_and_told_and_the_run_gets_a_last_word(house: House, tmp_path: Path) -> None:
    away = tmp_path / "away"
    here = trained(away, "a", 20, ends=False)
    whole = here.frames.read_bytes()
    with here.frames.open("ab") as file:
        file.write(whole[len(records.MAGIC) :][:13])
    done = sync(house, away, "a")
    assert done.returncode == 0, done.stderr
    assert "13 bytes of a record that was never finished were cut off" in done.stderr
    assert steps(house, "a") == list(range(1, 21))
    with house.http() as http:
        assert http.get("/api/runs/a").json()["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "token", "said"),
    [
        (("a",), "wrong", "refused the token"),
        (("missing",), TOKEN, "there is no run 'missing'"),
        ((), TOKEN, "name the runs to upload, or --all"),
        (("a", "--all"), TOKEN, "name the runs to upload, or --all"),
    ],
)
def test_what_cannot_be_uploaded_is_said_at_once(
    house: House, tmp_path: Path, words: tuple[str, ...], token: str, said: str
) -> None:
    away = tmp_path / "away"
    trained(away, "a", 5)
    done = sync(house, away, *words, token=token)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_trains_is_left_to_its_own_courier(house: House, tmp_path: Path) -> None:
    away = tmp_path / "away"
    held = trained(away, "a", 5).hold()
    done = sync(house, away, "a")
    os.close(held)
    assert done.returncode == 1
    assert "still being trained" in done.stderr
    assert not house.app.state.hub._store.knows("a")


def test_a_lost_directory_of_runs_is_filled_again(tmp_path: Path) -> None:
    away = tmp_path / "away"
    trained(away, "a", 50)
    for logdir in ("one", "two"):
        with serving(tmp_path / logdir) as house:
            assert sync(house, away, "a").returncode == 0
            assert steps(house, "a") == list(range(1, 51))
