"""Optimizers and clipping against PyTorch in float64, over many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import pytorch
from spiral_core import nn, optim
from spiral_core.arrays import F64

SOME = settings(max_examples=20, deadline=None, derandomize=True)
STEPS = 25
SEEDS = st.integers(0, 10_000)
SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3)
RATES = st.floats(1e-4, 0.3)
DECAYS = st.sampled_from([0.0, 1e-4, 0.1])
MOMENTA = st.sampled_from([0.0, 0.5, 0.9, 0.99])
BETAS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.5, 0.99, 0.999]))
EPSILONS = st.sampled_from([1e-8, 1e-3])
Factory = Callable[[list[nn.Parameter], list[torch.nn.Parameter]], tuple[optim.Optimizer, torch.optim.Optimizer]]


def gradient(value: F64, seed: int) -> F64:
    """Return noise and a pull that depends on the weights, so that what differs once goes on to differ."""
    return pytorch.normal(value.shape, seed) + np.sin(3 * value)


def compare(shapes: list[list[int]], seed: int, make: Factory, clip: float | None = None) -> None:
    """Take `STEPS` steps with both, of a rate that is steered halfway, and compare every weight after each."""
    ours = [nn.Parameter(f"p{i}.weight", pytorch.normal(shape, seed + i)) for i, shape in enumerate(shapes)]
    theirs = [torch.nn.Parameter(torch.from_numpy(parameter.value.copy())) for parameter in ours]
    optimizer, other = make(ours, theirs)
    for step in range(STEPS):
        if step == STEPS // 2:
            optimizer.lr = optimizer.lr * 0.3
            for group in other.param_groups:
                group["lr"] *= 0.3
        for i, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            one.grad[...] = gradient(one.value, 1000 * step + seed + i)
            two.grad = torch.from_numpy(gradient(pytorch.array(two), 1000 * step + seed + i))
        if clip is not None:
            clip_as_written(theirs, clip)
        optimizer.step()
        other.step()
        for one, two in zip(ours, theirs, strict=True):
            pytorch.assert_equal(one.value, two, f"{one.name} after step {step + 1}")


def clip_as_written(parameters: list[torch.nn.Parameter], most: float) -> float:
    """Clip with PyTorch, and take out the 1e-6 that it adds to the norm before it divides."""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, most))
    if most / (norm + 1e-6) < 1:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad *= (norm + 1e-6) / norm
    return norm


class Holder(nn.Linear):
    """A module of any parameters, for an optimizer that asks for a module."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__("holder", 1, 1)
        self.held = parameters

    def parameters(self) -> list[nn.Parameter]:
        return self.held


def z_space(parameters: list[nn.Parameter], mode: str, lr: float, **options: Any) -> optim.ZSpaceOptimizer:
    """Build a Z-space optimizer in a mode of straight steps."""
    optimizer = optim.ZSpaceOptimizer(lr if mode == "euclidean" else 7.0, **options)
    if mode == "realgrad":
        optimizer.set_mode(optim.OptimizerMode.realgrad(lr))
    optimizer.prepare_module(Holder(parameters))
    return optimizer


@pytest.mark.parametrize("kind", ["plain", "euclidean", "realgrad"])
@SOME
@given(SHAPES, RATES, MOMENTA, DECAYS, SEEDS)
def test_descent_with_momentum_and_decay_is_that_of_pytorch(
    kind: str, shapes: list[list[int]], lr: float, momentum: float, decay: float, seed: int
) -> None:
    options = {"momentum": momentum, "weight_decay": decay}

    def make(ours: Any, theirs: Any) -> tuple[optim.Optimizer, torch.optim.Optimizer]:
        mine = optim.SGD(ours, lr, **options) if kind == "plain" else z_space(ours, kind, lr, **options)
        return mine, torch.optim.SGD(theirs, lr, **options)

    compare(shapes, seed, make)


@pytest.mark.parametrize("kind", ["plain", "euclidean", "realgrad"])
@SOME
@given(SHAPES, RATES, BETAS, EPSILONS, DECAYS, SEEDS)
def test_adam_with_decay_is_that_of_pytorch(
    kind: str, shapes: list[list[int]], lr: float, betas: tuple[float, float], eps: float, decay: float, seed: int
) -> None:
    options: dict[str, Any] = {"eps": eps, "weight_decay": decay}

    def make(ours: Any, theirs: Any) -> tuple[optim.Optimizer, torch.optim.Optimizer]:
        if kind == "plain":
            mine: optim.Optimizer = optim.Adam(ours, lr, betas=betas, **options)
        else:
            mine = z_space(ours, kind, lr, adam=betas, **options)
        return mine, torch.optim.Adam(theirs, lr, betas=betas, **options)

    compare(shapes, seed, make)


@SOME
@given(SHAPES, st.floats(0.05, 20), SEEDS)
def test_a_step_that_clips_by_itself_is_pytorch_clipped_by_hand(
    shapes: list[list[int]], most: float, seed: int
) -> None:
    def make(ours: Any, theirs: Any) -> tuple[optim.Optimizer, torch.optim.Optimizer]:
        mine = z_space(ours, "euclidean", 0.05, momentum=0.9, max_norm=most)
        return mine, torch.optim.SGD(theirs, 0.05, momentum=0.9)

    compare(shapes, seed, make, clip=most)


@SOME
@given(SHAPES, st.floats(0.01, 20), st.sampled_from([1e-3, 1.0, 1e3]), SEEDS)
def test_clipping_is_that_of_pytorch_without_its_guard_against_a_norm_of_zero(
    shapes: list[list[int]], most: float, scale: float, seed: int
) -> None:
    ours = [nn.Parameter(f"p{i}", np.zeros(shape)) for i, shape in enumerate(shapes)]
    theirs = [torch.nn.Parameter(torch.from_numpy(parameter.value.copy())) for parameter in ours]
    for i, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        one.grad[...] = scale * pytorch.normal(one.value.shape, seed + i)
        two.grad = torch.from_numpy(one.grad.copy())
    pytorch.assert_equal(np.float64(optim.clip_gradient_norm(ours, most)), clip_as_written(theirs, most), "norm")
    for one, two in zip(ours, theirs, strict=True):
        assert two.grad is not None
        pytorch.assert_equal(one.grad, two.grad, "clipped gradient")
