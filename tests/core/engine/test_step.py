"""A run is a function: of its configuration, its seed and the commands applied, and of nothing else."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.engine import controls, step
from spiral_core.engine.config import RunConfig, for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Setting

pytestmark = pytest.mark.usefixtures("threads")


def digest(state: RunState) -> str:
    content = hashlib.sha256()
    for name, array in sorted(state.model.state_dict().items()):
        content.update(name.encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def trained(config: RunConfig, steps: int, *, threads: int, watched: bool) -> str:
    """Train, with every probe, evaluation and observation there is or with none; steer once on the way."""
    kernels.set_num_threads(threads)
    state = initial_state(config)
    for _ in range(steps):
        if state.step == steps // 2:
            sets = [Setting(knob="zspace.gain", value=0.4), Setting(knob="optim.lr", value=1e-3)]
            told = Command(run="", number=1, id="", verb="set", sets=sets, actor="", source="api", time=0.0)
            assert controls.apply(state, told).state == "applied"
        step.update(state)
        if watched:
            for layer in state.z_layers:
                layer.observe(state.training)
            step.probe(state)
            if state.step % 10 == 0:
                evaluate(state)
    return digest(state)


def evaluate(state: RunState) -> Evaluation:
    tally = Evaluation()
    for batch in state.dataset.test_batches():
        tally = step.evaluate_batch(state, batch, tally)
    return tally


@pytest.mark.parametrize("data", ["needle", "fashion"])
def test_two_hundred_watched_steps_give_the_weights_of_unwatched_ones_on_one_thread_and_on_two(data: str) -> None:
    """Probes at every step, evaluation every ten, 1 and 2 threads: the same weights, bit for bit."""
    config = for_data(data, batch_size=32, xai_every=1, evaluate_every=10)
    steps = 200
    digests = {
        trained(config, steps, threads=threads, watched=watched) for threads in (1, 2) for watched in (False, True)
    }
    assert len(digests) == 1


def test_another_seed_gives_other_weights() -> None:
    one, other = (trained(for_data("needle", batch_size=8, seed=seed), 3, threads=1, watched=False) for seed in (0, 1))
    assert one != other


def test_an_update_reports_the_rate_it_used_and_counts_from_one() -> None:
    state = initial_state(for_data("needle", batch_size=8, lr=1e-3))
    report = step.update(state)
    assert (report.step, report.lr) == (1, 1e-3)
    assert math.isfinite(report.loss)
    assert report.gradient_norm > 0
    assert 0 <= report.accuracy <= 1


def test_the_last_step_finishes_the_run_and_is_evaluated_and_probed() -> None:
    state = initial_state(for_data("needle", batch_size=8, steps=3, evaluate_every=100, xai_every=100))
    for _ in range(3):
        assert state.phase == "training"
        step.update(state)
    assert state.phase == "finished"
    assert step.evaluation_due(state)
    assert step.probe_due(state)


def test_a_loss_that_blows_up_is_reported_and_not_raised() -> None:
    state = initial_state(for_data("needle", batch_size=8, lr=1e-3))
    for parameter in state.model.parameters():
        parameter.value[...] = np.nan
    report = step.update(state)
    assert math.isnan(report.loss)
    assert math.isnan(report.gradient_norm)
    probe = step.probe(state)
    assert np.isnan(probe.cam.maps).all()


def test_probe_scores_come_with_masks_and_only_then() -> None:
    masked = step.probe(initial_state(for_data("needle", batch_size=8)))
    assert masked.scores is not None
    assert masked.cam.maps.shape == (8, 14, 14)
    assert step.probe(initial_state(for_data("fashion", batch_size=8))).scores is None


COUNT_COMPILED = """
from spiral_core import kernels
from spiral_core.engine import step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import initial_state

def compiled():
    return {name for name, entry in kernels.registered().items() if entry.dispatcher.signatures}

state = initial_state(for_data("fashion", batch_size=8))
kernels.warm(state.kernels, state.model.dtype)
warmed = compiled()
for _ in range(2):
    step.update(state)
print(sorted(compiled() - warmed), "cross_entropy" in warmed)
"""


def test_an_update_runs_no_kernel_that_was_not_warmed() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_COMPILED], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"
