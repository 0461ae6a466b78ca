"""Every optimizer in every mode trains; rates follow a schedule and what steering makes of it; modes change mid-run."""

from __future__ import annotations

import statistics
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_runs import command, digest
from spiral_core import kernels, optim
from spiral_core.engine import controls, step
from spiral_core.engine.config import ScheduleName, for_data
from spiral_core.engine.optimization import Rates
from spiral_core.engine.state import initial_state
from spiral_core.zspace import poincare

MODES = optim.OptimizerMode.NAMES


def losses(data: str, steps: int, **changes: object) -> list[float]:
    state = initial_state(for_data(data, batch_size=32, xai_every=0, **changes))
    return [step.update(state).loss for _ in range(steps)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("data", ["needle", "fashion"])
def test_every_optimizer_trains_in_every_mode(data: str, optimizer: str, mode: str) -> None:
    """Steps along geodesics are shorter by the conformal factor, so riemannian gets a higher rate."""
    rate = {"sgd": 2.0, "adam": 0.1}[optimizer] if mode == "riemannian" else {"sgd": 0.05, "adam": 3e-3}[optimizer]
    count = 120 if data == "needle" else 40
    told = losses(data, count, optimizer=optimizer, mode=mode, lr=rate)
    first, last = statistics.fmean(told[:10]), statistics.fmean(told[-10:])
    print(f"{data} {optimizer} {mode}: {first:.3f} -> {last:.3f}")
    assert last < first - 0.03


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_with_everything_on_the_weights_do_not_depend_on_the_number_of_threads(optimizer: str, mode: str) -> None:
    config = for_data(
        "fashion",
        batch_size=40,
        optimizer=optimizer,
        mode=mode,
        clip_norm=0.5,
        schedule="restart",
        warmup_steps=2,
        schedule_steps=6,
        auto_gain=0.7,
    )
    before, digests = kernels.get_num_threads(), set()
    try:
        for threads in (1, 2):
            kernels.set_num_threads(threads)
            state = initial_state(config)
            reports = [step.update(state) for _ in range(8)]
            digests.add(digest(state))
    finally:
        kernels.set_num_threads(before)
    assert len(digests) == 1
    assert max(report.gradient_norm for report in reports) > 0.5, "nothing was clipped"


def test_norms_and_biases_do_not_decay_and_weights_do() -> None:
    plain, decayed = (
        initial_state(for_data("fashion", batch_size=8, optimizer="sgd", weight_decay=decay)) for decay in (0.0, 0.1)
    )
    for state in (plain, decayed):
        step.update(state)
    after = decayed.model.state_dict()
    same = {name for name, array in plain.model.state_dict().items() if (array == after[name]).all()}
    weights = {name for name in after if name.endswith(".weight")}
    assert len(weights) == 3
    assert same == set(after) - weights


def test_clipping_bounds_the_gradient_and_the_norm_before_it_is_reported() -> None:
    state = initial_state(for_data("fashion", batch_size=8, clip_norm=0.01))
    report = step.update(state)
    assert report.gradient_norm > 0.1
    assert optim.gradient_norm(state.model.parameters()) == pytest.approx(0.01, rel=1e-5)


def test_riemannian_weights_start_as_points_of_the_ball_and_stay_inside() -> None:
    flat = initial_state(for_data("fashion", batch_size=8)).model.state_dict()
    state = initial_state(for_data("fashion", batch_size=8, mode="riemannian", lr=1.0, curvature=-4.0))
    head = state.model.state_dict()["head.weight"]
    lengths = np.linalg.norm(flat["head.weight"], axis=0)
    np.testing.assert_allclose(np.linalg.norm(head, axis=0), np.tanh(2 * lengths) / 2, rtol=1e-5)
    for _ in range(20):
        step.update(state)
    for name, array in state.model.state_dict().items():
        if name.endswith(".weight"):
            assert not poincare.outside(array.reshape(-1, array.shape[-1]), -4.0).any()


def test_a_mode_set_mid_run_carries_the_rate_over_and_steps_in_it() -> None:
    state = initial_state(for_data("fashion", batch_size=8, lr=0.05, schedule="constant", warmup_steps=0))
    step.update(state)
    for mode in ("riemannian", "hypergrad", "realgrad", "riemannian", "euclidean"):
        before = {name: array.copy() for name, array in state.model.state_dict().items()}
        outcome = controls.apply(state, command(optim__mode=mode))
        assert [(change.knob, change.in_force) for change in outcome.changes] == [("optim.mode", mode)]
        moved = {name for name, array in state.model.state_dict().items() if (array != before[name]).any()}
        assert moved == ({"conv1.weight", "conv2.weight", "head.weight"} if mode == "riemannian" else set())
        report = step.update(state)
        assert report.lr == state.optimizer.lr == 0.05
        assert state.optimizer.mode.name == mode
    reason = controls.apply(state, command(optim__mode="spherical")).reason
    assert "optim.mode takes one of euclidean, realgrad, hypergrad, riemannian" in reason


def test_a_schedule_sets_the_rate_of_each_update() -> None:
    config = for_data("fashion", batch_size=8, lr=0.1, min_lr=0.01, schedule="warmup-cosine", warmup_steps=2, steps=6)
    state = initial_state(config)
    rates = [step.update(state).lr for _ in range(6)]
    assert [round(rate, 4) for rate in rates] == [0.055, 0.1, 0.0868, 0.055, 0.0232, 0.01]


def test_a_rate_set_under_a_schedule_is_exact_at_once_and_the_schedule_goes_on_in_proportion() -> None:
    changes = {"lr": 0.1, "schedule": "warmup-cosine", "warmup_steps": 3, "steps": 12}
    free, steered = (initial_state(for_data("fashion", batch_size=8, **changes)) for _ in range(2))
    plain = [step.update(free).lr for _ in range(12)]
    got = [step.update(steered).lr for _ in range(5)]
    outcome = controls.apply(steered, command(optim__lr=0.03))
    assert (outcome.step, outcome.changes[0].old, outcome.changes[0].in_force) == (6, plain[5], 0.03)
    got += [step.update(steered).lr for _ in range(7)]
    assert got[:5] == plain[:5]
    assert got[5] == 0.03
    assert got[5:11] == pytest.approx([0.03 * rate / plain[5] for rate in plain[5:11]])
    assert got[11] == plain[11] == 0


@given(st.floats(1e-6, 10), st.integers(1, 40), st.sampled_from([0.0, 1e-4]))
def test_whatever_the_schedule_says_the_next_rate_is_the_one_that_was_set(rate: float, at: int, least: float) -> None:
    for schedule in get_args(ScheduleName):
        rates = Rates(schedule, 0.1, least, 5, 20)
        rates.steer(at, rate)
        assert rates.at(at) == rate
        assert all(0 <= rates.at(number) < float("inf") for number in range(1, 60))


def test_auto_gain_brings_every_layer_to_its_radius_and_says_what_it_cannot_reach() -> None:
    state = initial_state(for_data("needle", batch_size=32, gain=0.0, auto_gain=0.65))
    reports = [step.update(state) for _ in range(60)]
    for layer in state.z_layers:
        done = reports[-1].adaptations[layer.name]
        assert done.within_reach
        assert abs(done.error) < 0.02 < abs(reports[0].adaptations[layer.name].error)
    assert reports[0].gain == 0.0
    assert reports[1].gain > 0.0, "a gain is that of the pass, and moves after it"
    controls.apply(state, command(zspace__auto_gain=0.99))
    assert not any(done.within_reach for done in step.update(state).adaptations.values())
    controls.apply(state, command(zspace__auto_gain=0))
    held = [layer.projector_gain for layer in state.z_layers]
    assert step.update(state).adaptations == {}
    assert [layer.projector_gain for layer in state.z_layers] == held
