"""The trainer's command line, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import RunStarted


def spiral(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spiral_core.cli", *words],
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_every_system_of_the_trainer_is_an_option_and_enters_the_configuration(tmp_path: Path) -> None:
    words = "--data fashion --optimizer sgd --mode riemannian --lr 0.5 --momentum 0.8 --weight-decay 1e-4 --clip-norm 2"
    words += " --schedule warmup-cosine --warmup-steps 3 --min-lr 0.01 --steps 8 --batch-size 8 --auto-gain 0.7"
    words += " --telemetry-budget 50 --xai-every 0 --evaluate-every 0"
    done = spiral("train", *words.split(), "--logdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "riemannian steps" in done.stdout
    assert "weights are mapped into the ball of radius 1 (exponential map at the origin)" in done.stdout
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    records = RunLogReader(run / "frames.log").records()
    started = next(one for one in map(codec.decode, (record.data for record in records)) if isinstance(one, RunStarted))
    told = {
        "optimizer": "sgd",
        "mode": "riemannian",
        "momentum": 0.8,
        "clip_norm": 2.0,
        "schedule": "warmup-cosine",
        "warmup_steps": 3,
        "min_lr": 0.01,
        "auto_gain": 0.7,
        "telemetry_budget": 50.0,
    }
    assert {name: started.config[name] for name in told} == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mode spherical", "choose one of euclidean, realgrad, hypergrad, riemannian"),
        ("--schedule linear --steps 10", "choose one of constant, warmup-cosine, restart"),
        ("--schedule restart", "give schedule_steps, or steps above 0"),
        ("--steps 10 --schedule restart --warmup-steps 11", "at most 10"),
        ("--min-lr 1e-5", "choose schedule warmup-cosine or restart"),
        ("--clip-norm -1", "clip_norm = -1.0 cannot be used: it must be a finite number, 0 (off) or more"),
        ("--auto-gain 2", "between 0 (off) and 1"),
        ("--telemetry-budget 200", "between 0 (off) and 100 (every step) percent"),
        ("--momentum 0.5", "--momentum has no meaning for adam: leave it out, or choose --optimizer sgd"),
        ("--data fashion --optimizer adam --momentum 0.5", "--momentum has no meaning for adam"),
        ("--lr abc", "Invalid value for '--lr'"),
        ("--threads 0", "Input should be greater than or equal to 1"),
        ("--learning-rate 1", "No such option: --learning-rate"),
    ],
)
def test_bad_values_are_refused_in_one_line_with_the_remedy(tmp_path: Path, words: str, said: str) -> None:
    done = spiral("train", *words.split(), "--logdir", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_says_so_once_with_step_layer_and_remedy_and_goes_on(tmp_path: Path) -> None:
    words = ["--data", "fashion", "--lr", "1e38", "--momentum", "0", "--steps", "12", "--xai-every", "0"]
    done = spiral("train", *words, "--logdir", str(tmp_path), "--no-guards")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("spiral train: not finite at step ")
    assert "the weights were left as they are" in line
    assert "finished at step 12" in done.stdout


def test_the_help_shows_an_example_of_each_system() -> None:
    shown = spiral("train", "--help").stdout
    for example in ("--mode riemannian", "--schedule warmup-cosine", "--auto-gain 0.7", "--clip-norm 5"):
        assert example in shown


def test_a_run_that_a_guard_pauses_ends_where_nobody_may_be_there_and_a_batch_system_sees_it(tmp_path: Path) -> None:
    words = ["--data", "digits", "--steps", "40", "--logdir", str(tmp_path), "--no-guards"]
    done = spiral("train", *words, "--guard", "when train.loss < 100 for 3 pause")
    assert done.returncode == 4, done.stderr
    assert "stopped at step 3" in done.stdout
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (line,) = done.stderr.strip().splitlines()
    assert "guard rule_1: train.loss = " in line
    assert line.endswith(f"the run does not wait for anyone: go on with spiral train --resume {run.name}")
    # What the message says, typed in: the rule has acted, and its condition has not failed in between.
    again = spiral("train", "--resume", run.name, "--logdir", str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    assert "finished at step 40" in again.stdout


def test_the_first_line_says_what_is_not_as_usual(tmp_path: Path) -> None:
    words = ["--steps", "1", "--evaluate-every", "0", "--logdir", str(tmp_path)]
    usual = spiral("train", "--data", "fashion", *words).stdout.splitlines()[0]
    assert usual == "z_cnn on fashion, seed 0, lr 0.03, gain 0.2"
    more = ["--optimizer", "adam", "--mode", "realgrad", "--schedule", "constant"]
    other = spiral("train", "--data", "fashion", *words, *more).stdout.splitlines()[0]
    assert other == "z_cnn on fashion, seed 0, lr 0.003, adam, schedule constant, gain 0.2, realgrad steps"


def test_more_threads_than_cores_are_warned_of(tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    words = ["--data", "digits", "--steps", "1", "--quiet", "--logdir", str(tmp_path), "--threads", str(cores + 1)]
    done = spiral("train", *words)
    assert done.returncode == 0
    (line,) = done.stderr.strip().splitlines()
    assert f"--threads {cores + 1} is more than the {cores} cores of this machine" in line


def test_a_directory_that_cannot_be_written_is_refused_with_the_remedy() -> None:
    done = spiral("train", "--data", "digits", "--steps", "1", "--logdir", "/proc/nowhere")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("spiral: cannot make the run directory /proc/nowhere/")
    assert line.endswith("choose another --logdir")


def test_guard_rules_come_from_options_and_from_the_environment_and_are_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    words = ["train", "--data", "digits", "--steps", "1", "--logdir", str(runs)]
    done = spiral(*words, "--guard", "when train.loss > 1 explode")
    assert done.returncode == 2
    assert "a rule reads like: when train.loss" in done.stderr
    done = spiral(*words, "--guard", "when zspace.zbn1.gain > 1 mark")
    assert done.returncode == 2
    assert "this run has no value zspace.zbn1.gain" in done.stderr
    assert not runs.exists()

    more = "a: when train.loss > 1 mark; spike: when train.loss > 9 mark"
    assert spiral(*words, env={"SPIRAL_GUARD": more}).returncode == 0
    (config,) = runs.glob("*/config.json")
    rules = json.loads(config.read_text(encoding="utf-8"))["guards"]
    assert rules[-1] == "a: when train.loss > 1 mark"
    assert "spike: when train.loss > 9 mark" in rules
    assert len(rules) == 13
