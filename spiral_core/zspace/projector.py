r"""The element-wise projector that bends a whitened value into the ball, as a NumPy definition.

.. math:: p = (1-g)\,n + g\,\tanh(s n)/s, \qquad J = \partial p/\partial n = (1-g) + g\,(1-\tanh^2(s n)), \qquad
          r = |\tanh(s n)|/s
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spiral_core.arrays import Float
from spiral_core.zspace.ball import check_gain, root_curvature

GAIN_FLOOR = float(np.finfo(np.float32).eps)
"""At or below this gain the projector is the identity (the reference system's rule, in both float types)."""


class Projection(NamedTuple):
    """What `project` returns; each array has the shape of the input."""

    projected: Float
    jacobian: Float
    radius: Float


def effective_gain(gain: float) -> float:
    """Return the gain that the projector uses: exactly 0 at or below `GAIN_FLOOR`."""
    value = check_gain(gain)
    return 0.0 if value <= GAIN_FLOOR else value


def project(normed: Float, curvature: float, gain: float) -> Projection:
    r"""Project whitened values.

    Parameters
    ----------
    normed : any shape   n, whitened values
    curvature : float    kappa < 0
    gain : float         g in [0, 1]

    Returns
    -------
    Projection
        p, J and r; r is :math:`|\tanh(s n)|/s` at every gain, also at 0.

    Raises
    ------
    ArgumentError
        A curvature or gain out of bounds.
    """
    s, g = root_curvature(curvature), effective_gain(gain)
    t = np.tanh(s * normed)
    return Projection((1.0 - g) * normed + g * t / s, (1.0 - g) + g * (1.0 - t * t), np.abs(t) / s)
