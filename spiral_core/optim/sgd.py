"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError
from spiral_core.nn import Parameter
from spiral_core.optim.optimizer import Optimizer, check_gradients


class SGD(Optimizer):
    r"""Gradient descent with momentum.

    .. math:: v \leftarrow \mu v + g + \lambda w, \qquad w \leftarrow w - \eta v

    with v = 0 at first; as PyTorch's SGD with dampening 0.

    Parameters
    ----------
    parameters : sequence of Parameter
    lr : float               eta, finite and > 0
    momentum : float         mu, in [0, 1)
    weight_decay : float     lambda, >= 0

    Raises
    ------
    ArgumentError
        A value out of bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from spiral_core.nn import Parameter
    >>> w = Parameter("w", np.array([1.0]))
    >>> w.grad[:] = 2.0
    >>> SGD([w], lr=0.1, momentum=0.9).step()
    >>> float(w.value[0])
    0.8

    Notes
    -----
    Source: Sutskever, Martens, Dahl, Hinton 2013, with the rate outside the velocity, so that a rate that is steered
    acts at once and not through old gradients.
    """

    KERNELS = ("sgd_update",)

    def __init__(
        self, parameters: Sequence[Parameter], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, weight_decay=weight_decay)
        if not 0.0 <= momentum < 1.0:
            raise ArgumentError(f"momentum must be in [0, 1), got {momentum!r}")
        self.momentum = float(momentum)
        self._velocity = [np.zeros_like(parameter.value) for parameter in self.parameters]

    def slots(self) -> dict[str, AnyArray]:
        """Return the velocities."""
        return {f"velocity.{parameter.name}": v for parameter, v in zip(self.parameters, self._velocity, strict=True)}

    def step(self) -> None:
        """Update every parameter."""
        check_gradients(self.parameters)
        for parameter, velocity in zip(self.parameters, self._velocity, strict=True):
            dtype = parameter.value.dtype
            kernels.sgd_update(
                parameter.value.reshape(-1),
                parameter.grad.reshape(-1),
                velocity.reshape(-1),
                kernels.scalar(self._lr, dtype),
                kernels.scalar(self.momentum, dtype),
                kernels.scalar(self.weight_decay, dtype),
            )
