"""Engines that the server starts: real processes, signals, and a server that dies between them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from e2e.cockpit import Cockpit, finish, start, wait_for
from spiral_core.wire.training import TrainingRequest, training_options, training_words
from spiral_server.launch import records, tokens
from spiral_server.launch.process import Process, identified
from spiral_server.live.tokens import Role

from .house import House, serving

SECONDS = 90.0
ENDLESS: dict[str, Any] = {"data": "digits", "steps": 0, "rate": 60, "threads": 1, "evaluate_every": 0}


def engines(http: httpx.Client) -> dict[str, dict[str, Any]]:
    return {one["run"]: one for one in http.get("/api/engines").json()["engines"]}


def trains(http: httpx.Client, run: str, beyond: int = 3) -> bool:
    one = engines(http)[run]
    return one["status"] == "training" and http.get(f"/api/runs/{run}").json()["step"] > beyond


def end_all(logdir: Path) -> None:
    """End what a failed test has left running."""
    for path in (logdir / records.FOLDER).glob("*.json"):
        record = records.read(path)
        if record is not None and record.living:
            record.minder.send(signal.SIGTERM)
            wait_for(lambda record=record: not record.living, 30)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    logdir = tmp_path_factory.mktemp("launches") / "runs"
    with serving(logdir, max_engines=2) as house:
        yield house
        end_all(logdir)


def test_a_signal_reaches_our_process_and_no_stranger_that_has_its_number() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = identified(child.pid)
    assert known is not None
    assert known.alive
    for stranger in (Process(child.pid, known.start + 1, known.boot), Process(child.pid, known.start, "another start")):
        assert not stranger.alive
        assert not stranger.send(signal.SIGKILL)
    assert child.poll() is None
    assert known.send(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not known.alive, "it has ended, although nobody has asked how"
    child.communicate()
    assert not known.send(signal.SIGTERM)
    assert identified(child.pid) is None


def test_what_is_asked_for_becomes_the_words_of_the_command_line_and_nothing_else() -> None:
    asked = {"data": "digits", "guards": ["a: when x > 1 mark", "b"], "keep_on_steer": True, "lr": 0.1, "server": "x"}
    words = training_words(asked)
    assert words == ["--data=digits", "--lr=0.1", "--guard=a: when x > 1 mark", "--guard=b", "--keep-on-steer"]
    assert [option.name for option in training_options()] == list(TrainingRequest.__struct_fields__)


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ({"lr": "fast"}, 400, "lr", "Expected `float | null`"),
        ({"epochs": 0}, 400, "epochs", ">= 1"),
        ({"server": "http://evil.example"}, 400, "server", "unknown field"),
        ({"lifeline": 3}, 400, "lifeline", "unknown field"),
        ({"name": "a\0b"}, 400, "", "NUL"),
        ({"data": "digits", "lr": -1}, 422, "lr", "a finite number above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_its_field_and_leaves_nothing(
    house: House, body: dict[str, Any], status: int, field: str, said: str
) -> None:
    with house.http(timeout=SECONDS) as http:
        answer = http.post("/api/runs", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field)
        assert said in answer.json()["error"]
        assert engines(http) == {}
    assert [path for path in house.settings.logdir.iterdir() if (path / "config.json").exists()] == []


def test_an_engine_is_started_stopped_resumed_and_killed_when_it_does_not_heed(house: House) -> None:
    logdir = house.settings.logdir
    token, _ = tokens.make(logdir, Role.OPERATOR, "alice")
    watching, _ = tokens.make(logdir, Role.VIEWER, "bob")
    with house.http(timeout=SECONDS, headers={"Authorization": f"Bearer {token}"}) as http:
        begun = http.post("/api/runs", json={**ENDLESS, "name": "mine"})
        assert begun.status_code == 201
        run = begun.json()["run"]
        path = records.path_of(logdir, house.app.state.launcher.by_run()[run].launch)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert house.settings.token not in path.read_text()
        wait_for(lambda: trains(http, run), SECONDS)
        line = engines(http)[run]
        assert (line["name"], line["origin"], line["running"], line["exit"]) == ("mine", "launched", True, None)
        assert psutil.Process(line["pid"]).cmdline()[1:4] == ["-m", "spiral_core.cli", "train"]
        assert json.loads((logdir / run / "config.json").read_text())["rate"] == 60

        assert http.post(f"/api/runs/{run}/restart").status_code == 409
        assert http.post("/api/runs/none/stop").status_code == 404
        assert http.post("/api/runs/none/restart").status_code == 404
        assert http.post(f"/api/runs/{run}/stop").status_code == 202
        wait_for(lambda: engines(http)[run]["running"] is False, SECONDS)
        line = engines(http)[run]
        assert (line["status"], line["exit"], line["pid"]) == ("stopped", 0, None)
        (command,) = http.get(f"/api/runs/{run}/commands").json()["commands"]
        assert (command["verb"], command["state"]) == ("stop", "applied")
        assert "alice (operator)" in command["actor"]
        assert http.post(f"/api/runs/{run}/stop").status_code == 409

        step = http.get(f"/api/runs/{run}").json()["step"]
        assert http.post(f"/api/runs/{run}/restart").status_code == 201
        wait_for(lambda: trains(http, run, step), SECONDS)
        assert [one.run for one in house.app.state.launcher.all()] == [run]
        house.app.state.launcher.patience = (0.5, 0.5)
        # Stopped, it hears neither the command nor SIGTERM.
        os.kill(engines(http)[run]["pid"], signal.SIGSTOP)
        assert http.post(f"/api/runs/{run}/stop").status_code == 202
        wait_for(lambda: engines(http)[run]["running"] is False, SECONDS)
        assert engines(http)[run]["exit"] == -signal.SIGKILL
    with house.http(headers={"Authorization": f"Bearer {watching}"}) as http:
        assert http.get("/api/engines").json()["may_steer"] is False
        assert http.post(f"/api/runs/{run}/restart").status_code == 403


def test_no_more_engines_run_than_may_and_an_end_is_told_with_its_last_lines(house: House) -> None:
    with house.http(timeout=SECONDS) as http:
        runs = [http.post("/api/runs", json=ENDLESS).json()["run"] for _ in range(2)]
        third = http.post("/api/runs", json=ENDLESS)
        assert third.status_code == 429
        assert "at most 2" in third.json()["error"]
        wait_for(lambda: all(trains(http, run) for run in runs), SECONDS)
        os.kill(engines(http)[runs[0]]["pid"], signal.SIGSEGV)
        wait_for(lambda: engines(http)[runs[0]]["running"] is False, SECONDS)
        line = engines(http)[runs[0]]
        assert line["exit"] == -signal.SIGSEGV
        assert any("Segmentation fault" in one for one in line["said"]) or line["said"] == []
        # The minder of the other one dies: its engine does not go on without it, and ends in order.
        record = house.app.state.launcher.by_run()[runs[1]]
        assert record.minder.send(signal.SIGKILL)
        wait_for(lambda: engines(http)[runs[1]]["running"] is False, SECONDS)
        wait_for(lambda: engines(http)[runs[1]]["status"] == "stopped", SECONDS)
        assert engines(http)[runs[1]]["exit"] is None


def whole(cockpit: Cockpit, run: str) -> bool:
    """Whether the server has every step of a run from the first to the last one it knows of."""
    steps = sorted(cockpit.series(run, "train/loss"))
    return steps == list(range(steps[0], steps[-1] + 1)) and steps[0] == 1


def test_three_engines_outlive_a_server_that_is_killed_and_are_taken_back(tmp_path: Path) -> None:
    logdir = tmp_path / "runs"
    server = start(logdir, "serve", "--port", "0")
    port = server.url.rsplit(":", 1)[1]
    again: Cockpit | None = None
    try:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as http:
            runs = [http.post("/api/runs", json=ENDLESS, timeout=SECONDS).json()["run"] for _ in range(3)]
            wait_for(lambda: all(trains(http, run, 20) for run in runs), SECONDS)
            pids = {run: one["pid"] for run, one in engines(http).items()}
        server.process.kill()
        server.process.wait()
        killed_at = {run: step_of(logdir, run) for run in runs}
        wait_for(lambda: all(step_of(logdir, run) > killed_at[run] for run in runs), SECONDS, "for steps unwatched")
        again = start(logdir, "serve", "--port", port)
        assert again.url == server.url
        headers = {"Authorization": f"Bearer {again.token}"}
        with httpx.Client(base_url=again.url, headers=headers, timeout=SECONDS) as http:
            wait_for(lambda: all(one["connected"] for one in engines(http).values()), SECONDS)
            wait_for(lambda: all(trains(http, run, 60) for run in runs), SECONDS)
            now = engines(http)
            assert {run: one["pid"] for run, one in now.items()} == pids, "the same processes, and no other ones"
            assert {one["origin"] for one in now.values()} == {"launched"}
            for run in runs:
                assert whole(again, run), "a frame was lost"
                assert http.get(f"/api/runs/{run}").json()["incarnation"] == 0
                assert http.post(f"/api/runs/{run}/stop").status_code == 202
            wait_for(lambda: not any(one["running"] for one in engines(http).values()), SECONDS)
            assert {one["exit"] for one in engines(http).values()} == {0}
    finally:
        finish(server)
        if again is not None:
            finish(again)
        end_all(logdir)


def step_of(logdir: Path, run: str) -> int:
    """Give a measure of how far an engine has come, from its own log: what it has written."""
    return (logdir / run / "frames.log").stat().st_size


def test_ctrl_c_leaves_the_engines_of_a_server_alone_and_ends_those_of_a_demo(tmp_path: Path) -> None:
    logdir = tmp_path / "runs"
    server = start(logdir, "serve", "--port", "0")
    try:
        status, begun = server.post("/api/runs", {**ENDLESS, "start_paused": True})
        assert status == 201
        server.stop()
        said = (tmp_path / "runs.stderr").read_text()
        assert f"An engine goes on training: {begun['run']}." in said
        assert psutil.pid_exists(begun["pid"])
        demo = start(logdir, "demo", "--no-open", "--port", "0", "--data", "digits", "--start-paused")
        try:
            demo.stop()
            deadline = time.monotonic() + SECONDS
            while psutil.pid_exists(begun["pid"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not psutil.pid_exists(begun["pid"])
        finally:
            finish(demo)
    finally:
        finish(server)
        end_all(logdir)
