"""Steering from a terminal: the commands, their exit codes, and every example of docs/steering.md, on a real run."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cockpit import Cockpit, finish, start, wait_for

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "steering.md"
FENCE = re.compile(r"^```(sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"\s+# exit code (\d)$")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")


def spiral(logdir: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a person in the folder above the run folder does."""
    return subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", *words],
        cwd=logdir.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **more,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    """A demo on needle that goes at 50 steps per second."""
    logdir = tmp_path_factory.mktemp("by-hand") / "runs"
    cockpit = start(logdir, "demo", "--no-open", "--port", "0", "--rate", "50")
    wait_for(lambda: cockpit.run().get("step", 0) > 5, 90, "for the first steps")
    yield cockpit
    finish(cockpit)


def blocks() -> list[tuple[list[str], list[str]]]:
    """Give the examples of the guide: lines of shell, and what it says that they print."""
    found = FENCE.findall(GUIDE.read_text(encoding="utf-8"))
    examples: list[tuple[list[str], list[str]]] = []
    for kind, content in found:
        lines = content.rstrip("\n").split("\n")
        if kind == "sh":
            examples.append((lines, []))
        else:
            examples[-1] = (examples[-1][0], lines)
    return examples


def masked(line: str) -> str:
    """Leave numbers out: steps and losses depend on when a person asks."""
    return NUMBER.sub("N", line)


def test_every_example_of_the_guide_does_what_the_guide_says(trained: Cockpit, tmp_path: Path) -> None:
    """One shell runs each block; a stand-in named spiral calls the command line of this tree."""
    stand_in = tmp_path / "bin" / "spiral"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -m spiral_server.cli "$@"\n')
    stand_in.chmod(0o755)
    run = trained.run()["id"]
    environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "RUN": run}
    examples = blocks()
    assert sum(len(lines) for lines, _ in examples) >= 15
    for lines, said in examples:
        script = []
        for line in lines:
            code = CODE.search(line)
            script += [line, f'code=$?; [ $code = {code[1] if code else 0} ] || {{ echo "exit code $code"; exit 99; }}']
        done = subprocess.run(
            ["sh", "-c", "\n".join(script)],
            cwd=trained.logdir.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{lines}: {done.stdout}"
        printed = [line for line in done.stdout.splitlines() if "Ctrl-C leaves it so" not in line]
        assert [masked(line) for line in printed] == [masked(line) for line in said]

    answers = {"by-file-1": "applied", "by-file-2": "applied", "by-file-3": "applied", "checkpoint": "applied"}
    answers["commands.jsonl"] = "rejected"
    journal = f"/api/runs/{run}/commands"

    def told() -> dict[str, str]:
        records = [one for one in trained.get(journal)["commands"] if one["source"] == "file"]
        assert all(one["number"] < 0 and one["actor"] == getpass.getuser() for one in records)
        return {one["id"].split(":")[0]: one["state"] for one in records}

    wait_for(lambda: told() == answers, 10, "for what was asked by file")
    assert not (trained.logdir / run / "checkpoint").exists()


def test_what_is_said_is_what_the_run_has_in_force(trained: Cockpit) -> None:
    run = trained.run()["id"]
    done = spiral(trained.logdir, "set", "optim.lr=0.0123", "optim.clip_norm=5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["source"], told["run"]) == ("applied", "cli", run)
    assert [change["in_force"] for change in told["changes"]] == [0.0123, 5]
    wait_for(lambda: trained.run()["step"] > told["step"], 10)
    rates = trained.series(run, "optim/learning_rate")
    assert rates[told["step"] - 1] != 0.0123
    assert rates[told["step"]] == 0.0123
    shown = spiral(trained.logdir, "knobs").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("optim.lr ")]
    assert line.split()[1:3] == ["0.0123", str(told["step"])]


def test_a_checkpoint_that_is_named_is_on_disk(trained: Cockpit) -> None:
    record, saved = map(json.loads, spiral(trained.logdir, "checkpoint", "--json").stdout.splitlines())
    path = trained.logdir / record["run"] / "checkpoints" / saved["file"]
    assert path.stat().st_size == saved["size"]
    assert saved["step"] == record["step"] - 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["set", "optim.lr=fast"], 2, "spiral: optim.lr takes a number between 1e-06 and 1000, not 'fast'"),
        (["set", "lr=1"], 2, "did you mean optim.lr"),
        (["set", "optim.lr"], 2, "is not KNOB=VALUE"),
        (["set"], 2, "Missing argument"),
        (["step", "0"], 2, "greater than or equal to 1"),
        (["pause", "--run", "nothing"], 2, "there is no run 'nothing'; there is 2"),
        (["pause", "--token", "wrong"], 2, "does not take this token"),
        (["pause", "--logdir", "elsewhere"], 2, "start one with `spiral serve --logdir elsewhere`"),
        (["pause", "--server", "http://127.0.0.1:9", "--token", "t"], 2, "no server answers at http://127.0.0.1:9"),
        (["watch", "nothing"], 2, "there is no run 'nothing'"),
        (["knobs", "--token", "wrong"], 2, "does not take this token"),
        (["set", "zspace.gain=2"], 3, "refused: zspace.gain = 2 is out of bounds"),
        (["pause", "--expect", "100000"], 3, "refused: expected revision 100000"),
    ],
)
def test_what_goes_wrong_is_one_line_with_the_remedy_and_its_exit_code(
    trained: Cockpit, words: list[str], code: int, said: str
) -> None:
    done = spiral(trained.logdir, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_environment_gives_what_options_give(trained: Cockpit, tmp_path: Path) -> None:
    there = {"SPIRAL_SERVER": trained.url, "SPIRAL_TOKEN": trained.token, "SPIRAL_RUN": trained.run()["id"]}
    done = spiral(tmp_path, "evaluate", env={**os.environ, **there})
    assert done.returncode == 0, done.stderr
    assert re.search(r"val/accuracy [01]", done.stdout)


def test_watching_shows_loss_and_acknowledgements_and_ctrl_c_leaves_cleanly(trained: Cockpit) -> None:
    words = [sys.executable, "-m", "spiral_server.cli", "watch", "--every", "0.1"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    people = subprocess.Popen(words, cwd=trained.logdir.parent, **pipes)
    program = subprocess.Popen([*words, "--json"], cwd=trained.logdir.parent, **pipes)
    assert people.stdout is not None
    assert program.stdout is not None
    lines = [people.stdout.readline() for _ in range(2)]
    told = [json.loads(program.stdout.readline()) for _ in range(3)]
    spiral(trained.logdir, "set", "zspace.gain=0.55")
    said = "\n"
    while not ("in force since" in said and "\nstep " in said):
        said += people.stdout.readline()
    while not any(one["type"] == "command-record" and one["state"] == "applied" for one in told):
        told.append(json.loads(program.stdout.readline()))
    for process in (people, program):
        process.send_signal(signal.SIGINT)
    # Not communicate(), which knows nothing of what readline() has taken out of the pipe already.
    said, more = said + people.stdout.read(), program.stdout.read()
    assert (people.wait(10), program.wait(10)) == (130, 130)
    for process in (people, program):
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.communicate()
    assert re.match(r"run 2\S+\n", lines[0])
    assert re.match(r"training, \d+ steps done(: guard \w+: .+)?\n", lines[1])
    assert re.search(r"^step \d+  train/loss [\d.e-]+", said, re.M)
    assert re.search(
        r"^command \d+, set by \w+ as owner, 127\.0\.0\.1 \(cli\): zspace.gain \S+ -> 0.55, in force since step \d+$",
        said,
        re.M,
    )
    told += [json.loads(line) for line in more.splitlines()]
    assert told[0]["type"] == "run-changed"
    assert any(one["type"] == "step" and one["train/loss"] > 0 for one in told)
    assert any(one["type"] == "command-record" and one["state"] == "applied" for one in told)


def test_a_command_outlives_the_server_that_took_it_and_a_run_that_ends_lets_it_expire(tmp_path: Path) -> None:
    logdir = tmp_path / "runs"
    words = [sys.executable, "-m", "spiral_server.cli"]
    there = ["--logdir", str(logdir)]
    server = start(logdir, "serve", "--port", "0")
    engine = subprocess.Popen(
        [*words, "train", "--quiet", "--data", "needle", "--rate", "20", "--server", server.url, *there],
        start_new_session=True,
    )
    again = None
    try:
        step = wait_for(lambda: server.run().get("step", 0), 60)
        later = ["--at-step", str(step + 120), "--timeout", "60", "--json"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        giving = subprocess.Popen([*words, "set", "optim.lr=0.01", *later], **pipes)
        never = subprocess.Popen([*words, "set", "optim.lr=0.02", "--at-step", "1000000"], **pipes)
        watching = subprocess.Popen([*words, "watch"], **pipes)
        journal = f"/api/runs/{server.run()['id']}/commands"
        wait_for(lambda: len(server.get(journal)["commands"]) == 2, 10)
        assert watching.stdout is not None
        watching.stdout.readline()
        server.process.kill()
        server.process.wait()
        again = start(logdir, "serve", "--port", server.url.rsplit(":", 1)[1])
        told, said = giving.communicate(timeout=60)
        assert giving.returncode == 0, said
        assert json.loads(told)["step"] == step + 120
        assert {one["state"] for one in again.get(journal)["commands"]} == {"applied", "accepted"}
        done = spiral(logdir, "stop")
        assert (done.returncode, done.stdout.startswith("stopped before step ")) == (0, True)
        _, said = never.communicate(timeout=30)
        assert (never.returncode, "expired: the run ended" in said) == (5, True)
        told, said = watching.communicate(timeout=30)
        assert watching.returncode == 0, said
        assert "is away; waiting for it" in said
        assert told.splitlines()[-1].endswith("expired: the run ended before this command was applied")
        assert spiral(logdir, "pause").stderr.startswith("spiral: no run trains; the newest, ")
        ended = spiral(logdir, "pause", "--run", again.run()["id"])
        assert (ended.returncode, "takes no more commands" in ended.stderr) == (3, True)
        assert engine.wait(20) == 0
    finally:
        engine.kill()
        engine.wait()
        finish(server)
        if again is not None:
            finish(again)


@pytest.mark.parametrize(
    "command", ["set", "pause", "resume", "stop", "checkpoint", "evaluate", "step", "watch", "knobs"]
)
def test_the_help_of_each_command_has_examples_that_it_understands(command: str, trained: Cockpit) -> None:
    shown = spiral(trained.logdir, command, "--help").stdout
    examples = [line.split(" | ")[0].split() for line in shown.splitlines() if line.startswith("    spiral ")]
    assert examples
    for words in examples:
        assert words[1] == command
        done = spiral(trained.logdir, *words[1:], "--help")
        assert done.returncode == 0
    assert command in spiral(trained.logdir, "--help").stdout
