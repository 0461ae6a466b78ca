r"""Descent on the Poincaré ball, for points that are columns.

.. math:: \tilde g = \lambda_x^{-2} (g + \lambda w), \qquad x \leftarrow \exp_x(-\eta\, d), \qquad
          d = \tilde g, \;\text{ or }\; v \leftarrow \mathrm{PT}(\mu v + \tilde g)

A column of a Linear weight, and a filter of a Conv2d weight (a vector over taps and input channels), is one point; a
vector is one point too. Momentum lives in the tangent space of the point and is carried along by parallel transport;
Adam keeps one second moment for each point, :math:`\lambda_x^2 \|\tilde g\|^2`, because there is no frame in which
single coordinates would keep their meaning.

Sources: Bonnabel 2013 (Riemannian SGD); Bécigneul and Ganea 2019 (Riemannian Adam); Nickel and Kiela 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiral_core.arrays import Float
from spiral_core.nn import Parameter
from spiral_core.zspace import poincare


def as_points(array: Float) -> Float:
    """Return (K, P): the points of a weight as columns, in the memory of the weight."""
    return array.reshape(-1, 1) if array.ndim == 1 else array.reshape(-1, array.shape[-1])


def points_outside(parameter: Parameter, curvature: float) -> list[int]:
    """Return the numbers of the points that lie outside the ball (or within half its margin)."""
    return [int(j) for j in np.flatnonzero(poincare.outside(as_points(parameter.value), curvature))]


def lift(parameters: Sequence[Parameter], curvature: float) -> None:
    r"""Take weights as tangent vectors at the origin, and put in their place the points that these lead to.

    .. math:: w \leftarrow \exp_0(w) = \tanh(s\|w\|)\, w / (s\|w\|)

    All of them lie inside the ball; a weight much shorter than its radius hardly changes.

    Notes
    -----
    Source: Ganea, Bécigneul and Hofmann 2018, section 2.4.
    """
    for parameter in parameters:
        points = as_points(parameter.value)
        points[...] = poincare.exponential(np.zeros_like(points), points, curvature)


def descend(x: Float, direction: Float, curvature: float, lr: float, carried: tuple[Float, ...] = ()) -> None:
    """Move the points along their geodesics, in place.

    Parameters
    ----------
    x : (K, P)            points, updated; a point with a zero direction stays bit for bit
    direction : (K, P)    d, tangent at x
    curvature, lr         kappa < 0 and eta
    carried : arrays      tangent vectors (K, P) that are transported along, in place
    """
    reached = poincare.exponential(x, -lr * direction, curvature)
    still = (reached == x).all(axis=0)
    for v in carried:
        v[...] = np.where(still, v, poincare.transport(x, reached, v, curvature))
    x[...] = reached


def momentum_step(x: Float, grad: Float, velocity: Float, curvature: float, lr: float, momentum: float) -> None:
    """Take one step with momentum; ``velocity`` (K, P) is updated and carried to the new points."""
    velocity[...] = momentum * velocity + poincare.riemannian_gradient(x, grad, curvature)
    descend(x, velocity, curvature, lr, (velocity,) if momentum else ())


def adam_step(
    x: Float,
    grad: Float,
    first: Float,
    second: Float,
    curvature: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    count: int,
) -> None:
    """Take one step of Riemannian Adam; ``first`` (K, P) and ``second`` (P,) are updated."""
    beta1, beta2 = betas
    g = poincare.riemannian_gradient(x, grad, curvature)
    length = (poincare.conformal(x, curvature) * poincare.norms(g))[0]
    first[...] = beta1 * first + (1 - beta1) * g
    second[...] = beta2 * second + (1 - beta2) * length * length
    below = np.sqrt(second / (1 - beta2**count)) + eps
    descend(x, first / (1 - beta1**count) / below, curvature, lr, (first,))
