"""Riemannian steps with momentum and with Adam are their slow twin on the hyperboloid, over many steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import hyperboloid_twin, layers_twin
from oracles.hyperboloid_twin import Descent
from spiral_core import nn, optim
from spiral_core.arrays import F64

STEPS = 40
RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "adam": {"adam": (0.9, 0.99), "eps": 1e-6},
    "adam without a mean": {"adam": (0.0, 0.9)},
}
CURVATURES = st.sampled_from([-0.04, -0.5, -1.0, -3.0, -25.0])


def layers(seed: int, radius: float) -> nn.Sequential:
    """Build a matrix and a bank of filters, whose points lie within a radius, with biases."""
    draws = np.random.default_rng(seed)
    chain = nn.Sequential(
        "net", [nn.Linear("fc", 3, 4, dtype=np.float64), nn.Conv2d("conv", 2, 3, (2, 1), dtype=np.float64)]
    )
    for weight in (chain.parameters()[0], chain.parameters()[2]):
        points = draws.standard_normal(weight.value.shape).reshape(-1, weight.value.shape[-1])
        points *= radius * draws.uniform(0.05, 1, points.shape[1]) / np.linalg.norm(points, axis=0)
        weight.value[...] = points.reshape(weight.value.shape)
    return chain


def gradient(value: F64, seed: int, radius: float) -> F64:
    """Return noise, and a pull inwards that keeps points from the boundary, where digits are lost."""
    return np.random.default_rng(seed).standard_normal(value.shape) + 4 * value / radius


def columns(array: F64) -> list[F64]:
    return list(array.reshape(-1, array.shape[-1]).T.copy())


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(CURVATURES, st.sampled_from([0.0, 0.05]), st.booleans(), st.integers(0, 10_000))
def test_many_steps_are_those_of_the_slow_twin(
    rule: str, curvature: float, decay: float, clipped: bool, seed: int
) -> None:
    ball = 1 / np.sqrt(-curvature)
    # A gradient of a ball of another size: rates are lengths over slopes, and Adam's are lengths.
    rate = 0.02 * ball if "adam" in RULES[rule] else 0.02 * ball**2
    model = layers(seed, 0.7 * ball)
    most = 4.0 if clipped else None
    optimizer = optim.ZSpaceOptimizer(1.0, weight_decay=decay, max_norm=most, **RULES[rule])
    optimizer.set_mode(optim.OptimizerMode.riemannian(curvature, float(rate)))
    optimizer.prepare_module(model)
    weights = [p for p in model.parameters() if p.name.endswith("weight")]
    rest = (RULES[rule].get("momentum", 0.0), RULES[rule].get("adam"), RULES[rule].get("eps", 1e-8), decay)
    twins = [[Descent(x, curvature, *rest) for x in columns(weight.value)] for weight in weights]
    starts = {p.name: p.value.copy() for p in model.parameters()}
    biases: dict[str, list[F64]] = {p.name: [] for p in model.parameters() if p not in weights}
    for step in range(STEPS):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad[...] = gradient(parameter.value, 100 * step + seed + number, ball)
        total = np.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
        share = min(1.0, most / total) if most is not None else 1.0
        for name, grads in biases.items():
            grads.append(share * next(p.grad for p in model.parameters() if p.name == name))
        for weight, descents in zip(weights, twins, strict=True):
            for descent, grad in zip(descents, columns(weight.grad), strict=True):
                descent.step(share * grad, float(rate))
        optimizer.step()
        for weight, descents in zip(weights, twins, strict=True):
            expected = np.stack([descent.x for descent in descents], axis=1).reshape(weight.value.shape)
            np.testing.assert_allclose(
                weight.value, expected, rtol=0, atol=1e-11 * ball, err_msg=f"{weight.name}, step {step}"
            )
    assert all(np.abs(p.value - starts[p.name]).max() > 0.01 * ball for p in weights), "nothing has moved"
    for parameter in model.parameters():
        if parameter.name in biases:
            grads, start = biases[parameter.name], starts[parameter.name]
            if rest[1] is None:
                expected = layers_twin.sgd(start, grads, float(rate), rest[0], decay)
            else:
                expected = layers_twin.adam(start, grads, float(rate), rest[1], rest[2], decay)
            np.testing.assert_allclose(parameter.value, expected, rtol=1e-11, atol=1e-13, err_msg=parameter.name)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(0, 0.95), st.floats(0.01, 3), CURVATURES, st.integers(0, 10_000))
def test_the_twin_walks_on_geodesics_and_keeps_lengths(
    radius: float, speed: float, curvature: float, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    s = np.sqrt(-curvature)
    x, v, w = draws.standard_normal((3, 4))
    x *= radius / s / np.linalg.norm(x)
    factor = 2 / (1 - radius**2)
    v *= speed / s / factor / np.linalg.norm(v)
    end, carried = hyperboloid_twin.moved(x, v, w, curvature)
    below = (1 + curvature * (x @ x)) * (1 + curvature * (end @ end))
    apart = np.arccosh(1 - 2 * curvature * float((x - end) @ (x - end)) / below) / s
    # The distance of the end is the length of the velocity, and what is carried keeps its own.
    assert apart == pytest.approx(speed / s, rel=1e-6)
    there = 2 / (1 + curvature * (end @ end))
    assert there * np.linalg.norm(carried) == pytest.approx(factor * np.linalg.norm(w), rel=1e-8)
    back, _ = hyperboloid_twin.moved(end, -hyperboloid_twin.moved(x, v, v, curvature)[1], w, curvature)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-9 / s)
