"""A run that is killed and resumed, as its server tells it: one frame for each step, every command once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spiral_core.engine.config import for_data
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from steered_engine import EVERY_KIND, spawn, steered

from .house import TOKEN, serving

CONFIG = for_data("fashion", batch_size=16, steps=100, evaluate_every=25, xai_every=0, optimizer="sgd")


def until(fits: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := fits()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def losses(path: Path) -> list[float]:
    messages = (codec.decode(record.data) for record in RunLogReader(path / "frames.log").records())
    frames = [message for message in messages if isinstance(message, Frame)]
    assert [frame.step for frame in frames] == list(range(1, len(frames) + 1))
    return [float(frame.values.numpy()[0]) for frame in frames]


def test_a_killed_and_resumed_run_has_one_frame_for_each_step_and_each_command_once(tmp_path: Path) -> None:
    whole = losses(steered(tmp_path / "whole", CONFIG, EVERY_KIND).path)
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "server") as house, house.http() as http:
        words: list[str] = [""]
        for stop in (33, 71, None):
            with spawn(tmp_path / "runs", CONFIG, EVERY_KIND, *words, house.url, TOKEN) as engine:
                assert engine.stdout is not None
                assert any(int(line) == stop for line in engine.stdout) == (stop is not None)
                if stop is not None:
                    engine.send_signal(signal.SIGKILL)
                assert engine.wait(60) == (0 if stop is None else -signal.SIGKILL)
            (run,) = [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()]
            words = [run]
        until(lambda: http.get(f"/api/runs/{run}").json().get("status") == "finished")
        (series,) = http.get(f"/api/runs/{run}/series?names=train/loss&width=10000").json()["series"]
        assert series["steps"] == list(range(1, 101))
        assert series["values"] == whole
        commands = http.get(f"/api/runs/{run}/commands").json()["commands"]
        assert [(one["number"], one["state"]) for one in commands] == [
            (number, "applied") for number in range(1, len(EVERY_KIND) + 1)
        ]
        told = http.get(f"/api/runs/{run}/checkpoints").json()["checkpoints"]
        on_disk = sorted(path.name for path in (tmp_path / "runs" / run / "checkpoints").iterdir())
        assert [one["file"] for one in told] == on_disk == [f"step-{step:08d}.safetensors" for step in (60, 80, 100)]
        assert [one["incarnation"] for one in told] == [1, 2, 2]
        assert http.get(f"/api/runs/{run}").json()["rev"] == len(EVERY_KIND)
