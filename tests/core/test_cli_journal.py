"""Looking back at a run from the command line, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiral_core.engine.config import for_data
from steered_engine import steered

RULES = ("low: when train.loss < 50 for 40 mark",)


def spiral(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spiral_core.cli", *words],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was steered, marked by a guard, and once set back."""
    logdir = tmp_path_factory.mktemp("runs")
    config = for_data("digits", batch_size=8, steps=60, evaluate_every=0, guards=RULES)
    plan = ((10, "set", {"optim.lr": 0.02}), (45, "set", {"zspace.gain": 0.9}))
    first = steered(logdir, config, plan, checkpoint_every=20, hash_every=10)
    steered(logdir, config, (), f"{first.run}@20", hash_every=10)
    return logdir, first.run


def test_the_journal_says_what_was_applied_when_and_by_whom_and_what_was_given_up(run: tuple[Path, str]) -> None:
    done = spiral("journal", run[1], "--logdir", str(run[0]))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert rows[0] == "step rev by what"
    assert rows[1] == "11 1 me (ui) optim.lr 0.003 -> 0.02"
    assert rows[2].startswith("40 1 guard (guard) mark (low: train.loss = ")
    assert rows[2].endswith("[given up]")
    assert rows[3] == "46 2 me (ui) zspace.gain 0.2 -> 0.9 [given up]"
    assert rows[4] == "20 1 resumed"
    assert rows[5].startswith("40 1 guard (guard) mark (low: train.loss = ")
    assert len(rows) == 6


def test_the_journal_is_printed_as_json(run: tuple[Path, str]) -> None:
    told = json.loads(spiral("journal", str(run[0] / run[1]), "--json").stdout)
    assert told["run"] == run[1]
    assert [line.get("holds") for line in told["journal"]] == [True, False, False, None, True]
    assert told["journal"][0]["sets"] == [{"knob": "optim.lr", "value": 0.02}]
    assert told["journal"][3]["resumed"] == 20


def test_a_run_is_replayed_and_its_journal_trained_as_a_configuration(run: tuple[Path, str], tmp_path: Path) -> None:
    logdir, name = str(run[0]), run[1]
    asked = spiral("replay", name, "--logdir", logdir)
    assert asked.stdout == "60 steps, 2 commands, 6 states to compare; add --verify to train and compare them\n"
    done = spiral("replay", name, "--verify", "--logdir", logdir)
    assert (done.returncode, done.stdout) == (0, "60 steps, 2 commands, identical\n"), done.stderr

    path = tmp_path / "again.json"
    path.write_text(spiral("journal", name, "--as-config", "--logdir", logdir).stdout)
    trained = spiral("train", "--config", str(path), "--logdir", str(tmp_path / "runs"), "--hash-every", "10")
    assert trained.returncode == 0, trained.stderr
    (again,) = (tmp_path / "runs").iterdir()
    ours, theirs = (
        [json.loads(line)["tensors"] for line in (folder / "hashes.log").read_text().splitlines()]
        for folder in (again, run[0] / name)
    )
    assert ours[-1] == theirs[-1]


def test_a_replay_that_differs_says_where_and_fails(run: tuple[Path, str], tmp_path: Path) -> None:
    """A run that believes to have been started with another seed, all its seals sound."""
    logdir = tmp_path / "runs"
    trained = spiral("train", "--data", "digits", "--steps", "40", "--logdir", str(logdir), "--hash-every", "20")
    assert trained.returncode == 0, trained.stderr
    other = spiral("train", "--data", "digits", "--steps", "40", "--seed", "1", "--logdir", str(logdir))
    assert other.returncode == 0, other.stderr
    seeds = {json.loads((path / "config.json").read_text())["seed"]: path for path in logdir.iterdir()}
    (seeds[1] / "hashes.log").write_bytes((seeds[0] / "hashes.log").read_bytes())
    done = spiral("replay", str(seeds[1]), "--verify")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "40 steps, 0 commands: different at step 20: fc1.weight"
    assert lines[1] == "the same up to step 0, as far as was compared"
    assert lines[2] == "  nothing that is known of the two machines explains it"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("journal nowhere", 1, "there is no run 'nowhere'"),
        ("replay nowhere --verify", 1, "there is no run 'nowhere'"),
        ("train --resume nowhere", 1, "there is no run 'nowhere'"),
        ("train --resume nowhere --lr 0.1", 2, "--lr cannot be given with --resume"),
        ("train --resume nowhere --config x.json", 2, "--config cannot be given with --resume"),
        ("train --config x.json", 1, "cannot read x.json"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, words: str, status: int, said: str) -> None:
    done = spiral(*words.split(), "--logdir", str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_file_is_trained_and_options_beside_it_win(tmp_path: Path) -> None:
    first = spiral("train", "--data", "digits", "--steps", "5", "--lr", "0.01", "--logdir", str(tmp_path / "a"))
    assert first.returncode == 0, first.stderr
    (run,) = (tmp_path / "a").iterdir()
    words = ["--config", str(run / "config.json"), "--steps", "7", "--seed", "4", "--seeds", "2"]
    done = spiral("train", *words, "--logdir", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    told = [json.loads((path / "config.json").read_text()) for path in (tmp_path / "b").iterdir()]
    assert sorted((one["seed"], one["steps"], one["lr"], one["data"]) for one in told) == [
        (4, 7, 0.01, "digits"),
        (5, 7, 0.01, "digits"),
    ]
    (tmp_path / "bad.json").write_text('{"data": "digits", "speed": 1}')
    bad = spiral("train", "--config", str(tmp_path / "bad.json"), "--logdir", str(tmp_path / "c"))
    assert bad.returncode == 2
    assert "configuration: " in bad.stderr


def test_a_run_is_resumed_from_the_command_line(tmp_path: Path) -> None:
    first = spiral("train", "--data", "digits", "--steps", "60", "--checkpoint-every", "20", "--logdir", str(tmp_path))
    assert first.returncode == 0, first.stderr
    (run,) = tmp_path.iterdir()
    done = spiral("train", "--resume", str(run), "--logdir", str(tmp_path))
    assert done.returncode == 1
    assert "is finished: all 60 steps are done" in done.stderr
    done = spiral("train", "--resume", f"{run.name}@40", "--logdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"from step 40 of {run.name}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("finished at step 60: test accuracy 0.")
    assert (run / "frames-001.log").exists()
