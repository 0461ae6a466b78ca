"""A run that stops being finite says where, keeps its weights, and goes on when the cause is gone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from engine_runs import digest
from spiral_core.data import Batch
from spiral_core.engine import step
from spiral_core.engine.config import for_data
from spiral_core.engine.notices import PATIENCE, Notices
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import UpdateReport
from spiral_core.errors import DivergedError
from spiral_core.nn import GainAdaptation
from spiral_core.optim import OptimizerMode


def fresh(**changes: object) -> RunState:
    return initial_state(for_data("fashion", batch_size=8, xai_every=0, **changes))


def overflowing_filters(state: RunState) -> None:
    state.model.layer("conv2").parameters()[0].value[...] = 3e38


def overflowing_head(state: RunState) -> None:
    state.model.layer("head").parameters()[0].value[...] = 3e38


def lost_scale(state: RunState) -> None:
    state.model.layer("zbn1").parameters()[0].value[3] = np.nan


@pytest.mark.parametrize(
    ("harm", "layer", "what"),
    [
        (overflowing_filters, "conv2", "activation"),
        (overflowing_head, "head", "activation"),
        (lost_scale, "zbn1", "parameter"),
    ],
)
@pytest.mark.parametrize("mode", OptimizerMode.NAMES)
def test_the_first_value_that_is_not_finite_is_named_and_the_weights_stay(
    harm: Callable[[RunState], None], layer: str, what: str, mode: str
) -> None:
    state = fresh(mode=mode, clip_norm=1.0)
    assert step.update(state).divergence is None
    harm(state)
    weights = [parameter.value.copy() for parameter in state.model.parameters()]
    report = step.update(state)
    told = report.divergence
    assert isinstance(told, DivergedError)
    assert (told.step, told.layer, told.what) == (2, layer, what)
    assert f"not finite at step 2: {what} of {layer}" in str(told)
    assert not (math.isfinite(report.loss) and math.isfinite(report.gradient_norm))
    for before, parameter in zip(weights, state.model.parameters(), strict=True):
        np.testing.assert_array_equal(parameter.value, before)


@pytest.mark.parametrize("mode", OptimizerMode.NAMES)
def test_a_bad_batch_is_named_as_input_and_harms_no_later_update(mode: str) -> None:
    state = fresh(mode=mode, optimizer="adam", schedule="constant", warmup_steps=0)
    drawn = state.dataset.train_batch

    def once_bad(index: int, into: Batch | None = None) -> Batch:
        batch = drawn(index, into)
        if index == 3:
            batch.images[2, 5, 5, 0] = np.nan
        return batch

    state.dataset.train_batch = once_bad  # type: ignore[method-assign]
    reports = []
    for _ in range(6):
        before = digest(state)
        reports.append(step.update(state))
        assert (digest(state) == before) == (state.step == 4)
    assert [report.step for report in reports if report.divergence is not None] == [4]
    told = reports[3].divergence
    assert told is not None
    assert (told.layer, told.what) == ("input", "input")
    assert str(told).startswith("not finite at step 4: the batch;")
    assert math.isfinite(reports[5].loss)


def test_a_gradient_that_overflows_while_the_loss_is_finite_is_named() -> None:
    """The head's weights let the gradient of what lies below overflow, and a tiny scale keeps the loss finite."""
    state = fresh()
    gamma, _ = state.model.layer("zbn2").parameters()
    gamma.value[...] = 1e-30
    head = state.model.layer("head").parameters()[0].value
    head[...] = np.where(np.random.default_rng(0).random(head.shape) < 0.5, -3e38, 3e38)
    report = step.update(state)
    assert math.isfinite(report.loss)
    told = report.divergence
    assert told is not None
    assert (told.layer, told.what) == ("zbn2", "gradient")


def test_a_healthy_update_looks_at_no_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the search costs time and is for broken runs only")

    monkeypatch.setattr(step, "find", refuse)
    assert step.update(fresh()).divergence is None


def report(number: int, *, reached: bool | None = None, diverged: bool = False, target: float = 0.9) -> UpdateReport:
    done = {} if reached is None else {"zbn1": GainAdaptation(0.0, 0.8, target - 0.8, (0.55, 0.8), reached)}
    return UpdateReport(
        step=number,
        loss=1.0,
        accuracy=0.5,
        lr=0.1,
        gradient_norm=1.0,
        gain=0.5,
        auto_gain=0.0 if reached is None else target,
        adaptations=done,
        divergence=DivergedError(number, "conv2", "gradient") if diverged else None,
    )


def test_a_divergence_is_said_once_and_so_is_its_end() -> None:
    notices = Notices()
    told = [notices.after(report(k, diverged=3 <= k < 6)) for k in range(1, 9)]
    assert [k + 1 for k, words in enumerate(told) if words is not None] == [3, 6]
    assert "step 3: gradient of conv2" in (told[2] or "")
    assert told[5] == ""


def test_a_target_out_of_reach_is_said_once_with_the_range_and_taken_back() -> None:
    notices = Notices()
    told = [notices.after(report(k, reached=False)) for k in range(PATIENCE + 5)]
    assert [words for words in told if words] == [
        "auto-gain cannot bring zbn1 to radius 0.9: gains from 1 to 0 give 0.55 to 0.8"
    ]
    assert all(notices.after(report(k, reached=k % 3 == 0)) is None for k in range(40)), "it flickers at the edge"
    assert "" in [notices.after(report(k, reached=True)) for k in range(PATIENCE)]
    for k in range(PATIENCE):
        notices.after(report(k, reached=False))
    assert notices.after(report(99, reached=False, target=0.95)) == "", "another target, another matter"
    assert [notices.after(report(k)) for k in range(3)] == [None, None, None]
