"""Engines that the server starts: real processes, signals, and a server that dies between them."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from e2e.cockpit import Cockpit, end_engines, finish, start, wait_for
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


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    logdir = tmp_path_factory.mktemp("launches") / "runs"
    with serving(logdir, max_engines=2) as house:
        yield house
        end_engines(logdir)


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
        ({"threads": 1_000_000}, 400, "threads", "<= 1024"),
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


def test_an_engine_is_started_stopped_resumed_and_killed_when_it_does_not_heed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        monkeypatch.setattr(house.app.state.launcher, "patience", (0.5, 0.5))
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


@contextmanager
def started_elsewhere(logdir: Path, url: str, token: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """``spiral train --server`` by somebody else, in a directory that the server does not know."""
    trained = ["--data", "digits", "--steps", "0", "--rate", "60", "--threads", "1", "--evaluate-every", "0"]
    where = ["--server", url, "--logdir", str(logdir), "--quiet"]
    engine = subprocess.Popen(
        [sys.executable, "-m", "spiral_core.cli", "train", *where, *trained, *words],
        env={**os.environ, "SPIRAL_TOKEN": token},
    )
    try:
        yield engine
    finally:
        engine.terminate()
        engine.wait(SECONDS)


def test_engines_from_here_and_from_elsewhere_outlive_their_server_and_are_taken_back(tmp_path: Path) -> None:
    logdir, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    servers = [start(logdir, "serve", "--port", "0")]
    here = servers[0]
    try:
        with started_elsewhere(elsewhere, here.url, here.token):
            client = httpx.Client(base_url=here.url, headers={"Authorization": f"Bearer {here.token}"}, timeout=SECONDS)
            launched = [client.post("/api/runs", json=ENDLESS).json()["run"] for _ in range(2)]
            wait_for(lambda: len(engines(client)) == 3, SECONDS)
            (adopted,) = set(engines(client)) - set(launched)
            runs = [*launched, adopted]
            wait_for(lambda: all(trains(client, run, 20) for run in runs), SECONDS)
            pids = {run: one["pid"] for run, one in engines(client).items()}
            for ending in (signal.SIGKILL, signal.SIGINT):
                os.killpg(servers[-1].process.pid, ending)
                servers[-1].process.wait(SECONDS)
                left_at = {run: written(logdir, elsewhere, run) for run in runs}
                wait_for(
                    lambda left_at=left_at: all(written(logdir, elsewhere, run) > left_at[run] for run in runs),
                    SECONDS,
                    "for steps that nobody watches",
                )
                # No port is named: it is the one at which the engines look for their server.
                servers.append(start(logdir, "serve", "--port", "0"))
                assert servers[-1].url == here.url
                wait_for(lambda: [one["connected"] for one in engines(client).values()] == [True] * 3, SECONDS)
            seen = {run: client.get(f"/api/runs/{run}").json()["step"] for run in runs}
            wait_for(lambda: all(trains(client, run, seen[run]) for run in runs), SECONDS)
            now = engines(client)
            assert {run: one["pid"] for run, one in now.items()} == pids, "the same processes, and no other ones"
            assert {run: one["origin"] for run, one in now.items()} == {
                **dict.fromkeys(launched, "launched"),
                adopted: "adopted",
            }
            for run in runs:
                assert whole(servers[-1], run), "a frame was lost"
                assert client.get(f"/api/runs/{run}").json()["incarnation"] == 0
                rate = {"id": "rate", "verb": "set", "sets": [{"knob": "optim.lr", "value": 0.002}]}
                assert client.post(f"/api/runs/{run}/commands", json=rate).status_code in (200, 202)
                wait_for(lambda run=run: commands(client, run)["rate"] == "applied", SECONDS)
                assert client.post(f"/api/runs/{run}/stop").status_code == 202
            wait_for(lambda: not any(one["running"] or one["connected"] for one in engines(client).values()), SECONDS)
            ended = engines(client)
            assert {run: one["exit"] for run, one in ended.items()} == dict.fromkeys(launched, 0)
            assert client.get(f"/api/runs/{adopted}").json()["status"] == "stopped"
            client.close()
    finally:
        for server in servers:
            finish(server)
        end_engines(logdir)


def commands(http: httpx.Client, run: str) -> dict[str, str]:
    return {one["id"]: one["state"] for one in http.get(f"/api/runs/{run}/commands").json()["commands"]}


def written(logdir: Path, elsewhere: Path, run: str) -> int:
    """Give a measure of how far an engine has come, from its own log."""
    folder = logdir if (logdir / run / "config.json").exists() else elsewhere
    return (folder / run / "frames.log").stat().st_size


def test_an_engine_from_elsewhere_that_dies_is_lost_and_can_be_gone_on_with_only_there(
    house: House, tmp_path: Path
) -> None:
    with house.http(timeout=SECONDS) as http:
        before = set(engines(http))
        with started_elsewhere(tmp_path, house.url, house.settings.token, "--name", "foreign") as engine:
            wait_for(lambda: set(engines(http)) - before, SECONDS)
            (run,) = set(engines(http)) - before
            wait_for(lambda: trains(http, run), SECONDS)
            line = engines(http)[run]
            assert (line["name"], line["origin"], line["running"], line["pid"]) == ("foreign", "adopted", None, None)
            assert http.post(f"/api/runs/{run}/restart").status_code == 409
            # With its courier, which otherwise would say how it ended: as where a whole machine goes away.
            for process in [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]:
                process.kill()
            wait_for(lambda: http.get(f"/api/runs/{run}").json()["status"] == "lost", SECONDS)
        wait_for(lambda: run not in engines(http), SECONDS)
        assert http.post(f"/api/runs/{run}/stop").status_code == 409
        refused = http.post(f"/api/runs/{run}/restart")
        assert refused.status_code == 409
        assert f"spiral train --resume {run} --server {house.url}" in refused.json()["error"]


def spiral(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    where = ["--server", house.url, "--token", house.settings.token]
    base = [sys.executable, "-m", "spiral_server.cli", "runs", *words, *where]
    return subprocess.run(base, capture_output=True, text=True, check=False, timeout=SECONDS)


def test_the_command_line_starts_lists_restarts_and_stops(house: House) -> None:
    wrong = spiral(house, "start", "--data", "digits", "--lr", "-1")
    assert (wrong.returncode, wrong.stdout) == (3, "")
    assert "lr = -1.0 cannot be used" in wrong.stderr
    words = ["--data", "digits", "--steps", "0", "--rate", "60", "--threads", "1", "--checkpoint-every", "5"]
    begun = spiral(house, "start", *words, "--name", "by hand", "--guard", "mine: when train.loss > 90 mark")
    run = begun.stdout.strip()
    assert begun.returncode == 0
    config = json.loads((house.settings.logdir / run / "config.json").read_text())
    assert (config["data"], config["rate"]) == ("digits", 60)
    assert any("train.loss > 90" in rule for rule in config["guards"])
    with house.http(timeout=SECONDS) as http:
        wait_for(lambda: trains(http, run, 20), SECONDS)
        refused = spiral(house, "restart", run, "--json")
        assert refused.returncode == 3
        assert "stop it first" in json.loads(refused.stdout)["error"]
        os.kill(engines(http)[run]["pid"], signal.SIGKILL)
        wait_for(lambda: http.get(f"/api/runs/{run}").json()["status"] == "failed", SECONDS)
        wait_for(lambda: engines(http)[run]["exit"] == -signal.SIGKILL, SECONDS)
        listed = spiral(house, "engines").stdout
        assert re.search(rf"{run} +launched +failed .*signal 9 +by hand", listed)
        again = spiral(house, "restart", run, "--json")
        assert json.loads(again.stdout)["run"] == run
        wait_for(lambda: trains(http, run, 20), SECONDS)
        assert http.get(f"/api/runs/{run}").json()["incarnation"] == 1
        stopped = spiral(house, "stop", run, "--json")
        assert stopped.returncode == 0, stopped.stderr
        told = json.loads(stopped.stdout)
        assert (told["status"], told["running"], told["exit"]) == ("stopped", False, 0)
        assert spiral(house, "stop", run).returncode == 3
    unknown = spiral(house, "stop", run[:-1])
    assert unknown.returncode == 2
    assert run in unknown.stderr


def test_ctrl_c_leaves_the_engines_of_a_server_alone_and_ends_those_of_a_demo(tmp_path: Path) -> None:
    logdir = tmp_path / "runs"
    paused = {**ENDLESS, "start_paused": True}
    server = start(logdir, "serve", "--port", "0")
    demo: Cockpit | None = None
    try:
        status, begun = server.post("/api/runs", paused)
        assert status == 201
        server.stop()
        said = (tmp_path / "runs.stderr").read_text()
        assert f"An engine goes on training: {begun['run']}." in said
        assert f"--logdir {logdir} to have it back" in said
        demo = start(logdir, "demo", "--no-open", "--data", "digits", "--start-paused")
        assert demo.url == server.url
        status, own = demo.post("/api/runs", paused)
        assert status == 201
        demo.stop()
        wait_for(lambda: not psutil.pid_exists(own["pid"]), SECONDS)
        assert psutil.pid_exists(begun["pid"])
        assert f"An engine goes on training: {begun['run']}." in (tmp_path / "runs.stderr").read_text()
    finally:
        for one in (server, demo):
            if one is not None:
                finish(one)
        end_engines(logdir)
