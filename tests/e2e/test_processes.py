"""Starting and ending: what a person at a terminal sees."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, expect

from e2e.cockpit import Cockpit, finish, start, wait_for
from spiral_core import choices

COLD_SECONDS = 60.0
"""Ample for a busy machine; what it really takes is measured by tests/benchmarks/startup.py."""


def family(cockpit: Cockpit) -> list[psutil.Process]:
    """Give the server and every process that it started."""
    parent = psutil.Process(cockpit.process.pid)
    return [parent, *parent.children(recursive=True)]


def stderr_of(logdir: Path) -> str:
    return (logdir.parent / f"{logdir.name}.stderr").read_text()


def test_a_cold_start_shows_the_page_at_once_and_says_that_kernels_are_compiling(
    tmp_path: Path, chromium: Browser
) -> None:
    cockpit = start(
        tmp_path / "runs", "demo", "--no-open", "--port", "0", env={"SPIRAL_CACHE_DIR": str(tmp_path / "cache")}
    )
    try:
        page = chromium.new_context().new_page()
        page.goto(cockpit.page)
        status = page.get_by_test_id("status")
        expect(status).to_have_attribute("data-status", "compiling", timeout=COLD_SECONDS * 1e3)
        expect(status).to_contain_text("compiling kernels")
        assert cockpit.run()["step"] == 0
        expect(status).to_have_attribute("data-status", "training", timeout=COLD_SECONDS * 1e3)
        wait_for(lambda: page.evaluate("window.spiral.state().step") > 0, 20)
        page.context.close()
    finally:
        finish(cockpit)


def test_ctrl_c_ends_every_process_within_two_seconds_and_without_a_traceback(tmp_path: Path) -> None:
    cockpit = start(tmp_path / "runs", "demo", "--no-open", "--port", "0")
    try:
        run = wait_for(lambda: cockpit.run() if cockpit.run().get("step", 0) > 3 else None, COLD_SECONDS)
        processes = family(cockpit)
        assert len(processes) == 3, "server, engine and courier"
        seconds = cockpit.stop()
        assert cockpit.process.returncode == 0
        _, alive = psutil.wait_procs(processes, timeout=0.5)
        assert alive == []
        assert seconds < 2.0
        said = stderr_of(tmp_path / "runs")
        assert "Traceback" not in said
        assert "Error" not in said
        assert not (tmp_path / "runs" / "server.json").exists()
    finally:
        finish(cockpit)
    again = start(tmp_path / "runs", "serve", "--port", "0")
    try:
        kept = again.get(f"/api/runs/{run['id']}")
        assert kept["status"] == "stopped", "the engine's last word arrived before the server left"
    finally:
        finish(again)


def at_our_first_line(process: int) -> bool:
    """Tell whether a process of ours is past the interpreter's own start, in which Ctrl-C is not quiet.

    The interpreter begins by ignoring SIGPIPE and catching SIGINT; our first line lets go of SIGINT.
    """
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    ignored, caught = (int(fields[name], 16) for name in ("SigIgn", "SigCgt"))
    return bool(ignored & 1 << signal.SIGPIPE - 1) and not caught & 1 << signal.SIGINT - 1


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4, 0.8])
def test_ctrl_c_at_any_moment_of_the_start_is_quiet(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spiral_server.cli", "demo", "--no-open", "--port", "0", "--logdir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: at_our_first_line(process.pid), 30)
    time.sleep(delay)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    _, alive = psutil.wait_procs(started, timeout=2.0)
    assert alive == []
    assert "Traceback" not in said


def test_the_death_of_the_demo_ends_its_engine(tmp_path: Path) -> None:
    cockpit = start(tmp_path / "runs", "demo", "--no-open", "--port", "0")
    try:
        wait_for(lambda: cockpit.run().get("step", 0) > 3, COLD_SECONDS)
        rest = family(cockpit)[1:]
        cockpit.process.kill()
        cockpit.process.wait()
        _, alive = psutil.wait_procs(rest, timeout=10)
        assert alive == []
    finally:
        finish(cockpit)


def test_a_taken_port_gives_the_next_free_one_and_one_address_is_printed(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cockpit = start(tmp_path / "runs", "serve", "--port", str(port))
        try:
            assert cockpit.url != f"http://127.0.0.1:{port}"
            assert cockpit.get("/api/runs") == {"runs": []}
            path = tmp_path / "runs" / "server.json"
            told = json.loads(path.read_text())
            assert told == {"url": cockpit.url, "pid": cockpit.process.pid, "token": cockpit.token}
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            cockpit.stop()
            assert cockpit.process.stdout is not None
            assert cockpit.process.stdout.read() == "", "exactly one address goes to standard output"
        finally:
            finish(cockpit)


def test_a_second_demo_on_the_same_directory_joins_the_server_that_runs(tmp_path: Path) -> None:
    server = start(tmp_path / "runs", "serve", "--port", "0")
    joined = start(tmp_path / "runs", "demo", "--no-open", "--steps", "40", "--rate", "0")
    try:
        assert joined.page == server.page
        wait_for(lambda: server.run().get("status") == "finished", COLD_SECONDS)
        assert server.run()["step"] == 40
        assert joined.process.wait(15) == 0
    finally:
        finish(joined)
        finish(server)


def test_a_second_server_on_the_same_directory_is_refused_with_the_address_of_the_first(tmp_path: Path) -> None:
    server = start(tmp_path / "runs", "serve", "--port", "0")
    try:
        second = subprocess.run(
            [sys.executable, "-m", "spiral_server.cli", "serve", "--port", "0", "--logdir", str(tmp_path / "runs")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 2
        assert server.url in second.stderr
        assert "Traceback" not in second.stderr
        assert second.stdout == ""
    finally:
        finish(server)


def train(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", "train", *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_train_alone_prints_the_test_accuracy_and_keeps_the_run(tmp_path: Path) -> None:
    done = train("--data", "fashion", "--epochs", "1", "--seeds", "2", "--logdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 2 * 2 + 1
    assert "over 2 of 2 seeds" in done.stdout
    assert len(list(tmp_path.glob("*/frames.log"))) == 2


@pytest.mark.parametrize(
    ("data", "model"), [("motif", "z_lstm"), ("motif", "z_mlp"), ("digits", "z_mlp"), ("digits", "z_lstm")]
)
def test_every_model_trains_by_name_on_data_by_name(tmp_path: Path, data: str, model: str) -> None:
    done = train("--data", data, "--model", model, "--steps", "25", "--logdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{model} on {data}, seed 0")
    assert "finished at step 25: test accuracy 0." in done.stdout


def test_train_without_its_server_trains_all_the_same_and_says_that_the_log_is_kept(tmp_path: Path) -> None:
    words = ["--data", "needle", "--steps", "5", "--logdir", str(tmp_path), "--server", "http://127.0.0.1:9"]
    done = train(*words)
    assert done.returncode == 0, done.stderr
    assert "finished at step 5" in done.stdout
    assert "no server answers" in done.stderr
    assert "log is kept" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "imagenet"], "needle, fashion, digits, motif"),
        (["--model", "resnet"], "z_cam, z_cnn, z_mlp, z_lstm"),
        (["--data", "motif", "--model", "z_cnn"], "models that fit: z_mlp, z_lstm"),
        (["--data", "digits", "--xai-every", "5"], "leave it at 0"),
        (["--gain", "1.5"], "between 0 and 1"),
        (["--lr", "nan"], "lr = nan"),
        (["--curvature", "1"], "below 0"),
        (["--steps", "3", "--epochs", "1"], "not both"),
        (["--server", "127.0.0.1:8787", "--steps", "1"], "http://127.0.0.1:8787"),
    ],
)
def test_bad_options_are_refused_in_one_line_with_the_remedy(tmp_path: Path, words: list[str], said: str) -> None:
    done = train(*words, "--logdir", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "a run that cannot be leaves no folder"


@pytest.mark.parametrize("command", [[], ["demo"], ["serve"], ["train"]])
def test_help_comes_with_examples(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "Examples:" in done.stdout
    assert "spiral" in done.stdout.split("Examples:")[1]
    if command in (["demo"], ["train"]):
        assert all(name in done.stdout for name in (*choices.DATA, *choices.MODELS))


def courier_of(cockpit: Cockpit) -> psutil.Process:
    return next(one for one in family(cockpit) if "spiral_core.link.courier" in one.cmdline())


def test_a_courier_that_is_killed_is_replaced_and_the_run_stays_steerable(tmp_path: Path) -> None:
    cockpit = start(tmp_path / "runs", "demo", "--no-open", "--port", "0")
    try:
        wait_for(lambda: cockpit.run().get("step", 0) > 3, COLD_SECONDS)
        first = courier_of(cockpit)
        first.kill()
        wait_for(lambda: not cockpit.run()["connected"], 10)
        wait_for(lambda: cockpit.run()["connected"], 20, "for another courier")
        assert courier_of(cockpit).pid != first.pid
        run = cockpit.run()["id"]
        body = {"id": "after", "verb": "set", "sets": [{"knob": "zspace.gain", "value": 0.5}]}
        assert cockpit.post(f"/api/runs/{run}/commands", body)[0] == 202
        wait_for(lambda: cockpit.get(f"/api/runs/{run}/commands")["commands"][-1]["state"] == "applied", 10)
        at = cockpit.run()["step"]
        wait_for(lambda: cockpit.run()["step"] > at, 10)
        told = cockpit.series(run, "train/loss")
        assert sorted(told) == list(range(1, max(told) + 1))
    finally:
        finish(cockpit)


def test_a_paused_start_steps_holds_a_command_and_an_engine_that_is_killed_lets_it_expire(tmp_path: Path) -> None:
    server = start(tmp_path / "runs", "serve", "--port", "0")
    words = ["train", "--quiet", "--data", "needle", "--start-paused", "--server", server.url]
    engine = subprocess.Popen(
        [sys.executable, "-m", "spiral_server.cli", *words, "--logdir", str(tmp_path / "runs")],
        start_new_session=True,
    )
    try:
        wait_for(lambda: server.run().get("status") == "paused", COLD_SECONDS)
        commands = f"/api/runs/{server.run()['id']}/commands"
        assert server.post(commands, {"id": "some", "verb": "step", "steps": 3})[0] == 202
        wait_for(lambda: server.run()["status"] == "paused" and server.run()["step"] == 3, 20)
        held = {"id": "held", "verb": "set", "sets": [{"knob": "zspace.gain", "value": 0.5}], "at_step": 10}
        assert server.post(commands, held)[0] == 202
        assert server.post(commands, {"id": "more", "verb": "step", "steps": 2})[0] == 202
        wait_for(lambda: server.run()["step"] == 5, 20)
        assert [one["state"] for one in server.get(commands)["commands"]] == ["applied", "accepted", "applied"]
        engine.kill()
        engine.wait()
        wait_for(lambda: server.run()["status"] == "failed", 15, "for the courier's word")
        assert "killed" in server.run()["detail"]
        wait_for(lambda: server.get(commands)["commands"][1]["state"] == "expired", 5)
        status, refused = server.post(commands, {"id": "late", "verb": "resume"})
        assert (status, "takes no more commands" in refused["error"]) == (409, True)
    finally:
        engine.kill()
        engine.wait()
        finish(server)


def test_a_server_that_comes_back_finds_its_engine_its_page_and_every_step(tmp_path: Path, chromium: Browser) -> None:
    """The token and the cookie outlive the server; the engine trains on meanwhile and loses nothing."""
    server = start(tmp_path / "runs", "serve", "--port", "0")
    port = server.url.rsplit(":", 1)[1]
    words = ["train", "--quiet", "--data", "needle", "--rate", "20", "--server", server.url]
    engine = subprocess.Popen(
        [sys.executable, "-m", "spiral_server.cli", *words, "--logdir", str(tmp_path / "runs")],
        start_new_session=True,
    )
    again = None
    try:
        wait_for(lambda: server.run().get("step", 0) > 10, COLD_SECONDS)
        page = chromium.new_context().new_page()
        page.goto(server.page)
        page.wait_for_selector('[data-testid="heatmap-7"]')
        server.process.kill()
        server.process.wait()
        time.sleep(1.0)
        again = start(tmp_path / "runs", "serve", "--port", port)
        assert again.page == server.page
        wait_for(lambda: again.run()["status"] == "training" and again.run()["connected"], 30)
        at = again.run()["step"]
        wait_for(lambda: again.run()["step"] > at + 5, 20)
        told = again.series(again.run()["id"], "train/loss")
        assert sorted(told) == list(range(1, max(told) + 1))
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open", timeout=20_000)
        wait_for(lambda: page.evaluate("window.spiral.state().step") > at, 20)
        page.context.close()
    finally:
        engine.terminate()
        engine.wait(20)
        finish(server)
        if again is not None:
            finish(again)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--no-open", "--lr", "-1"], "lr = -1.0"),
        (["demo", "--no-open", "--momentum", "0.5"], "--momentum has no meaning for adam"),
        (["demo", "--no-open", "--guard", "when train.loss > 1 explode"], "a rule reads like: when train.loss"),
        (["demo", "--no-open", "--data", "imagenet"], "needle, fashion, digits, motif"),
        (["demo", "--no-open", "--data", "motif", "--model", "z_cam"], "models that fit: z_mlp, z_lstm"),
        (["serve", "--logdir", "/dev/null"], "another --logdir"),
    ],
)
def test_a_start_that_cannot_be_ends_by_itself_with_the_reason(tmp_path: Path, words: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", *words, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "SPIRAL_LOGDIR": str(tmp_path / "runs")},
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
