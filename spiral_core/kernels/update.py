"""Parameter updates and the norm of gradients, one pass over a flat parameter."""

from __future__ import annotations

import math

import numpy as np

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel


@kernel("void({f}[::1], {f}[::1], {f}[::1], {f}, {f}, {f})")
def sgd_update(value: Float, grad: Float, velocity: Float, lr: float, momentum: float, weight_decay: float) -> None:
    r"""Apply one step of gradient descent with momentum.

    .. math:: v \leftarrow \mu v + (g + \lambda w), \qquad w \leftarrow w - \eta v

    Parameters
    ----------
    value, velocity : (E,)        w and v, updated
    grad : (E,)                   g
    lr, momentum, weight_decay    eta, mu, lambda, in the dtype of the arrays
    """
    for j in range(value.size):
        v = momentum * velocity[j] + (grad[j] + weight_decay * value[j])
        velocity[j] = v
        value[j] -= lr * v


@kernel("void({f}[::1], {f}[::1], {f}[::1], {f}[::1], {f}, {f}, {f}, {f}, {f}, {f}, {f}, {f})")
def adam_update(
    value: Float,
    grad: Float,
    first: Float,
    second: Float,
    step_size: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    eps: float,
    weight_decay: float,
    root_correction2: float,
) -> None:
    r"""Apply one step of Adam.

    .. math:: g' = g + \lambda w, \quad m \leftarrow \beta_1 m + (1-\beta_1) g', \quad
              v \leftarrow \beta_2 v + (1-\beta_2) g'^2, \quad
              w \leftarrow w - \frac{\eta}{1-\beta_1^t} \, \frac{m}{\sqrt{v} / \sqrt{1-\beta_2^t} + \epsilon}

    Parameters
    ----------
    value, first, second : (E,)    w, m and v, updated
    grad : (E,)                    g
    step_size                      eta / (1 - beta1^t)
    beta1, beta2, eps              as in the equation
    rest1, rest2                   1 - beta1 and 1 - beta2; 1 - 0.999 loses three digits when taken in float32
    weight_decay                   lambda; added to the gradient (not decoupled)
    root_correction2               sqrt(1 - beta2^t)

    Notes
    -----
    Source: Kingma and Ba 2015, algorithm 1, with epsilon outside the corrected root.
    """
    for j in range(value.size):
        g = grad[j] + weight_decay * value[j]
        m = beta1 * first[j] + rest1 * g
        v = beta2 * second[j] + rest2 * g * g
        first[j] = m
        second[j] = v
        value[j] -= step_size * m / (math.sqrt(v) / root_correction2 + eps)


@kernel("void({f}[:,::1], float64[:,::1], {f}[::1], {f}[::1])")
def add_parts(weights: Float, biases: F64, grad_weight: Float, grad_bias: Float) -> None:
    """Add partial sums to the gradients of a weight and a bias, in the order of the parts.

    Parameters
    ----------
    weights : (chunks, K)    overwritten
    biases : (chunks, D)     overwritten
    grad_weight : (K,)       updated
    grad_bias : (D,)         updated
    """
    weight, bias = weights[0], biases[0]
    for k in range(1, weights.shape[0]):
        for j in range(weight.size):
            weight[j] += weights[k, j]
        for j in range(bias.size):
            bias[j] += biases[k, j]
    for j in range(weight.size):
        grad_weight[j] += weight[j]
    for j in range(bias.size):
        grad_bias[j] += bias[j]


@kernel("void({f}[:,::1], {f}[::1])")
def add_row(matrix: Float, row: Float) -> None:
    """Add one row to all rows of a matrix.

    Parameters
    ----------
    matrix : (N, D)    updated
    row : (D,)
    """
    for i in range(matrix.shape[0]):
        for j in range(row.size):
            matrix[i, j] += row[j]


@kernel("float64({f}[::1])")
def sum_of_squares(values: Float) -> float:
    r"""Return :math:`\sum_j v_j^2`, squared and summed in float64 whatever the dtype; NaN and infinity show.

    Parameters
    ----------
    values : (E,)
    """
    total = 0.0
    for j in range(values.size):
        v = np.float64(values[j])
        total += v * v
    return total
