r"""Slow twin of descent on the Poincaré ball, one point at a time in float64, by way of the hyperboloid.

A point X of the unit ball is :math:`H = (1 + |X|^2,\; 2X) / (1 - |X|^2)` in Minkowski space, where geodesics and
parallel transport need neither Möbius addition nor gyrations:

.. math:: \exp_H(V) = \cosh(|V|)\,H + \sinh(|V|)\,V/|V|, \qquad
          \mathrm{PT}_{H \to Y}(V) = V + \frac{\langle Y, V\rangle}{1 - \langle H, Y\rangle}\,(H + Y)

A ball of curvature kappa is the unit ball shrunk by s = sqrt(-kappa), with lengths shrunk alike. Sources: Nickel and
Kiela 2018, *Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry*; of the steps Bonnabel 2013,
Bécigneul and Ganea 2019. Shares no code with the engine.
"""

from __future__ import annotations

import math

import numpy as np

from spiral_core.arrays import F64


def minkowski(a: F64, b: F64) -> float:
    """Return the product with the sign of the first coordinate turned."""
    return float(a[1:] @ b[1:] - a[0] * b[0])


def lift(x: F64, v: F64) -> tuple[F64, F64]:
    """Carry a point of the unit ball and a tangent vector there onto the hyperboloid."""
    factor = 2 / (1 - x @ x)
    along = factor**2 * (x @ v)
    return np.concatenate([[factor - 1], factor * x]), np.concatenate([[along], factor * v + along * x])


def lower(h: F64, v: F64) -> tuple[F64, F64]:
    """Carry a point of the hyperboloid and a tangent vector there back into the unit ball."""
    below = 1 + h[0]
    return h[1:] / below, v[1:] / below - h[1:] * v[0] / below**2


def moved(x: F64, velocity: F64, carried: F64, curvature: float) -> tuple[F64, F64]:
    """Follow a geodesic of the ball for one unit of time, and carry another tangent vector along."""
    s = math.sqrt(-curvature)
    h, v = lift(s * x, s * velocity)
    length = math.sqrt(max(minkowski(v, v), 0.0))
    if length == 0:
        return x, carried
    end = math.cosh(length) * h + math.sinh(length) * v / length
    _, w = lift(s * x, s * carried)
    w = w + minkowski(end, w) / (1 - minkowski(h, end)) * (h + end)
    point, tangent = lower(end, w)
    return point / s, tangent / s


class Descent:
    """One point with momentum, or with Adam whose second moment is the squared length of the gradient.

    Parameters
    ----------
    x : (K,)                           where it starts
    curvature : float                  kappa < 0
    momentum : float                   mu; 0 with Adam
    betas : (float, float), optional   beta1 and beta2: Adam
    eps, decay : float                 epsilon of Adam, and lambda
    """

    def __init__(
        self,
        x: F64,
        curvature: float,
        momentum: float,
        betas: tuple[float, float] | None,
        eps: float,
        decay: float,
    ) -> None:
        self.x, self.curvature = x.copy(), curvature
        self.momentum, self.betas, self.eps, self.decay = momentum, betas, eps, decay
        self.carried, self.second, self.count = np.zeros_like(x), 0.0, 0

    def step(self, grad: F64, lr: float) -> None:
        """Move along the geodesic against the direction."""
        factor = 2 / (1 + self.curvature * (self.x @ self.x))
        steepest = (grad + self.decay * self.x) / factor**2
        self.count += 1
        if self.betas is None:
            self.carried = self.momentum * self.carried + steepest
            direction = self.carried
        else:
            one, two = self.betas
            self.carried = one * self.carried + (1 - one) * steepest
            self.second = two * self.second + (1 - two) * factor**2 * float(steepest @ steepest)
            root = math.sqrt(self.second / (1 - two**self.count))
            direction = self.carried / (1 - one**self.count) / (root + self.eps)
        self.x, self.carried = moved(self.x, -lr * direction, self.carried, self.curvature)
