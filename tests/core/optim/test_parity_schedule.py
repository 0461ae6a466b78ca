"""Schedules against PyTorch's, call by call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core import optim

SOME = settings(max_examples=30, deadline=None, derandomize=True)
BASES = st.floats(1e-4, 1.0)
SHARES = st.floats(0.01, 1.0)
CLOSE: dict[str, Any] = {"rel": 1e-10, "abs": 1e-13}


def optimizer(base: float) -> torch.optim.Optimizer:
    """Return one that has stepped, as PyTorch's schedules ask for."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.zeros_like(parameter)
    return torch.optim.SGD([parameter], base)


def rates(other: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, calls: int) -> list[float]:
    seen = []
    for _ in range(calls):
        other.step()
        schedule.step()
        seen.append(float(other.param_groups[0]["lr"]))
    return seen


@SOME
@given(BASES, st.floats(0.0, 1.0), st.integers(1, 60))
def test_without_a_warm_up_the_cosine_is_that_of_pytorch_until_its_end(base: float, share: float, total: int) -> None:
    ours = optim.WarmupCosineScheduler(base, share * base, 0, total)
    other = optimizer(base)
    theirs = rates(other, torch.optim.lr_scheduler.CosineAnnealingLR(other, total, share * base), total)
    assert [ours.step() for _ in theirs] == pytest.approx(theirs, **CLOSE)
    # There ours stays, where PyTorch's climbs again.
    assert [ours.step() for _ in range(3)] == pytest.approx([share * base] * 3, **CLOSE)


# PyTorch's own SequentialLR passes to its parts an argument that PyTorch warns of.
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@SOME
@given(BASES, SHARES, st.integers(1, 20), st.integers(1, 40))
def test_with_a_warm_up_it_is_a_line_and_a_cosine_of_pytorch_in_sequence(
    base: float, share: float, warmup: int, rest: int
) -> None:
    ours = optim.WarmupCosineScheduler(base, share * base, warmup, warmup + rest)
    other = optimizer(base)
    parts: list[torch.optim.lr_scheduler.LRScheduler] = [
        torch.optim.lr_scheduler.LinearLR(other, share, 1.0, warmup),
        torch.optim.lr_scheduler.CosineAnnealingLR(other, rest, share * base),
    ]
    theirs = rates(other, torch.optim.lr_scheduler.SequentialLR(other, parts, [warmup]), warmup + rest)
    assert [ours.step() for _ in theirs] == pytest.approx(theirs, **CLOSE)


@SOME
@given(BASES, st.floats(0.0, 1.0), st.integers(1, 15))
def test_with_restarts_it_differs_from_pytorch_only_in_who_has_the_last_call_of_a_period(
    base: float, share: float, period: int
) -> None:
    ours = optim.WarmupCosineRestartScheduler(base, share * base, 0, period)
    other = optimizer(base)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(other, period, eta_min=share * base)
    for call, theirs in enumerate(rates(other, schedule, 3 * period + 2), start=1):
        rate = ours.step()
        if call % period == 0:
            assert (rate, theirs) == pytest.approx((share * base, base), **CLOSE)
        else:
            assert rate == pytest.approx(theirs, **CLOSE)


@SOME
@given(BASES, st.integers(0, 20))
def test_the_constant_schedule_is_a_function_of_the_call_in_pytorch(base: float, warmup: int) -> None:
    ours = optim.ConstantScheduler(base, warmup)
    other = optimizer(base)
    schedule = torch.optim.lr_scheduler.LambdaLR(other, lambda call: min(1.0, call / warmup) if warmup else 1.0)
    theirs = rates(other, schedule, warmup + 5)
    assert [ours.step() for _ in theirs] == pytest.approx(theirs, **CLOSE)
