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


def test_a_run_that_guards_cannot_mend_ends_by_itself_where_nobody_can_resume_it(tmp_path: Path) -> None:
    words = ["--data", "digits", "--steps", "40", "--logdir", str(tmp_path), "--no-guards"]
    done = spiral("train", *words, "--guard", "when train.loss < 100 for 3 pause")
    assert done.returncode == 0, done.stderr
    assert "stopped at step 3" in done.stdout
    assert "guard rule_1: train.loss = " in done.stderr
    assert "without a server nobody can resume it" in done.stderr


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
