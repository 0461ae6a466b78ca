"""Schedules of the learning rate: they *set* a rate from a step count, and multiply nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError, StateDictError
from spiral_core.nn import Module
from spiral_core.optim.optimizer import Optimizer, check_rate


class Scheduler(ABC):
    """A rate for each call, counted from 1."""

    def __init__(self) -> None:
        self._count = 0

    @abstractmethod
    def rate_at(self, count: int) -> float:
        """Return the rate of call ``count`` >= 1, or for 0 the rate before any call."""

    @property
    def count(self) -> int:
        """Number of calls of `step` since the start or the last `reset`."""
        return self._count

    def step(self) -> float:
        """Advance by one and return the rate."""
        self._count += 1
        return self.rate_at(self._count)

    def current_lr(self) -> float:
        """Return the rate that `step` returned last; before any step, the one to start with."""
        return self.rate_at(self._count)

    def reset(self) -> None:
        """Start again."""
        self._count = 0

    def step_optimizer(self, optimizer: Optimizer, module: Module | None = None) -> float:
        """Advance by one, set the optimizer's rates, and return the rate.

        Parameters
        ----------
        optimizer : Optimizer
            A `ZSpaceOptimizer` has its fallback rate set; a mode's own rate keeps its ratio to that.
        module : Module, optional
            Rates belong to the optimizer here, not to the module, so this may be left out.
        """
        del module
        rate = self.rate_at(self._count + 1)
        optimizer.set_rates(rate)
        self._count += 1
        return rate

    def state_dict(self) -> dict[str, AnyArray]:
        """Return the count."""
        return {"count": np.array(self._count)}

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave.

        Raises
        ------
        StateDictError
            Not exactly a count >= 0. Nothing was loaded.
        """
        given = np.asarray(state.get("count", -1.0))
        if set(state) != {"count"} or given.shape != () or not np.issubdtype(given.dtype, np.integer) or given < 0:
            raise StateDictError("state dict must hold exactly count, an integer >= 0")
        self._count = int(given)


class ConstantScheduler(Scheduler):
    r"""The same rate for ever, after a linear warm-up: :math:`\eta_n = b \min(1, n / w)`.

    Parameters
    ----------
    base : float    b, finite and > 0
    warmup : int    w, >= 0 calls
    """

    def __init__(self, base: float, warmup: int = 0) -> None:
        super().__init__()
        self.base = check_rate(base)
        self.warmup = _count("warmup", warmup, 0)

    def rate_at(self, count: int) -> float:
        """Return the rate of a call."""
        return self.base * count / self.warmup if count < self.warmup else self.base


class WarmupCosineScheduler(Scheduler):
    r"""Rise in a line to the base rate, then fall along half a cosine to the least one, and stay there.

    .. math:: \eta_n = \begin{cases} m + (b - m)\, n / w & n \le w \\
              m + (b - m)\,\tfrac12 (1 + \cos(\pi e / D)) & n > w,\; D = \max(T - w, 1),\; e = \min(n - w, D)
              \end{cases}

    and never below m. The base rate comes with call w, the least one with call T.

    Parameters
    ----------
    base : float       b, finite and > 0
    minimum : float    m, finite and >= 0; above b it is a constant rate
    warmup : int       w, in [0, T]
    total : int        T, >= 1

    Raises
    ------
    ArgumentError
        A value out of bounds.

    Examples
    --------
    >>> from spiral_core.optim import WarmupCosineScheduler
    >>> schedule = WarmupCosineScheduler(0.1, 0.01, 2, 6)
    >>> [round(schedule.step(), 4) for _ in range(7)]
    [0.055, 0.1, 0.0868, 0.055, 0.0232, 0.01, 0.01]

    Notes
    -----
    Source: Loshchilov and Hutter 2017, equation 5, without restarts.
    """

    def __init__(self, base: float, minimum: float, warmup: int, total: int) -> None:
        super().__init__()
        self.base = check_rate(base)
        if not (math.isfinite(minimum) and minimum >= 0):
            raise ArgumentError(f"minimum must be finite and >= 0, got {minimum!r}")
        self.minimum = float(minimum)
        self.warmup = _count("warmup", warmup, 0)
        self.total = _count("total", total, 1)
        if self.warmup > self.total:
            raise ArgumentError(f"warmup must be at most total {self.total}, got {self.warmup}")

    def rate_at(self, count: int) -> float:
        """Return the rate of a call."""
        if count == 0:
            return min(self.minimum, self.base) if self.warmup else self.base
        rise = self.base - self.minimum
        if count <= self.warmup:
            rate = self.minimum + rise * count / self.warmup
        else:
            rate = self.minimum + rise * self._share(count - self.warmup)
        return max(rate, self.minimum)

    def _share(self, elapsed: int) -> float:
        span = max(self.total - self.warmup, 1)
        return _half_cosine(min(elapsed, span), span)


class WarmupCosineRestartScheduler(WarmupCosineScheduler):
    r"""The same, but after call T the cosine starts again from the base rate, in periods of T - w calls.

    Call T is the first one at the least rate, and call T + 1 is the first step down from the base rate again.
    """

    def _share(self, elapsed: int) -> float:
        span = max(self.total - self.warmup, 1)
        return _half_cosine((elapsed - 1) % span + 1, span)


def _half_cosine(elapsed: int, span: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * elapsed / span))


def _count(what: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{what} must be an integer >= {least}, got {value!r}")
    return int(value)
