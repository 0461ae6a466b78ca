from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oracles.golden import Golden
from spiral_core import amp, nn, optim
from spiral_core.errors import ArgumentError, StateDictError, StateError
from spiral_core.optim.hypergrad import HypergradTape

MODES = [
    optim.OptimizerMode.euclidean(),
    optim.OptimizerMode.realgrad(0.1),
    optim.OptimizerMode.hypergrad(-1.0, 0.1),
    optim.OptimizerMode.riemannian(-1.0, 0.1),
]


def ready(mode: optim.OptimizerMode) -> tuple[nn.Linear, optim.ZSpaceOptimizer]:
    layer = nn.Linear("fc", 3, 2, generator=np.random.default_rng(0))
    layer.weight.value *= 0.2
    optimizer = optim.ZSpaceOptimizer(0.1, momentum=0.5)
    optimizer.set_mode(mode)
    optimizer.prepare_module(layer)
    return layer, optimizer


def test_the_sequence_of_scales_and_the_bias_of_compressing_first_are_those_of_the_reference(
    record_property: Callable[[str, object], None],
) -> None:
    golden = Golden(__file__)
    scaler = amp.GradScaler(2.0, 2.0, 0.5, 3).with_limits(1.0, 1024.0)
    seen = []
    for found in golden["scaler.found_inf"]:
        scaler.update(bool(found))
        seen.append(scaler.scale)
    golden.same("scaler.scale_after(2,2,.5,3,limits 1..1024)", seen, tolerance=0)
    scales = golden["scaler_hypergrad_bias.S"]
    tape = HypergradTape(np.zeros_like(scales), -1.0)
    tape.accumulate(scales * 0.1)
    golden.same("scaler_hypergrad_bias.u(S g)/S", tape.total / scales, tolerance=0, relative=1e-12)
    golden.settle(record_property)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_scaled_step_is_the_plain_step_to_the_last_bit_and_an_overflow_skips_it(mode: optim.OptimizerMode) -> None:
    plain, optimizer = ready(mode)
    scaled, other = ready(mode)
    scaler = amp.GradScaler(1024.0, 2.0, 0.5, 100)
    for step in range(4):
        grads = np.random.default_rng(step).standard_normal((3, 2)).astype(np.float32)
        plain.weight.grad[...] = grads
        scaled.weight.grad[...] = grads * np.float32(scaler.scale)
        if step == 2:
            scaled.weight.grad[1, 1] = [np.inf, np.nan][mode.name == "euclidean"]
            before = {k: v.tobytes() for k, v in {**scaled.state_dict(), **other.state_dict()}.items()}
            assert not scaler.step(other, scaled)
            assert {k: v.tobytes() for k, v in {**scaled.state_dict(), **other.state_dict()}.items()} == before
            assert (scaler.scale, scaler.skipped, scaled.weight.grad.any()) == (512.0, 1, False)
            continue
        optimizer.step()
        if step == 1:
            scaler.unscale(scaled)
            with pytest.raises(StateError, match="already"):
                scaler.unscale(scaled)
        assert scaler.step(other, scaled)
        assert scaled.weight.value.tobytes() == plain.weight.value.tobytes()


def test_a_saved_state_continues_and_one_that_does_not_fit_is_refused_whole() -> None:
    scaler = amp.GradScaler(8.0, 2.0, 0.5, 2)
    scaler.update(overflow=False)
    other = amp.GradScaler(2.0, 2.0, 0.5, 2)
    other.load_state_dict(scaler.state_dict())
    other.update(overflow=False)
    assert other.scale == 16.0
    good = scaler.state_dict()
    bad: list[dict[str, Any]] = [{}, {**good, "x": 1}, {**good, "scale": np.nan}, {**good, "good": -1}]
    for state in bad:
        with pytest.raises(StateDictError):
            other.load_state_dict(state)
    assert other.scale == 16.0


@pytest.mark.parametrize("limits", [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (np.nan, 2.0)])
def test_limits_and_arguments_that_cannot_be_are_refused(limits: tuple[float, float]) -> None:
    scaler = amp.GradScaler(2.0, 2.0, 0.5, 200)
    with pytest.raises(ArgumentError, match="limits"):
        scaler.with_limits(*limits)
    assert scaler.limits == (1.0, 65536.0)
    wrong: Any
    for wrong in ((0.0, 2.0, 0.5, 1), (1.0, 1.0, 0.5, 1), (1.0, 2.0, 1.0, 1), (1.0, 2.0, 0.5, 0)):
        with pytest.raises(ArgumentError):
            amp.GradScaler(*wrong)


def test_plain_optimizers_are_stepped_too() -> None:
    layer = nn.Linear("fc", 2, 2)
    before = layer.weight.value.copy()
    layer.weight.grad[...] = 4.0
    assert amp.GradScaler(4.0, 2.0, 0.5, 1).step(optim.SGD(layer.parameters(), 0.5), layer)
    np.testing.assert_array_equal(layer.weight.value, before - np.float32(0.5))


def test_the_gradient_of_the_loss_is_scaled_in_place_as_the_loss_is_and_may_overflow() -> None:
    scaler, grad = amp.GradScaler(1024.0), np.array([0.25, -1e-9, 0.0, 1e36], np.float32)
    scaler.scale_gradient(grad)
    np.testing.assert_array_equal(
        grad, np.array([256.0, np.float32(-1e-9) * np.float32(1024), 0.0, np.inf], np.float32)
    )
    assert scaler.scale_loss(0.25) == grad[0]


def test_a_scale_set_by_hand_counts_good_steps_anew_and_one_outside_the_limits_changes_nothing() -> None:
    scaler = amp.GradScaler(2.0, 2.0, 0.5, 3).with_limits(1.0, 1024.0)
    scaler.update(False)
    scaler.update(False)
    scaler.scale = 100.0
    scales = []
    for _ in range(4):
        scaler.update(False)
        scales.append(scaler.scale)
    assert scales == [100.0, 100.0, 200.0, 200.0]
    for value in (0.5, 1025.0, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="within its limits, 1 to 1024"):
            scaler.scale = value
    assert scaler.scale == 200.0
