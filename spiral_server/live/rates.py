"""How often somebody may ask: a bucket of tries for each, that fills up again at a steady rate."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

REMEMBERED = 10_000
"""Buckets that are kept; the one that was not asked for longest is forgotten, and is full when it comes back."""


class Allowance:
    """Buckets by key.

    Parameters
    ----------
    rate : float
        Tries per second that each key gets back; 0 for no limit.
    burst : float
        Tries that a bucket holds.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take one try; give 0, or the seconds after which there will be one again.

        ``now`` is of any clock that does not run backwards.
        """
        if self._rate <= 0:
            return 0.0
        level, since = self._buckets.pop(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - since) * self._rate)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._buckets[key] = (level if wait else level - 1, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return wait


def retry_after(seconds: float) -> str:
    """Give the value of a Retry-After header: whole seconds, rounded up."""
    return str(max(1, math.ceil(seconds)))
