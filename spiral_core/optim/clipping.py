"""Clipping of gradients by their common norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spiral_core.errors import ArgumentError
from spiral_core.nn import Parameter
from spiral_core.optim.optimizer import gradient_norm


def check_max_norm(max_norm: float) -> float:
    """Return a bound on the norm as a float.

    Raises
    ------
    ArgumentError
        Not finite, or not above zero.
    """
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise ArgumentError(f"max_norm must be finite and > 0, got {max_norm!r}")
    return float(max_norm)


def clip_factor(norm: float, max_norm: float) -> float:
    """Return what gradients of this norm are multiplied by: 1 within the bound and for a norm that is not finite."""
    return max_norm / norm if math.isfinite(norm) and norm > max_norm else 1.0


def clip_gradient_norm(parameters: Sequence[Parameter], max_norm: float) -> float:
    r"""Scale all gradients together so that their norm is at most ``max_norm``.

    .. math:: g \leftarrow g \,\min(1, M / \|g\|), \qquad \|g\| \text{ over all parameters together}

    Parameters
    ----------
    parameters : sequence of Parameter   their ``grad`` is scaled in place
    max_norm : float                     M, finite and > 0

    Returns
    -------
    float
        The norm before clipping. When it is NaN or infinite, the gradients are left as they are, so that it is seen.

    Raises
    ------
    ArgumentError
        A bound that is not finite and > 0; nothing was scaled.

    Notes
    -----
    Source: Pascanu, Mikolov and Bengio 2013, algorithm 1. Gradients within the bound keep every bit. PyTorch divides by
    the norm plus 1e-6; here the bound is reached exactly.
    """
    bound = check_max_norm(max_norm)
    norm = gradient_norm(parameters)
    factor = clip_factor(norm, bound)
    if factor < 1.0:
        for parameter in parameters:
            parameter.grad *= parameter.grad.dtype.type(factor)
    return norm
