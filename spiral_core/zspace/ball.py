r"""The ball of curvature :math:`\kappa < 0`: radius :math:`1/s` with :math:`s = \sqrt{-\kappa}`."""

from __future__ import annotations

import math

from spiral_core.errors import ArgumentError


def check_curvature(curvature: float) -> float:
    """Return ``curvature`` as a float.

    Raises
    ------
    ArgumentError
        Not finite, or not below zero.
    """
    value = _number("curvature", curvature)
    if not (math.isfinite(value) and value < 0):
        raise ArgumentError(f"curvature must be finite and < 0, got {curvature!r}")
    return value


def check_gain(gain: float) -> float:
    """Return a projector gain as a float.

    Raises
    ------
    ArgumentError
        Not finite, or outside [0, 1].
    """
    value = _number("projector gain", gain)
    if not 0.0 <= value <= 1.0:
        raise ArgumentError(f"projector gain must be a finite number in [0, 1], got {gain!r}")
    return value


def _number(what: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{what} must be a number, got {value!r}") from error


def root_curvature(curvature: float) -> float:
    r"""Return :math:`s = \sqrt{-\kappa}`, the inverse of the ball's radius."""
    return math.sqrt(-check_curvature(curvature))


def conformal_factor(radius: float, curvature: float) -> float:
    r"""Return :math:`\lambda = 2 / (1 - (s r)^2)`, by which the ball's metric stretches lengths at radius r.

    Parameters
    ----------
    radius : float      r, in units of length, at most 1/s
    curvature : float   kappa < 0

    Returns
    -------
    float
        At least 2; infinity on the boundary and beyond; NaN for a NaN radius.
    """
    relative = root_curvature(curvature) * radius
    if math.isnan(relative):
        return math.nan
    gap = 1.0 - relative * relative
    return 2.0 / gap if gap > 0.0 else math.inf
