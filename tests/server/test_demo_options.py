"""``spiral demo`` takes what ``spiral train`` takes."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest

from e2e.cockpit import finish, start, wait_for
from spiral_core import cli as core
from spiral_server import cli

APART = {"context", "seeds", "server", "token", "logdir", "resume", "config", "quiet", "lifeline", "offline"}
"""What only makes sense for a training process of its own, or is settled by the demo itself."""


def test_every_option_of_training_is_one_of_the_demo() -> None:
    train, demo = (set(inspect.signature(command).parameters) for command in (core.train, cli.demo))
    assert train - demo == APART - {"context", "token", "logdir"}
    assert demo - train == {"port", "open_page"}


def test_options_and_variables_of_the_demo_reach_its_engine(tmp_path: Path) -> None:
    words = "--data digits --optimizer sgd --momentum 0.5 --mode realgrad --precision bfloat16 --rate 0"
    guarded = ["--guard", "low: when train.loss < 0.001 mark", "--no-guards"]
    options = [*words.split(), *guarded, "--steps", "5", "--start-paused", "--curvature", "-2"]
    env = {"SPIRAL_SEED": "7", "SPIRAL_WARMUP_STEPS": "3"}
    demo = start(tmp_path / "runs", "demo", "--no-open", "--port", "0", *options, env=env)
    try:
        wait_for(lambda: demo.run().get("status") == "paused", 90)
        run = demo.run()["id"]
        config = json.loads((demo.logdir / run / "config.json").read_text())
    finally:
        finish(demo)
    told = {
        "optimizer": "sgd",
        "momentum": 0.5,
        "mode": "realgrad",
        "precision": "bfloat16",
        "rate": 0.0,
        "steps": 5,
        "guards": ["low: when train.loss < 0.001 mark"],
        "curvature": -2.0,
        "seed": 7,
        "warmup_steps": 3,
        "lr": 0.03,
    }
    assert {name: config[name] for name in told} == told
    assert "SPIRAL_SEED" not in os.environ


@pytest.mark.parametrize("epochs", [None, 2])
def test_a_demo_trains_until_stopped_unless_told_otherwise(tmp_path: Path, epochs: int | None) -> None:
    words = ["--data", "digits", "--start-paused", *([] if epochs is None else ["--epochs", str(epochs)])]
    demo = start(tmp_path / "runs", "demo", "--no-open", "--port", "0", *words)
    try:
        wait_for(lambda: demo.run().get("status") == "paused", 90)
        config = json.loads((demo.logdir / demo.run()["id"] / "config.json").read_text())
    finally:
        finish(demo)
    assert (config["steps"] > 0) == (epochs is not None)
    assert config["rate"] == cli.DEMO_RATE
