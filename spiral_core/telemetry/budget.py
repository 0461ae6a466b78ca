"""Which steps are observed, so that observing takes no more than its share of the time.

Pure arithmetic: whoever holds the clock tells how long a step and an observation took. Nothing here is an input of a
run, for an observation changes no weight.
"""

from __future__ import annotations

from collections import deque
from statistics import median

RECENT = 9
"""Observations whose median is the price of the next one: one that was interrupted for 10 ms must not silence the next
hundred."""

SAVED = 2.0
"""Observations that can be saved up for: more would be spent in a burst after a long wait."""


class ObservationBudget:
    """Earns a share of each step's time, and allows an observation when there is enough for one.

    Parameters
    ----------
    percent : float
        Share of the time of a step, 0 to 100; 0 allows nothing and 100 everything. May be changed at any time.

    Examples
    --------
    >>> budget = ObservationBudget(2.0)
    >>> budget.allows()
    True
    >>> budget.spend(0.0001)
    >>> observed = 0
    >>> for _ in range(100):
    ...     budget.earn(0.001)
    ...     if budget.allows():
    ...         budget.spend(0.0001)
    ...         observed += 1
    >>> observed
    19

    Notes
    -----
    What is spent stays below share x time and idle time, plus two observations and those that were forced: the first
    one ever, which warms caches up and says nothing of the next, is free, and the second is made on credit.
    """

    def __init__(self, percent: float) -> None:
        self.percent = percent
        self._warmed = False
        self._credit = 0.0
        self._costs: deque[float] = deque(maxlen=RECENT)

    @property
    def price(self) -> float:
        """What an observation is expected to take, in seconds; 0 before the first one."""
        return median(self._costs) if self._costs else 0.0

    def earn(self, seconds: float, idle: float = 0.0) -> None:
        """Add the share of a step that took so long, and all of the time that the loop then sleeps."""
        if self._costs:
            self._credit = min(self._credit + seconds * self.percent / 100 + idle, SAVED * self.price)

    def allows(self) -> bool:
        """Tell whether the next step may be observed."""
        if self.percent <= 0:
            return False
        return self.percent >= 100 or self._credit >= self.price

    def spend(self, seconds: float) -> None:
        """Pay for an observation, allowed or not, that took so long: at the price that is then the median."""
        if not self._warmed:
            self._warmed = True
            return
        self._costs.append(seconds)
        # Debts are bounded as savings are, or observations that a person forced would be followed by a long silence.
        self._credit = max(self._credit - self.price, -SAVED * self.price)
