from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spiral_core import nn, optim
from spiral_core.errors import ArgumentError, StateDictError


def test_rates_are_set_and_not_multiplied_and_the_mode_keeps_its_ratio() -> None:
    layer = nn.Linear("fc", 2, 2)
    optimizer = optim.ZSpaceOptimizer(1e-2)
    optimizer.set_mode(optim.OptimizerMode.hypergrad(-1.0, 5e-3))
    optimizer.prepare_module(layer)
    schedule = optim.WarmupCosineScheduler(1e-2, 0.0, 100, 1000)
    for n in range(1, 1200):
        rate = schedule.step_optimizer(optimizer, layer)
        assert (optimizer.fallback_learning_rate, optimizer.lr) == (rate, rate * 0.5), n
    assert (rate, schedule.current_lr()) == (0.0, 0.0)
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    schedule.reset()
    assert schedule.step_optimizer(optimizer) == 1e-4
    assert optimizer.lr == 5e-5
    plain = optim.SGD(layer.parameters(), 0.5)
    schedule.step_optimizer(plain)
    assert plain.lr == 2e-4


def test_before_any_step_after_a_reset_and_from_a_saved_count() -> None:
    schedule = optim.WarmupCosineScheduler(0.1, 0.01, 2, 6)
    assert schedule.current_lr() == 0.01
    seen = [schedule.step() for _ in range(4)]
    assert schedule.current_lr() == seen[-1]
    other = optim.WarmupCosineScheduler(0.1, 0.01, 2, 6)
    other.load_state_dict(schedule.state_dict())
    assert other.step() == schedule.step()
    schedule.reset()
    assert [schedule.step() for _ in range(4)] == seen
    assert optim.WarmupCosineScheduler(0.1, 0.01, 0, 6).current_lr() == 0.1
    bad: list[dict[str, Any]] = [{}, {"count": np.array(-1)}, {"count": np.array(1.5)}, {"count": np.array(1), "x": 1}]
    for state in bad:
        with pytest.raises(StateDictError):
            schedule.load_state_dict(state)
    assert schedule.count == 4


def test_the_restart_repeats_the_cosine_and_the_constant_stays() -> None:
    once, again = (
        [make.step() for _ in range(14)]
        for make in (optim.WarmupCosineScheduler(1.0, 0.0, 2, 6), optim.WarmupCosineRestartScheduler(1.0, 0.0, 2, 6))
    )
    assert again[:6] == once[:6]
    assert again[6:10] == again[10:14] == again[2:6]
    constant = optim.ConstantScheduler(0.4, 4)
    assert [constant.step() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0.0, 0.0, 0, 1), "lr"),
        ((0.1, -1.0, 0, 1), "minimum"),
        ((0.1, np.nan, 0, 1), "minimum"),
        ((0.1, 0.0, -1, 1), "warmup"),
        ((0.1, 0.0, 0, 0), "total"),
        ((0.1, 0.0, 3, 2), "warmup"),
        ((0.1, 0.0, 0, 1.5), "total"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_by_name(arguments: Any, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        optim.WarmupCosineScheduler(*arguments)
