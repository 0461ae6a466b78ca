"""Schedules that are changed while a run trains, and rates that are held: the acknowledgement tells the next rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_runs import command
from spiral_core import optim
from spiral_core.engine import controls, step
from spiral_core.engine.config import ScheduleName, for_data
from spiral_core.engine.optimization import Meaning, Rates
from spiral_core.engine.state import RunState, initial_state
from spiral_core.wire.parts import Value

COSINE = {"lr": 0.1, "schedule": "warmup-cosine", "warmup_steps": 3, "steps": 12}


def started(**changes: object) -> RunState:
    return initial_state(for_data("digits", batch_size=8, **changes))


def told(state: RunState, **sets: Value) -> float:
    """Set knobs and return the rate that the acknowledgement, or else the knob, says the next update uses."""
    outcome = controls.apply(state, command(**sets))
    assert outcome.state == "applied", outcome.reason
    said = {change.knob: change.in_force for change in outcome.changes}
    rate = said.get("optim.lr", state.rates.at(state.step + 1))
    assert isinstance(rate, float)
    return rate


def rates_of(state: RunState, count: int) -> list[float]:
    return [step.update(state).lr for _ in range(count)]


def test_a_held_rate_stays_until_it_is_released_and_the_schedule_goes_on_where_it_would_be() -> None:
    plain = rates_of(started(**COSINE), 12)
    state = started(**COSINE)
    assert rates_of(state, 4) == plain[:4]
    assert told(state, optim__lr__under_schedule="hold", optim__lr=0.03) == 0.03
    assert rates_of(state, 3) == [0.03] * 3
    assert told(state, optim__lr=0.02) == 0.02
    assert rates_of(state, 2) == [0.02] * 2
    assert told(state, optim__lr__held=False) == plain[9]
    assert rates_of(state, 3) == plain[9:]


def test_the_rate_in_force_can_be_held_as_it_is() -> None:
    plain = rates_of(started(**COSINE), 12)
    state = started(**COSINE)
    rates_of(state, 5)
    assert told(state, optim__lr__held=True) == plain[5]
    assert rates_of(state, 3) == [plain[5]] * 3


def test_a_new_base_ends_a_hold_and_the_acknowledgement_says_so() -> None:
    state = started(**COSINE)
    told(state, optim__lr__under_schedule="hold", optim__lr=0.03)
    outcome = controls.apply(state, command(optim__lr__under_schedule="base", optim__lr=0.01))
    assert {change.knob: change.in_force for change in outcome.changes} == {
        "optim.lr.under_schedule": "base",
        "optim.lr": 0.01,
        "optim.lr.held": False,
    }
    assert rates_of(state, 3) == pytest.approx([0.01, 0.02, 0.03])


def test_a_rate_cannot_be_held_and_released_in_one_command() -> None:
    state = started(**COSINE)
    before = state.rates.at(1)
    outcome = controls.apply(state, command(optim__lr__under_schedule="hold", optim__lr=0.03, optim__lr__held=False))
    assert "held and released at once; set optim.lr.under_schedule to base" in outcome.reason
    assert (state.rates.at(1), state.rates.meaning, state.rev) == (before, "base", 0)


@pytest.mark.parametrize("meaning", ["base", "hold"])
@pytest.mark.parametrize("mode", optim.OptimizerMode.NAMES)
def test_the_acknowledged_rate_is_the_one_that_the_next_update_uses_in_every_mode(mode: str, meaning: str) -> None:
    state = started(**COSINE)
    for rate in (0.05, 0.002):
        step.update(state)
        assert told(state, optim__lr__under_schedule=meaning, optim__mode=mode, optim__lr=rate) == rate
        report = step.update(state)
        assert report.lr == state.optimizer.lr == state.optimizer.fallback_learning_rate == rate
    after = told(state, optim__mode="realgrad")
    assert step.update(state).lr == after


def test_a_schedule_switched_on_mid_run_is_on_its_formula_from_the_next_update_on() -> None:
    state = started(lr=0.1, schedule="constant", steps=0)
    assert rates_of(state, 4) == [0.1] * 4
    expected = optim.WarmupCosineScheduler(0.1, 0.01, 2, 10)
    sets = {"optim__schedule": "warmup-cosine", "optim__schedule__warmup": 2, "optim__schedule__total": 10}
    assert told(state, **sets, optim__schedule__min_lr=0.01) == expected.rate_at(5)
    assert rates_of(state, 3) == [expected.rate_at(number) for number in (5, 6, 7)]
    longer = optim.WarmupCosineRestartScheduler(0.1, 0.02, 1, 30)
    sets = {"optim__schedule": "restart", "optim__schedule__warmup": 1, "optim__schedule__total": 30}
    assert told(state, **sets, optim__schedule__min_lr=0.02) == longer.rate_at(8)
    assert rates_of(state, 3) == [longer.rate_at(number) for number in (8, 9, 10)]
    assert told(state, optim__schedule="constant") == 0.1
    assert rates_of(state, 2) == [0.1] * 2


def test_a_constant_rate_that_was_set_by_hand_is_the_base_of_the_schedule_that_is_switched_on() -> None:
    state = started(lr=0.1, schedule="constant", steps=0)
    told(state, optim__lr=0.03)
    told(state, optim__schedule="warmup-cosine", optim__schedule__total=10)
    assert rates_of(state, 4) == [optim.WarmupCosineScheduler(0.03, 0, 0, 10).rate_at(n) for n in (1, 2, 3, 4)]


def test_a_rate_set_together_with_a_schedule_is_exact_whatever_their_order() -> None:
    for sets in (
        {"optim__lr": 0.03, "optim__schedule": "warmup-cosine", "optim__schedule__total": 10},
        {"optim__schedule__total": 10, "optim__schedule": "warmup-cosine", "optim__lr": 0.03},
    ):
        state = started(lr=0.1, schedule="constant", steps=0)
        rates_of(state, 4)
        assert told(state, **sets) == 0.03
        assert rates_of(state, 1) == [0.03]


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({"optim__schedule": "warmup-cosine"}, "needs an end; set optim.schedule.total above 0"),
        (
            {"optim__schedule": "restart", "optim__schedule__total": 5, "optim__schedule__warmup": 6},
            "optim.schedule.warmup = 6 is more than optim.schedule.total = 5",
        ),
        ({"optim__schedule__min_lr": 0.1}, "while optim.schedule is constant; set optim.schedule to warmup-cosine or"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_and_nothing_has_moved(sets: dict[str, Value], reason: str) -> None:
    state = started(lr=0.1, schedule="constant", steps=0)
    before = repr(state.rates)
    outcome = controls.apply(state, command(**sets))
    assert outcome.state == "rejected"
    assert reason in outcome.reason
    assert repr(state.rates) == before


@given(
    st.sampled_from(["constant", "warmup-cosine", "restart"]),
    st.lists(
        st.tuples(
            st.integers(1, 40), st.sampled_from(["set", "hold", "release", "formula"]), st.floats(1e-6, 10)
        ).filter(bool),
        max_size=6,
    ),
)
def test_whatever_is_done_to_the_rates_each_is_finite_and_none_is_negative(
    schedule: ScheduleName, acts: list[tuple[int, str, float]]
) -> None:
    rates = Rates(schedule, 0.1, 1e-4, 5, 20)
    meanings: tuple[Meaning, Meaning] = ("base", "hold")
    for number, act, value in sorted(acts, key=lambda one: one[0]):
        if act == "formula":
            rates.follow(schedule="restart", minimum=value)
        elif act == "release":
            rates.hold(number, False)
        else:
            rates.meaning = meanings[act == "hold"]
            rates.steer(number, value)
            assert rates.at(number) == value
    assert all(0 <= rates.at(number) < float("inf") for number in range(1, 60))
