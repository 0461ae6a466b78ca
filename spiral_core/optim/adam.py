"""Adam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError
from spiral_core.nn import Parameter
from spiral_core.optim.optimizer import Optimizer, check_gradients


class Adam(Optimizer):
    r"""Adam: a rate for each weight, from running means of the gradient and of its square.

    .. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
              w \leftarrow w - \eta \, \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}

    with m = v = 0 and t = 0 at first.

    Parameters
    ----------
    parameters : sequence of Parameter
    lr : float               eta, finite and > 0
    betas : (float, float)   beta1 and beta2, each in [0, 1)
    eps : float              epsilon, > 0
    weight_decay : float     lambda, >= 0; added to the gradient, as PyTorch's Adam and unlike AdamW

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
    >>> Adam([w], lr=0.1).step()
    >>> round(float(w.value[0]), 6)
    0.9

    Notes
    -----
    Source: Kingma and Ba 2015, algorithm 1.
    """

    KERNELS = ("adam_update",)

    def __init__(
        self,
        parameters: Sequence[Parameter],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay=weight_decay)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ArgumentError(f"betas must each be in [0, 1), got {betas!r}")
        if not (math.isfinite(eps) and eps > 0):
            raise ArgumentError(f"eps must be finite and > 0, got {eps!r}")
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = float(eps)
        self._steps = np.zeros((), np.int64)
        self._first = [np.zeros_like(parameter.value) for parameter in self.parameters]
        self._second = [np.zeros_like(parameter.value) for parameter in self.parameters]

    def slots(self) -> dict[str, AnyArray]:
        """Return the step count and both running means."""
        slots: dict[str, AnyArray] = {"steps": self._steps}
        for parameter, first, second in zip(self.parameters, self._first, self._second, strict=True):
            slots[f"first.{parameter.name}"] = first
            slots[f"second.{parameter.name}"] = second
        return slots

    def _refuse(self, name: str, value: AnyArray) -> str | None:
        if (name == "steps" or name.startswith("second.")) and (value < 0).any():
            return "cannot be negative"
        return None

    def step(self) -> None:
        """Update every parameter."""
        check_gradients(self.parameters)
        self._steps += 1
        t = int(self._steps)
        beta1, beta2 = self.betas
        for parameter, first, second in zip(self.parameters, self._first, self._second, strict=True):
            dtype = parameter.value.dtype
            kernels.adam_update(
                parameter.value.reshape(-1),
                parameter.grad.reshape(-1),
                first.reshape(-1),
                second.reshape(-1),
                kernels.scalar(self._lr / (1 - beta1**t), dtype),
                kernels.scalar(beta1, dtype),
                kernels.scalar(1 - beta1, dtype),
                kernels.scalar(beta2, dtype),
                kernels.scalar(1 - beta2, dtype),
                kernels.scalar(self.eps, dtype),
                kernels.scalar(self.weight_decay, dtype),
                kernels.scalar(math.sqrt(1 - beta2**t), dtype),
            )
