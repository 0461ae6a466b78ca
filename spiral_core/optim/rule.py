"""How a gradient becomes a direction, in each geometry: plain, with momentum, or Adam's."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError
from spiral_core.optim import hypergrad, riemannian

_STRAIGHT = ("sgd_update", "sgd_update_all")
_TAPED = ("gather_compressed", "pull_update", "longest_column")
_GEODESIC = ("longest_column", "geodesic_update", "geodesic_adam_update")
KERNELS = tuple(dict.fromkeys(("sum_of_squares", *_STRAIGHT, "adam_update", *_TAPED, *_GEODESIC)))
"""What the steps of all modes run."""


@lru_cache(maxsize=16)
def _scalars(dtype: np.dtype[Any], *numbers: float) -> tuple[float, ...]:
    """Return numbers in the float type of a kernel's arrays; all parameters of a step share them."""
    return tuple(kernels.scalar(number, dtype) for number in numbers)


class Rule:
    """Momentum or Adam, for one parameter at a time; what it remembers lies in slots that the caller keeps.

    Parameters
    ----------
    momentum : float                 mu, in [0, 1)
    adam : (float, float) or None    beta1 and beta2, each in [0, 1)
    eps : float                      epsilon, > 0

    Raises
    ------
    ArgumentError
        A value out of bounds, or both momentum and Adam.
    """

    def __init__(self, momentum: float, adam: tuple[float, float] | None, eps: float) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ArgumentError(f"momentum must be in [0, 1), got {momentum!r}")
        if adam is not None and (len(adam) != 2 or not all(0.0 <= beta < 1.0 for beta in adam)):
            raise ArgumentError(f"adam must be two betas in [0, 1), got {adam!r}")
        if adam is not None and momentum:
            raise ArgumentError("choose momentum or adam: beta1 is Adam's momentum")
        if not (math.isfinite(eps) and eps > 0):
            raise ArgumentError(f"eps must be finite and > 0, got {eps!r}")
        self.momentum = float(momentum)
        self.adam = None if adam is None else (float(adam[0]), float(adam[1]))
        self.eps = float(eps)

    def kernels(self, mode: str) -> tuple[str, ...]:
        """Return the kernels of a step in the mode of this name; norms and biases take straight steps in each."""
        straight = _STRAIGHT if self.adam is None else ("adam_update",)
        return ("sum_of_squares", *straight, *{"hypergrad": _TAPED, "riemannian": _GEODESIC}.get(mode, ()))

    def slots(self, value: Float, *, points: bool) -> dict[str, AnyArray]:
        """Return empty slots for a parameter; ``points``: one second moment for each point."""
        if self.adam is None:
            return {"velocity": np.zeros_like(value)}
        second = np.zeros(riemannian.as_points(value).shape[1], value.dtype) if points else np.zeros_like(value)
        return {"steps": np.zeros((), np.int64), "first": np.zeros_like(value), "second": second}

    def gather(self, tape: Float, grad: Float, curvature: float | None) -> None:
        """Add one more gradient to the tape, compressed where there is a curvature."""
        if curvature is None:
            tape += grad
        else:
            hypergrad.gather(tape, grad, curvature)

    def straight(self, value: Float, grad: Float, slots: dict[str, AnyArray], lr: float, decay: float) -> None:
        """Step ``value`` in place as `SGD` or `Adam` would, to the last bit."""
        dtype = value.dtype
        flat = value.reshape(-1), np.ascontiguousarray(grad).reshape(-1)
        if self.adam is None:
            kernels.sgd_update(*flat, slots["velocity"].reshape(-1), *_scalars(dtype, lr, self.momentum, decay))
            return
        slots["steps"] += 1
        t = int(slots["steps"])
        beta1, beta2 = self.adam
        numbers = (lr / (1 - beta1**t), beta1, 1 - beta1, beta2, 1 - beta2, self.eps, decay, math.sqrt(1 - beta2**t))
        kernels.adam_update(
            *flat,
            slots["first"].reshape(-1),
            slots["second"].reshape(-1),
            *_scalars(dtype, *numbers),
        )

    def hypergrad(
        self,
        value: Float,
        total: Float,
        slots: dict[str, AnyArray],
        curvature: float,
        lr: float,
        decay: float,
        turned: Float,
    ) -> None:
        """Step ``value`` in place; ``total`` is the tape's sum, to which the decay is added uncompressed.

        ``turned``, of the shape of ``value``, is overwritten.
        """
        # A straight step of rate 1 from zero is the direction with its sign turned.
        if decay:
            np.multiply(value, value.dtype.type(decay), out=turned)
            total += turned
        turned.fill(0)
        self.straight(turned, total, slots, 1.0, 0.0)
        hypergrad.step(value, turned, curvature, -lr)

    def riemannian(
        self, value: Float, grad: Float, slots: dict[str, AnyArray], curvature: float, lr: float, decay: float
    ) -> None:
        """Step the points of ``value`` in place along geodesics."""
        points = riemannian.as_points
        x, g = points(value), points(grad)
        if self.adam is None:
            riemannian.momentum_step(x, g, points(slots["velocity"]), curvature, lr, self.momentum, decay)
            return
        slots["steps"] += 1
        first, count = points(slots["first"]), int(slots["steps"])
        riemannian.adam_step(x, g, first, slots["second"], curvature, lr, self.adam, self.eps, decay, count)
