"""Training in float16 and bfloat16 with a scaled loss: as good as in float32, and overflows do no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from spiral_core import amp
from spiral_core.engine import step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation

STEPS = 310
"""Ten epochs of the embedded images."""

OVERFLOWS = {40: 2.0**40, 100: 2.0**127, 101: 2.0**127, 200: 2.0**40}
"""Steps after which the next loss is multiplied by this: its gradient is infinite in float16, after 100 and 101 already
beyond the head, which the infinities turn into NaN on their way down."""


def started(precision: str, **changes: object) -> RunState:
    return initial_state(for_data("fashion", precision=precision, **changes))


def scaler_of(state: RunState) -> amp.GradScaler:
    assert state.scaled
    return state.scaler


def inject(state: RunState, scale: float) -> None:
    """Multiply the next loss by so much that float16 cannot hold its gradient."""
    scaler = scaler_of(state)
    scaler.load_state_dict({**scaler.state_dict(), "scale": np.array(scale)})


def weights(state: RunState) -> bytes:
    arrays = [parameter.value for parameter in state.model.parameters()]
    arrays += list(state.optimizer.slots().values())
    return b"".join(array.tobytes() for array in arrays)


def accuracy(state: RunState) -> float:
    tally = Evaluation()
    for batch in state.dataset.test_batches():
        tally = step.evaluate_batch(state, batch, tally)
    return tally.accuracy


def trained(precision: str, seed: int, overflows: dict[int, float]) -> float:
    """Train to the end and return the accuracy on the held-out images."""
    # A small constant rate: where two runs differ in their last bits only, their accuracies then differ by 0.3 points,
    # and by 1 point at the data set's own rate.
    state = started(precision, seed=seed, lr=0.005, steps=STEPS)
    skipped = 0
    while state.phase != "finished":
        before = b""
        if state.step in overflows:
            inject(state, overflows[state.step])
            before = weights(state)
        report = step.update(state)
        if before:
            skipped += 1
            assert not np.isfinite(report.gradient_norm)
            assert weights(state) == before, "an update that overflowed has changed a weight or a velocity"
            assert scaler_of(state).scale == 65536.0, "the scale has not come down into its limits"
        assert report.skipped == skipped
    return accuracy(state)


def test_five_seeds_in_float16_end_within_a_point_of_float32_through_injected_overflows() -> None:
    wide = [trained("float32", seed, {}) for seed in range(5)]
    narrow = [trained("float16", seed, OVERFLOWS) for seed in range(5)]
    print(f"test accuracy in float32 {fmean(wide):.4f} {wide}, in float16 {fmean(narrow):.4f} {narrow}")
    assert abs(fmean(narrow) - fmean(wide)) <= 0.01
    assert min(narrow) >= 0.8


def test_a_scale_that_is_far_too_large_comes_down_by_itself_and_then_the_run_learns() -> None:
    state = started("float16")
    state.scaler = amp.GradScaler(2.0**40).with_limits(1.0, 2.0**40)
    before, scales = weights(state), []
    while not scales or state.scaler.skipped == len(scales):
        scales.append(step.update(state).scale)
        if state.scaler.skipped == len(scales):
            assert weights(state) == before
    assert scales == [2.0 ** (40 - index) for index in range(len(scales))], "halved at each overflow, and not more"
    assert 5 < len(scales) < 30
    assert weights(state) != before
    losses = [step.update(state).loss for _ in range(60)]
    assert fmean(losses[-10:]) < fmean(losses[:10]) / 1.5


def test_without_room_to_scale_down_every_update_is_skipped_and_training_stands_still() -> None:
    """So it is the scale coming down that saves the run above."""
    state = started("float16")
    state.scaler = amp.GradScaler(2.0**40).with_limits(2.0**40, 2.0**40)
    before = weights(state)
    assert [step.update(state).skipped for _ in range(5)] == [1, 2, 3, 4, 5]
    assert weights(state) == before


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_the_first_update_is_that_of_float32_up_to_the_rounding(
    optimizer: str, precision: str, tolerance: float
) -> None:
    """So the gradients were divided by the scale once, before their norm was taken and the optimizer saw them."""
    exact, rounded = started("float32", optimizer=optimizer), started(precision, optimizer=optimizer)
    start = exact.model.state_dict()["head.weight"]
    one, other = step.update(exact), step.update(rounded)
    assert (one.scale, other.scale) == (None, 65536.0)
    assert other.loss != one.loss
    assert other.loss == pytest.approx(one.loss, rel=tolerance)
    assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=tolerance)
    moved, expected = (state.model.state_dict()["head.weight"] - start for state in (rounded, exact))
    # Adam steps by the sign of a gradient at first, and tiny gradients lose theirs in rounding.
    assert np.linalg.norm(moved - expected) <= (0.3 if optimizer == "adam" else 10 * tolerance) * np.linalg.norm(moved)


def test_evaluations_and_probes_look_at_the_weights_in_full_precision() -> None:
    exact, rounded = started("float32"), started("float16")
    batch = next(iter(exact.dataset.test_batches()))
    losses = [step.evaluate_batch(state, batch, Evaluation()).loss for state in (exact, rounded)]
    assert losses[0] == losses[1]
    maps = [step.probe(state).cam.maps.tobytes() for state in (exact, rounded)]
    assert maps[0] == maps[1]


def test_a_run_in_float32_rounds_and_scales_nothing() -> None:
    state = started("float32")
    assert not state.scaled
    report = step.update(state)
    assert (report.scale, report.skipped) == (None, 0)


def test_the_command_line_takes_a_precision_and_refuses_an_unknown_one_with_the_choices(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "spiral_core.cli", "train", "--steps", "1", "--xai-every", "0", "--precision"]
    env = {**os.environ, "SPIRAL_LOGDIR": str(tmp_path)}
    subprocess.run([*words, "bfloat16"], env=env, check=True, capture_output=True, timeout=120)
    (config,) = tmp_path.glob("*/config.json")
    assert json.loads(config.read_text(encoding="utf-8"))["precision"] == "bfloat16"
    refused = subprocess.run([*words, "half"], env=env, check=False, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "precision" in refused.stderr
    assert "float32, float16, bfloat16" in refused.stderr
