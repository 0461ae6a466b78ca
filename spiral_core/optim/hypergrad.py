r"""The hypergrad step of the reference system, kept for parity, and its tape.

.. math:: u(g) = \frac{g}{1 + |\kappa| g^2}, \qquad A \leftarrow \mathrm{sat}(A + u(g)), \qquad
          w' = \mathrm{sat}\Bigl(w - \frac{\eta}{1 + |\kappa| w^2} A\Bigr), \qquad
          \mathrm{row} \leftarrow \mathrm{row}\,\frac{\tanh(\rho / s)}{\rho}, \quad \rho = \|\mathrm{row}\|

element by element, with :math:`s = \sqrt{-\kappa}`. This is not Riemannian descent: the rows are pulled in at *every*
step, with a zero gradient too, and u falls again beyond 1/s. For that see `spiral_core.optim.riemannian`.
"""

from __future__ import annotations

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import NonFiniteError
from spiral_core.zspace import check_curvature, root_curvature

SATURATION = 1e6
"""L: sums beyond it are bent back. The reference system's value."""
POROSITY = 0.2
"""The reference system's value; a quarter of it is the largest share that `saturate` takes off."""
_MOST_BENT = 0.25 * POROSITY


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
    bent: Float = np.where(beyond, np.sign(v) * SATURATION * (1 - _MOST_BENT * share), v).astype(v.dtype)
    return bent


def _rows(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return how many rows there are, and how far apart they and their elements lie.

    A row is a line of a matrix, all of a vector, the taps and channels of one filter.
    """
    if len(shape) == 1:
        return 1, shape[0], 1
    return (shape[0], shape[1], 1) if len(shape) == 2 else (shape[-1], 1, shape[-1])


def gather(total: Float, grad: Float, curvature: float) -> None:
    r"""Add a compressed gradient to a tape in place: :math:`A \leftarrow \mathrm{sat}(A + u(g))`.

    :math:`u(g) = g / (1 + |\kappa| g^2)` is the identity for small g, at most 1/(2s), then falling.
    """
    kappa = -check_curvature(curvature)
    kernels.gather_compressed(total.reshape(-1), grad.reshape(-1), kappa, SATURATION, _MOST_BENT)


def step(value: Float, direction: Float, curvature: float, lr: float) -> None:
    r"""Step weights in place with rate ``lr`` against ``direction``, which is A or what momentum made of it.

    Then the rows are pulled in; one of zeros stays.
    """
    kernels.pull_update(
        value.reshape(-1),
        direction.reshape(-1),
        *_rows(value.shape),
        lr,
        -curvature,
        root_curvature(curvature),
        SATURATION,
        _MOST_BENT,
    )


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
        gather(self.total, grad, self.curvature)

    def accumulate_pair(self, prediction: Float, target: Float) -> None:
        """Add the difference of a prediction and its target, not compressed."""
        self.total[...] = saturate(self.total + prediction - target)

    def apply(self, value: Float, lr: float) -> None:
        """Step ``value`` in place, and clear the tape."""
        step(value, self.total, self.curvature, lr)
        self.total.fill(0)
