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

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ArgumentError, StateError
from spiral_core.nn import Parameter
from spiral_core.zspace import poincare, root_curvature


def as_points(array: Float) -> Float:
    """Return (K, P): the points of a weight as columns, in the memory of the weight."""
    return array.reshape(-1, 1) if array.ndim == 1 else array.reshape(-1, array.shape[-1])


def points_outside(parameter: Parameter, curvature: float) -> list[int]:
    """Return the numbers of the points that lie outside the ball (or within half its margin)."""
    points = as_points(parameter.value)
    # Steps keep the whole margin: below three quarters of it, one length tells that there are none.
    clear = (1 - 0.75 * poincare.boundary_margin(points.dtype)) / root_curvature(curvature)
    if kernels.longest_column(points) <= clear:
        return []
    return [int(j) for j in np.flatnonzero(poincare.outside(points, curvature))]


def check_inside(
    parameters: Sequence[Parameter], curvature: float, error: type[ArgumentError] | type[StateError]
) -> None:
    """Raise ``error`` with the name of every parameter that has points outside the ball, and their numbers."""
    found = []
    for parameter in parameters:
        if points := points_outside(parameter, curvature):
            listed = f"{', '.join(map(str, points[:8]))}{', ...' * (len(points) > 8)}"
            found.append(f"{parameter.name} (points {listed})")
    if found:
        raise error(
            f"outside the ball of radius {1 / root_curvature(curvature):.6g}: {'; '.join(found)}; "
            "make them smaller, or prepare_module with project=True"
        )


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


def momentum_step(
    x: Float, grad: Float, velocity: Float, curvature: float, lr: float, momentum: float, decay: float
) -> None:
    """Take one step with momentum; ``velocity`` (K, P) is updated and carried to the new points."""
    kernels.geodesic_update(x, grad, velocity, curvature, _limit(x, curvature), lr, momentum, decay)


def adam_step(
    x: Float,
    grad: Float,
    first: Float,
    second: Float,
    curvature: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    count: int,
) -> None:
    """Take one step of Riemannian Adam; ``first`` (K, P) and ``second`` (P,) are updated."""
    corrections = (1 - beta**count for beta in betas)
    kernels.geodesic_adam_update(
        x, grad, first, second, curvature, _limit(x, curvature), lr, *betas, eps, decay, *corrections
    )


def _limit(x: Float, curvature: float) -> float:
    """Return how far from the origin a step may end."""
    return (1 - poincare.boundary_margin(x.dtype)) / root_curvature(curvature)
