r"""The hypergrad step of the reference system, kept for parity, and its tape.

.. math:: u(g) = \frac{g}{1 + |\kappa| g^2}, \qquad A \leftarrow \mathrm{sat}(A + u(g)), \qquad
          w' = \mathrm{sat}\Bigl(w - \frac{\eta}{1 + |\kappa| w^2} A\Bigr), \qquad
          \mathrm{row} \leftarrow \mathrm{row}\,\frac{\tanh(\rho / s)}{\rho}, \quad \rho = \|\mathrm{row}\|

element by element, with :math:`s = \sqrt{-\kappa}`. This is not Riemannian descent: the rows are pulled in at *every*
step, with a zero gradient too, and u falls again beyond 1/s. For that see `spiral_core.optim.riemannian`.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import Float
from spiral_core.errors import NonFiniteError
from spiral_core.zspace import check_curvature, root_curvature

SATURATION = 1e6
"""L: sums beyond it are bent back. The reference system's value."""
POROSITY = 0.2
"""The reference system's value; a quarter of it is the largest share that `saturate` takes off."""


def compress(grad: Float, curvature: float) -> Float:
    r"""Return :math:`u(g) = g / (1 + |\kappa| g^2)`: the identity for small g, at most 1/(2s), then falling."""
    kappa = -check_curvature(curvature)
    with np.errstate(over="ignore"):
        small: Float = grad / (1 + kappa * grad * grad)
    return small


def saturate(v: Float) -> Float:
    r"""Bend values beyond L back below it.

    .. math:: |v| \le L: v; \qquad \text{else}\;
              \mathrm{sign}(v)\, L \Bigl(1 - \tfrac{1}{4}\,0.2\,\frac{|v| - L}{|v| + L}\Bigr)
    """
    size = np.abs(v)
    beyond = size > SATURATION
    if not beyond.any():
        return v
    share = (np.where(beyond, size, SATURATION) - SATURATION) / (size + SATURATION)
    bent: Float = np.where(beyond, np.sign(v) * SATURATION * (1 - 0.25 * POROSITY * share), v).astype(v.dtype)
    return bent


def row_axes(ndim: int) -> tuple[int, ...]:
    """Return the axes of one row: features of a matrix, all of a vector, the taps and channels of one filter."""
    return (0,) if ndim == 1 else (1,) if ndim == 2 else tuple(range(ndim - 1))


def pull_rows(value: Float, curvature: float) -> Float:
    r"""Return the rows scaled to the length :math:`\tanh(\rho / s)`; a row of zeros stays."""
    length = np.sqrt(np.sum(value * value, axis=row_axes(value.ndim), keepdims=True))
    shorter = np.tanh(length / root_curvature(curvature))
    still = length == 0
    pulled: Float = value * np.where(still, 1, shorter / np.where(still, 1, length)).astype(value.dtype)
    return pulled


def stepped(value: Float, direction: Float, curvature: float, lr: float) -> Float:
    r"""Return the weights after one step of rate ``lr`` against ``direction`` (A, or what momentum made of it)."""
    kappa = -check_curvature(curvature)
    return pull_rows(saturate(value - lr / (1 + kappa * value * value) * direction), curvature)


class HypergradTape:
    """Gathers compressed gradients of one parameter.

    Parameters
    ----------
    total : array        A, written in place
    curvature : float    kappa < 0
    """

    def __init__(self, total: Float, curvature: float) -> None:
        self.total = total
        self.curvature = check_curvature(curvature)

    def accumulate(self, grad: Float) -> None:
        """Add one gradient, compressed: two calls add 2 u(g), not u(2 g).

        Raises
        ------
        NonFiniteError
            A NaN or an infinity; nothing was added.
        """
        if not np.isfinite(grad).all():
            raise NonFiniteError("a gradient has a value that is not finite; nothing was added to the tape")
        self.total[...] = saturate(self.total + compress(grad, self.curvature))

    def accumulate_pair(self, prediction: Float, target: Float) -> None:
        """Add the difference of a prediction and its target, not compressed."""
        self.total[...] = saturate(self.total + prediction - target)

    def apply(self, value: Float, lr: float) -> None:
        """Step ``value`` in place, and clear the tape."""
        value[...] = stepped(value, self.total, self.curvature, lr)
        self.total.fill(0)
