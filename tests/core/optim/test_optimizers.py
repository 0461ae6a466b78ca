from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oracles import layers_twin
from spiral_core.arrays import F64
from spiral_core.errors import ArgumentError, ShapeError, StateDictError
from spiral_core.nn import Parameter
from spiral_core.optim import SGD, Adam, Optimizer, gradient_norm

STEPS = 20
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-13}
"""Absolute, for weights of order one after 20 steps."""

Build = Callable[[list[Parameter]], Optimizer]
OPTIMIZERS: dict[str, Build] = {
    "plain descent": lambda p: SGD(p, 0.1, momentum=0.0),
    "momentum": lambda p: SGD(p, 0.05, momentum=0.9),
    "momentum and decay": lambda p: SGD(p, 0.05, momentum=0.8, weight_decay=0.1),
    "adam": lambda p: Adam(p, 0.02),
    "adam with everything": lambda p: Adam(p, 0.02, betas=(0.7, 0.95), eps=1e-3, weight_decay=0.1),
}


def parameters(dtype: type[np.floating]) -> list[Parameter]:
    draws = np.random.default_rng(0)
    return [Parameter(name, draws.standard_normal(shape).astype(dtype)) for name, shape in (("w", (3, 5)), ("b", (4,)))]


def gradients(dtype: type[np.floating]) -> list[list[F64]]:
    """One list of gradients for each parameter; some zero, some huge."""
    draws = np.random.default_rng(1)
    drawn = []
    for shape in ((3, 5), (4,)):
        scales = 10.0 ** draws.integers(-3, 2, STEPS)
        drawn.append([(draws.standard_normal(shape) * scale).astype(dtype) for scale in scales])
    return drawn


def run(optimizer: Optimizer, grads: list[list[F64]], steps: range) -> None:
    for step in steps:
        for parameter, grad in zip(optimizer.parameters, grads, strict=True):
            parameter.grad[...] = grad[step]
        optimizer.step()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_are_those_of_the_formula(name: str, dtype: type[np.floating]) -> None:
    ours, grads = parameters(dtype), gradients(dtype)
    optimizer = OPTIMIZERS[name](ours)
    run(optimizer, grads, range(STEPS))
    for before, parameter, sequence in zip(parameters(dtype), ours, grads, strict=True):
        start, wide = before.value.astype(np.float64), [g.astype(np.float64) for g in sequence]
        if isinstance(optimizer, Adam):
            arguments = (optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay)
            expected = layers_twin.adam(start, wide, *arguments)
        else:
            assert isinstance(optimizer, SGD)
            expected = layers_twin.sgd(start, wide, optimizer.lr, optimizer.momentum, optimizer.weight_decay)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(parameter.value, expected, rtol=0, atol=TOLERANCE[dtype] * scale)
        np.testing.assert_array_equal(parameter.grad, sequence[-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_state_continues_to_the_last_bit(name: str) -> None:
    grads = gradients(np.float32)
    whole = parameters(np.float32)
    run(OPTIMIZERS[name](whole), grads, range(STEPS))
    first = parameters(np.float32)
    optimizer = OPTIMIZERS[name](first)
    optimizer.lr = 0.5
    optimizer.lr = OPTIMIZERS[name](parameters(np.float32)).lr
    run(optimizer, grads, range(7))
    state = optimizer.state_dict()
    values = [p.value.copy() for p in first]
    run(optimizer, grads, range(7, 9))
    second = parameters(np.float32)
    for parameter, value in zip(second, values, strict=True):
        parameter.value[...] = value
    resumed = OPTIMIZERS[name](second)
    resumed.lr = 123.0
    resumed.load_state_dict(state)
    run(resumed, grads, range(7, STEPS))
    for one, other in zip(whole, second, strict=True):
        assert one.value.tobytes() == other.value.tobytes()


def test_a_rate_that_is_steered_acts_at_the_next_step() -> None:
    for build in OPTIMIZERS.values():
        moved = []
        for rate in (0.01, 0.02):
            ours = parameters(np.float64)
            optimizer = build(ours)
            run(optimizer, gradients(np.float64), range(3))
            before = ours[0].value.copy()
            optimizer.lr = rate
            run(optimizer, gradients(np.float64), range(3, 4))
            moved.append(ours[0].value - before)
        np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-9)


@pytest.mark.parametrize("lr", [0.0, -0.1, np.nan, np.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_that_cannot_be_is_refused_by_name_and_the_old_one_stays(name: str, lr: float) -> None:
    optimizer = OPTIMIZERS[name](parameters(np.float32))
    before = optimizer.lr
    with pytest.raises(ArgumentError, match="lr"):
        optimizer.lr = lr
    assert optimizer.lr == before
    with pytest.raises(ArgumentError, match="lr"):
        type(optimizer)(optimizer.parameters, lr)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda _p: SGD([], 0.1), "parameter"),
        (lambda p: SGD(p, 0.1, momentum=1.0), "momentum"),
        (lambda p: SGD(p, 0.1, momentum=np.nan), "momentum"),
        (lambda p: SGD(p, 0.1, weight_decay=-1e-9), "weight_decay"),
        (lambda p: Adam(p, 0.1, betas=(0.9, 1.0)), "betas"),
        (lambda p: Adam(p, 0.1, eps=0.0), "eps"),
        (lambda p: Adam(p, 0.1, weight_decay=np.inf), "weight_decay"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_by_name(build: Build, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        build(parameters(np.float32))


def damaged(state: dict[str, Any], damage: str) -> dict[str, Any]:
    bad: dict[str, dict[str, Any]] = {
        "missing": {name: value for name, value in state.items() if name != "second.b"},
        "unknown": {**state, "third.b": np.zeros(4)},
        "shape": {**state, "second.b": np.zeros(5, np.float32)},
        "dtype": {**state, "second.b": np.zeros(4)},
        "nan": {**state, "second.b": np.full(4, np.nan, np.float32)},
        "negative": {**state, "second.b": np.full(4, -1, np.float32)},
        "steps": {**state, "steps": np.array(-1)},
        "rate": {**state, "lr": np.array(-0.1)},
        "rates": {**state, "lr": np.array([0.1, 0.2])},
    }
    return bad[damage]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("missing", "second.b"),
        ("unknown", "third.b"),
        ("shape", "second.b"),
        ("dtype", "second.b"),
        ("nan", "second.b: .*not finite"),
        ("negative", "second.b: .*negative"),
        ("steps", "steps: .*negative"),
        ("rate", "lr"),
        ("rates", "lr"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_entry_and_nothing_is_loaded(damage: str, named: str) -> None:
    optimizer = Adam(parameters(np.float32), 0.1)
    run(optimizer, gradients(np.float32), range(3))
    before = {name: value.tobytes() for name, value in optimizer.state_dict().items()}
    state = {name: np.asarray(value * 2, value.dtype) for name, value in optimizer.state_dict().items()}
    with pytest.raises(StateDictError, match=named):
        optimizer.load_state_dict(damaged(state, damage))
    assert {name: value.tobytes() for name, value in optimizer.state_dict().items()} == before
    optimizer.load_state_dict(state)
    assert {name: value.tobytes() for name, value in optimizer.state_dict().items()} != before


def test_gradients_are_set_to_zero_all_at_once() -> None:
    optimizer = Adam(parameters(np.float32), 0.1)
    run(optimizer, gradients(np.float32), range(1))
    optimizer.zero_grad()
    assert not any(p.grad.any() for p in optimizer.parameters)


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_gradient_of_another_shape_is_refused_and_nothing_moves(kind: type[SGD] | type[Adam]) -> None:
    ours = [Parameter("a", np.ones(3)), Parameter("b", np.ones(4))]
    optimizer = kind(ours, 0.1)
    before = optimizer.state_dict()
    ours[0].grad[:] = 1.0
    ours[1].grad = np.ones(2)
    with pytest.raises(ShapeError, match=r"b: the gradient must have the shape \(4,\)"):
        optimizer.step()
    for parameter in ours:
        np.testing.assert_array_equal(parameter.value, 1.0)
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_gradient_norm_is_that_of_all_gradients_together() -> None:
    ours = parameters(np.float32)
    for parameter, grads in zip(ours, gradients(np.float32), strict=True):
        parameter.grad[...] = grads[0]
    together = np.concatenate([p.grad.reshape(-1) for p in ours]).astype(np.float64)
    assert gradient_norm(ours) == pytest.approx(float(np.linalg.norm(together)), rel=1e-12)
    # Squares of 1e30 overflow float32, and the norm does not.
    ours[0].grad[...] = 1e30
    assert gradient_norm(ours) == pytest.approx(1e30 * 15**0.5, rel=1e-6)
    ours[0].grad[0, 0] = np.nan
    assert np.isnan(gradient_norm(ours))
    ours[0].grad[0, 0] = np.inf
    assert gradient_norm(ours) == np.inf
