"""Scaling of the loss, so that small gradients survive a narrow float type."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError, StateDictError, StateError
from spiral_core.nn import Module
from spiral_core.optim import Optimizer, ZSpaceOptimizer
from spiral_core.optim.optimizer import gradient_is_finite


class GradScaler:
    r"""Scale the loss by S, divide the gradients by S, and adapt S.

    .. math:: S \leftarrow \begin{cases} b\,S & \text{a gradient overflowed (the step is skipped)} \\
              a\,S & \text{after } k \text{ good steps in a row} \end{cases}, \quad \text{kept in } [lo, hi]

    Parameters
    ----------
    scale : float       S at first, finite and > 0
    growth : float      a, finite and > 1
    backoff : float     b, in (0, 1)
    interval : int      k, >= 1

    Raises
    ------
    ArgumentError
        A value out of bounds.

    Examples
    --------
    >>> from spiral_core.amp import GradScaler
    >>> scaler = GradScaler(2.0, 2.0, 0.5, 200).with_limits(1.0, 1024.0)
    >>> scaler.scale_loss(0.25)
    0.5

    Notes
    -----
    Source: Micikevicius et al. 2018, section 3.2. Gradients are divided before an optimizer bends them, so each mode
    of `ZSpaceOptimizer` steps as without scaling. Gradients of several passes are divided together, in `step`: do not
    move scaled ones onto tapes with `ZSpaceOptimizer.accumulate`.
    """

    def __init__(self, scale: float = 65536.0, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise ArgumentError(f"scale must be finite and > 0, got {scale!r}")
        if not (math.isfinite(growth) and growth > 1):
            raise ArgumentError(f"growth must be finite and > 1, got {growth!r}")
        if not 0 < backoff < 1:
            raise ArgumentError(f"backoff must be in (0, 1), got {backoff!r}")
        if isinstance(interval, bool) or not isinstance(interval, (int, np.integer)) or interval < 1:
            raise ArgumentError(f"interval must be an integer >= 1, got {interval!r}")
        self.growth, self.backoff, self.interval = float(growth), float(backoff), int(interval)
        self.limits = (1.0, 65536.0)
        self._scale, self._good, self._skipped, self._unscaled = float(scale), 0, 0, False

    @property
    def scale(self) -> float:
        """S, which the next loss is multiplied by."""
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        """Set it; good steps are counted anew.

        Raises
        ------
        ArgumentError
            Not a number within the limits; nothing changed.
        """
        low, high = self.limits
        if not low <= value <= high:
            raise ArgumentError(f"scale must be within its limits, {low:g} to {high:g}, got {value!r}")
        self._scale, self._good = float(value), 0

    @property
    def skipped(self) -> int:
        """Number of steps skipped so far."""
        return self._skipped

    def with_limits(self, low: float, high: float) -> GradScaler:
        """Keep S in [low, high] from its next change on, and return the scaler itself.

        Raises
        ------
        ArgumentError
            Not finite with 0 < low <= high; nothing changed.
        """
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high):
            raise ArgumentError(f"limits must be finite with 0 < low <= high, got {low!r} and {high!r}")
        self.limits = (float(low), float(high))
        return self

    def scale_loss(self, loss: float) -> float:
        """Return the loss times S."""
        return loss * self._scale

    def scale_gradient(self, grad: Float) -> None:
        """Multiply the gradient of the loss by S in place, which is what `scale_loss` means where backward begins."""
        with np.errstate(all="ignore"):
            np.multiply(grad, self._scale, out=grad)

    def unscale(self, module: Module) -> None:
        """Divide the gradients by S, for those who want to clip them before `step`, which then does not divide again.

        Raises
        ------
        StateError
            They were divided already.
        """
        if self._unscaled:
            raise StateError("the gradients were unscaled already; call step first")
        with np.errstate(all="ignore"):
            for parameter in module.parameters():
                parameter.grad /= parameter.grad.dtype.type(self._scale)
        self._unscaled = True

    def update(self, overflow: bool) -> None:
        """Adapt S after one step."""
        self._good = 0 if overflow else self._good + 1
        if overflow:
            self._change(self.backoff)
        elif self._good >= self.interval:
            self._good = 0
            self._change(self.growth)

    def _change(self, factor: float) -> None:
        low, high = self.limits
        self._scale = min(max(self._scale * factor, low), high)

    def step(self, optimizer: Optimizer, module: Module) -> bool:
        """Unscale, step and adapt S; where a gradient is NaN or infinite, skip the step and set gradients to zero.

        Returns
        -------
        bool
            Whether the step was taken.
        """
        if not self._unscaled:
            self.unscale(module)
        if not all(gradient_is_finite(parameter) for parameter in module.parameters()):
            self.skip(optimizer, module)
            return False
        self._unscaled = False
        if isinstance(optimizer, ZSpaceOptimizer):
            optimizer.step(module)
        else:
            optimizer.step()
        self.update(False)
        return True

    def skip(self, optimizer: Optimizer, module: Module) -> None:
        """Skip a step whose gradients, or whose loss, cannot be used: clear them, count, and lower the scale."""
        self._unscaled = False
        self._skipped += 1
        module.zero_grad()
        optimizer.zero_grad()
        self.update(True)

    def state_dict(self) -> dict[str, AnyArray]:
        """Return the scale and the counts."""
        return {"scale": np.array(self._scale), "good": np.array(self._good), "skipped": np.array(self._skipped)}

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave; all of it or nothing.

        Raises
        ------
        StateDictError
            A name missing or unknown, or a value out of bounds. Nothing was loaded.
        """
        if set(state) != {"scale", "good", "skipped"}:
            raise StateDictError(f"state dict must hold exactly scale, good and skipped, got {sorted(state)}")
        try:
            scale, good, skipped = float(state["scale"]), int(state["good"]), int(state["skipped"])
        except (TypeError, ValueError, OverflowError) as error:
            raise StateDictError(f"scale, good or skipped is no number: {error}") from error
        if not (math.isfinite(scale) and scale > 0 and good >= 0 and skipped >= 0):
            raise StateDictError(f"scale must be > 0, good and skipped >= 0, got {scale}, {good}, {skipped}")
        self._scale, self._good, self._skipped, self._unscaled = scale, good, skipped, False
