"""The quantile that a budget is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that at least this share of the values does not exceed."""
    # A product such as 0.99 * 500 may lie beside the whole number that it stands for.
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]
