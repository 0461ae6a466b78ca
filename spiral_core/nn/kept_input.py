"""What a norm keeps of a pass whose whitened values were never written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import StateError
from spiral_core.nn.observation import QUANTILE_SAMPLE

UNCHANGED = 1e-5
"""By how much tanh(s n) may differ when n is computed again from the same input: some roundings of float32."""


@dataclass(frozen=True, slots=True, eq=False)
class InputValues:
    """Values of a pass that has kept its input and written ``tangent``.

    Parameters
    ----------
    name : str               of the layer, for messages
    x : (R, F)               the input
    tangent : (E,)           t
    mean, inv_std : (F,) or (R, 1)
        Statistics of each feature or of each row.
    s : float                sqrt(-curvature)
    """

    name: str
    x: Float
    tangent: Float
    mean: AnyArray
    inv_std: AnyArray
    s: float

    def arrays(self) -> tuple[Float, Float]:
        """Compute all of n.

        Raises
        ------
        StateError
            The input has changed since, so that n is lost.
        """
        with np.errstate(all="ignore"):
            n: Float = ((self.x - self.mean) * self.inv_std).astype(self.tangent.dtype).reshape(-1)
            bent = np.tanh(n.dtype.type(self.s) * n)
        if not np.allclose(bent, self.tangent, rtol=0, atol=UNCHANGED, equal_nan=True):
            raise StateError(
                f"{self.name}: the input has changed since its forward pass: ask for telemetry before writing to it, "
                "or give forward a copy"
            )
        return n, self.tangent

    def tangents(self, stride: int) -> Float:
        """Return every stride-th t, at most `QUANTILE_SAMPLE` of them."""
        return self.tangent[::stride][:QUANTILE_SAMPLE]
