"""Slow float64 twin of the long short-term memory layer: one sequence, one time step, one gate at a time.

Written from the equations of the layer; it shares no code with the engine. With ``narrow`` it rounds what each time
step multiplies; its caller rounds the rest: input, weights, first state and the gradient of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spiral_core.arrays import F64


class Weights(NamedTuple):
    """weight_ih (I, 4H), weight_hh (H, 4H), bias_ih and bias_hh (4H,), gates in the order i, f, g, o."""

    ih: F64
    hh: F64
    bias_ih: F64
    bias_hh: F64


class Passed(NamedTuple):
    """Outputs (T, H), last state, and what the way back needs: per step x, h and c before, the gates, and c after."""

    y: F64
    h: F64
    c: F64
    steps: list[tuple[F64, F64, F64, F64, F64, F64, F64, F64]]


def sigmoid(z: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-z))


def exact(array: F64) -> F64:
    return array


def forward(x: F64, weights: Weights, h: F64, c: F64, narrow: Callable[[F64], F64] = exact) -> Passed:
    """Walk one sequence (T, I) from the state h, c (H,)."""
    outputs, steps = [], []
    for row in x:
        z = row @ weights.ih + weights.bias_ih + weights.bias_hh + h @ weights.hh
        in_gate, forget, candidate, out_gate = np.split(z, 4)
        i, f, g, o = sigmoid(in_gate), sigmoid(forget), np.tanh(candidate), sigmoid(out_gate)
        after = f * c + i * g
        steps.append((row, h, c, i, f, g, o, after))
        h, c = narrow(o * np.tanh(after)), after
        outputs.append(h)
    return Passed(np.array(outputs), h, c, steps)


def backward(passed: Passed, weights: Weights, grad: F64, narrow: Callable[[F64], F64] = exact) -> dict[str, F64]:
    """Return the gradients of x, of the four parameters and of the first state, by name."""
    sums = {name: np.zeros_like(array) for name, array in zip(weights._fields, weights, strict=True)}
    grad_x = np.zeros((len(grad), len(weights.ih)))
    dh, dc = np.zeros_like(passed.h), np.zeros_like(passed.c)
    for t in reversed(range(len(grad))):
        x, h, c, i, f, g, o, after = passed.steps[t]
        q = np.tanh(after)
        total = grad[t] + dh
        inner = total * o * (1 - q**2) + dc
        d = np.concatenate(
            [inner * g * i * (1 - i), inner * c * f * (1 - f), inner * i * (1 - g**2), total * q * o * (1 - o)]
        )
        d = narrow(d)
        sums["ih"] += np.outer(x, d)
        sums["hh"] += np.outer(h, d)
        sums["bias_ih"] += d
        sums["bias_hh"] += d
        grad_x[t] = weights.ih @ d
        dh, dc = weights.hh @ d, inner * f
    return {**sums, "x": grad_x, "h": dh, "c": dc}
