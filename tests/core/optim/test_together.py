"""Parameters that are stepped in one call: the same bits as one by one, whatever is exchanged in between."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from spiral_core import kernels
from spiral_core.errors import ShapeError
from spiral_core.nn import Linear, Parameter
from spiral_core.optim import OptimizerMode, ParameterGroup, ZSpaceOptimizer

EVENTS = ["value", "grad", "velocity", "weight_decay", "momentum", "groups", "freeze", "thaw", "mode", "copy", "pickle"]


class Layers(Linear):
    """Parameters of many sizes, named so that groups tell them apart."""

    def __init__(self, sizes: list[int], dtypes: list[type[np.floating]]) -> None:
        super().__init__("layer", 1, 1)
        draws = np.random.default_rng(len(sizes))
        self.own = [
            Parameter(f"p{k}.{'bias' if k % 3 == 0 else 'weight'}", draws.standard_normal(size).astype(dtype))
            for k, (size, dtype) in enumerate(zip(sizes, dtypes, strict=True))
        ]

    def parameters(self) -> list[Parameter]:
        return self.own


def twin_step(optimizer: ZSpaceOptimizer, parameters: list[Parameter], values: list, velocities: list) -> None:
    """Step copies one by one, by the kernel of one parameter."""
    for k, parameter in enumerate(parameters):
        if parameter.name in optimizer.frozen:
            continue
        own = next((g for g in optimizer.groups if parameter.name.endswith(g.endings)), None)
        decay = optimizer.weight_decay if own is None or own.weight_decay is None else own.weight_decay
        number = parameter.value.dtype.type
        kernels.sgd_update(
            values[k], parameter.grad, velocities[k], *map(number, (optimizer.lr, optimizer.momentum, decay))
        )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float32, np.float64]),
    mixed=st.booleans(),
    events=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_every_step_is_that_of_each_parameter_alone(
    sizes: list[int], dtype: type[np.floating], mixed: bool, events: list[str], seed: int
) -> None:
    draws = np.random.default_rng(seed)
    dtypes = [np.float64 if mixed and k == 0 else dtype for k in range(len(sizes))]
    layers = Layers(sizes, dtypes)
    optimizer = ZSpaceOptimizer(0.05, momentum=0.9, weight_decay=0.01, groups=())
    optimizer.prepare_module(layers)
    values = [p.value.copy() for p in layers.own]
    velocities = [np.zeros_like(value) for value in values]
    for event in ["none yet", *events]:
        one = int(draws.integers(len(sizes)))
        parameter = layers.own[one]
        if event == "value":
            parameter.value = parameter.value + parameter.value.dtype.type(1)
            values[one] = parameter.value.copy()
        elif event == "grad":
            parameter.grad = np.empty_like(parameter.grad)
        elif event == "velocity":
            optimizer.load_state_dict(optimizer.state_dict())
        elif event == "weight_decay":
            optimizer.weight_decay = float(draws.uniform())
        elif event == "momentum":
            optimizer.momentum = float(draws.uniform(0.1, 0.9))
        elif event == "groups":
            optimizer.groups = (ParameterGroup(("bias",), weight_decay=float(draws.uniform())),)
        elif event in ("freeze", "thaw"):
            optimizer.frozen = frozenset({parameter.name} if event == "freeze" else ())
        elif event == "copy":
            layers, optimizer = copy.deepcopy((layers, optimizer))
        elif event == "pickle":
            layers, optimizer = pickle.loads(pickle.dumps((layers, optimizer)))
        elif event == "mode":
            optimizer.set_mode(OptimizerMode.euclidean())
            velocities = [np.zeros_like(value) for value in values]
        for p in layers.own:
            p.grad[...] = draws.standard_normal(p.grad.shape)
        twin_step(optimizer, layers.own, values, velocities)
        optimizer.step()
        alive = {p.value.dtype for p in layers.own if p.name not in optimizer.frozen}
        assert (optimizer._together is not None) == (len(alive) == 1)
        for p, value, velocity in zip(layers.own, values, velocities, strict=True):
            np.testing.assert_array_equal(p.value, value)
            np.testing.assert_array_equal(optimizer.slots()[f"velocity.{p.name}"], velocity)


def test_nothing_is_looked_up_again_while_nothing_is_exchanged() -> None:
    layers = Layers([4, 6], [np.float32, np.float32])
    optimizer = ZSpaceOptimizer(0.5, momentum=0.9)
    optimizer.step(layers)
    first = optimizer._together
    assert first is not None
    optimizer.lr = 0.1
    optimizer.step(layers)
    assert optimizer._together is first
    optimizer.weight_decay = 0.1
    optimizer.step(layers)
    assert optimizer._together is not first


def test_groups_that_change_in_place_are_seen() -> None:
    layers = Layers([4, 6], [np.float32, np.float32])
    optimizer = ZSpaceOptimizer(0.5)
    optimizer.groups = groups = []  # type: ignore[assignment]
    optimizer.step(layers)
    before = [p.value.copy() for p in layers.own]
    groups.append(ParameterGroup(("bias",), weight_decay=0.5))
    optimizer.step(layers)
    np.testing.assert_array_equal(layers.own[0].value, before[0] - np.float32(0.5) * (np.float32(0.5) * before[0]))
    np.testing.assert_array_equal(layers.own[1].value, before[1])


def test_clipped_steps_between_others_carry_the_same_velocity_on() -> None:
    runs = []
    for most in (None, 1e9):
        layers = Layers([4, 6], [np.float32, np.float32])
        optimizer = ZSpaceOptimizer(0.1, momentum=0.9, max_norm=most)
        for step in range(4):
            for p in layers.own:
                p.grad[...] = np.random.default_rng(step).standard_normal(p.grad.shape)
            optimizer.step(layers)
        optimizer.max_norm = 0.5
        optimizer.step(layers)
        optimizer.max_norm = most
        optimizer.step(layers)
        runs.append([p.value.copy() for p in layers.own])
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_an_array_that_may_not_be_written_is_refused_and_stays() -> None:
    layers = Layers([4, 6], [np.float32, np.float32])
    optimizer = ZSpaceOptimizer(0.5)
    layers.own[0].grad[...] = 1
    layers.own[0].value.flags.writeable = False
    before = layers.own[0].value.copy()
    with pytest.raises(TypingError, match="readonly"):
        optimizer.step(layers)
    np.testing.assert_array_equal(layers.own[0].value, before)


@pytest.mark.parametrize("rule", [{}, {"adam": (0.9, 0.99)}])
def test_a_gradient_of_another_shape_is_refused_and_nothing_moves(rule: dict[str, Any]) -> None:
    layers = Layers([4, 6], [np.float32, np.float32])
    optimizer = ZSpaceOptimizer(0.5, **rule)
    optimizer.prepare_module(layers)
    before = [p.value.copy() for p in layers.own]
    layers.own[0].grad[...] = 1
    layers.own[1].grad = np.ones(2, np.float32)
    with pytest.raises(ShapeError, match=r"p1\.weight: the gradient must have the shape \(6,\)"):
        optimizer.step()
    for p, value in zip(layers.own, before, strict=True):
        np.testing.assert_array_equal(p.value, value)


def test_a_gradient_that_is_a_view_with_gaps_is_stepped_like_any_other() -> None:
    layers = Layers([4, 6], [np.float32, np.float32])
    layers.own[1].grad = np.arange(12, dtype=np.float32)[::2]
    optimizer = ZSpaceOptimizer(0.5, groups=())
    before = layers.own[1].value.copy()
    optimizer.step(layers)
    np.testing.assert_array_equal(layers.own[1].value, before - np.float32(0.5) * layers.own[1].grad)


def test_a_nan_shows_in_its_own_parameter_alone() -> None:
    layers = Layers([3, 5], [np.float32, np.float32])
    optimizer = ZSpaceOptimizer(0.5, momentum=0.9)
    layers.own[0].grad[1] = np.nan
    optimizer.step(layers)
    assert np.isnan(layers.own[0].value).tolist() == [False, True, False]
    assert np.isfinite(layers.own[1].value).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_without_rows_does_nothing(dtype: type[np.floating]) -> None:
    kernels.sgd_update_all(np.empty((0, 4), np.int64), np.empty(0, dtype), dtype(1), dtype(1))
