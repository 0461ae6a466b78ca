"""Observing takes its share of the time and no more, whatever steps and observations cost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.telemetry.budget import RECENT, SAVED, ObservationBudget

seconds = st.floats(1e-6, 10.0)


@dataclass
class Spent:
    """What a stretch of steps took, and what observing them cost."""

    time: float = 0.0
    cost: float = 0.0
    observed: int = 0


def followed(budget: ObservationBudget, steps: list[tuple[float, float]]) -> Spent:
    spent = Spent()
    for step, cost in steps:
        budget.earn(step)
        spent.time += step
        if budget.allows():
            budget.spend(cost)
            spent.cost += cost
            spent.observed += 1
    return spent


@given(st.floats(0.01, 99.9), st.lists(seconds, max_size=300), seconds)
def test_what_is_spent_stays_below_the_share_and_two_first_observations(
    percent: float, steps: list[float], cost: float
) -> None:
    spent = followed(ObservationBudget(percent), [(step, cost) for step in steps])
    assert spent.cost <= spent.time * percent / 100 * (1 + 1e-9) + 2 * cost


@given(st.floats(0.5, 50.0), seconds, st.floats(0.01, 10.0))
def test_steady_steps_are_observed_as_often_as_the_share_pays_for(percent: float, step: float, ratio: float) -> None:
    """``ratio``: what an observation costs in steps."""
    count = 2000
    spent = followed(ObservationBudget(percent), [(step, step * ratio)] * count)
    expected = min(count, count * percent / 100 / ratio)
    assert expected - SAVED - 2 <= spent.observed <= expected + 2


@given(st.lists(st.tuples(seconds, seconds), max_size=100))
def test_nothing_is_observed_at_zero_percent_and_everything_at_a_hundred(steps: list[tuple[float, float]]) -> None:
    assert followed(ObservationBudget(0.0), steps).observed == 0
    assert followed(ObservationBudget(100.0), steps).observed == len(steps)


@given(st.floats(0.5, 50.0), st.floats(100.0, 1e6))
def test_a_long_wait_is_not_followed_by_a_burst(percent: float, wait: float) -> None:
    budget = ObservationBudget(percent)
    budget.spend(1.0)
    budget.spend(1.0)
    budget.earn(wait)
    assert followed(budget, [(1e-6, 1.0)] * 50).observed <= SAVED + 1


def test_one_observation_that_was_interrupted_does_not_silence_the_next_ones() -> None:
    plain, interrupted = ObservationBudget(2.0), ObservationBudget(2.0)
    steps = [(0.01, 0.0001)] * 200
    for budget in (plain, interrupted):
        followed(budget, [(0.01, 0.0001)] * RECENT)
    interrupted.spend(1.0)
    assert followed(interrupted, steps).observed >= followed(plain, steps).observed - SAVED


def test_the_first_observation_is_cold_and_says_nothing_of_the_next_ones() -> None:
    budget = ObservationBudget(2.0)
    budget.spend(1.0)
    assert budget.price == 0.0
    assert followed(budget, [(0.01, 0.0001)] * 100).observed >= 98


def test_time_that_the_loop_sleeps_anyway_is_free() -> None:
    budget = ObservationBudget(0.001)
    observed = 0
    for _ in range(50):
        budget.earn(0.01, idle=0.002)
        if budget.allows():
            budget.spend(0.001)
            observed += 1
    assert observed == 50


def test_observations_that_were_forced_are_paid_for_afterwards() -> None:
    budget = ObservationBudget(1.0)
    budget.spend(0.001)
    followed(budget, [(0.01, 0.001)] * 100)
    forced = ObservationBudget(1.0)
    forced.spend(0.001)
    followed(forced, [(0.01, 0.001)] * 100)
    for _ in range(5):
        forced.spend(0.001)
    steps = [(0.01, 0.001)] * 40
    owed = followed(budget, steps).observed - followed(forced, steps).observed
    assert 1 <= owed <= SAVED + 1


def test_the_share_may_change_at_any_time() -> None:
    budget = ObservationBudget(1.0)
    steps = [(0.01, 0.001)] * 1000
    rare = followed(budget, steps).observed
    budget.percent = 5.0
    assert followed(budget, steps).observed == pytest.approx(5 * rare, rel=0.05)
