"""What the demo and the embedded images promise, measured on the real engine."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from spiral_core.engine import controls, step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import initial_state
from spiral_core.engine.step import Probe
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Setting

MOVE_AT = 400
LOOK_UNTIL = 600


def scores(probe: Probe) -> tuple[float, float]:
    assert probe.scores is not None
    return float(np.mean(probe.scores.pointing)), float(np.nanmean(probe.scores.energy_over_area))


def story(seed: int) -> tuple[float, float]:
    """Train the demo, turn the gain down at step 400; give what pointing and energy/area gained 200 steps later."""
    state = initial_state(for_data("needle", seed=seed))
    while state.step < MOVE_AT:
        step.update(state)
    before = scores(step.probe(state))
    turned = Command(
        run="",
        number=1,
        id="",
        verb="set",
        sets=[Setting(knob="zspace.gain", value=0.2)],
        actor="",
        source="ui",
        time=0.0,
    )
    outcome = controls.apply(state, turned)
    assert (outcome.state, outcome.step) == ("applied", MOVE_AT + 1)
    while state.step < LOOK_UNTIL:
        step.update(state)
    after = scores(step.probe(state))
    return after[0] - before[0], after[1] - before[1]


def test_turning_the_gain_down_snaps_the_heat_maps_onto_the_object() -> None:
    """Median of three seeds, on the demo's own eight probe images: pointing +0.2, energy over area +1.5."""
    gained = [story(seed) for seed in range(3)]
    print("pointing and energy/area gained, by seed:", gained)
    assert statistics.median(pointing for pointing, _ in gained) >= 0.2
    assert statistics.median(energy for _, energy in gained) >= 1.5


def test_five_seeds_on_the_embedded_images_reach_their_accuracy(tmp_path: Path) -> None:
    """As ``spiral train`` prints it, after epoch 10: mean 0.85 or more, none below 0.82."""
    done = subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", "train", "--data", "fashion", "--epochs", "10", "--seeds", "5"],
        env={**os.environ, "SPIRAL_LOGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    print(done.stdout)
    last = [float(accuracy) for accuracy in re.findall(r"finished at step 310: test accuracy ([\d.]+)", done.stdout)]
    assert len(last) == 5
    assert statistics.fmean(last) >= 0.85
    assert min(last) >= 0.82
    assert f"mean {statistics.fmean(last):.4f}, lowest {min(last):.4f}" in done.stdout
