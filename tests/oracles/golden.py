"""Arrays that another program has computed, and a record of which of them were reproduced."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spiral_core.arrays import AnyArray

TOLERANCE = 1e-5

INPUTS = {"x", "w", "b", "go", "cfg", "x1", "x2", "x3", "gamma", "beta"}
"""Last parts of the names of arrays that are fed in; every other array is a result to reproduce."""


class Golden:
    """The arrays, and the names of those that were reproduced."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            self.arrays: dict[str, AnyArray] = dict(arrays)
        self.reproduced: set[str] = set()

    def __getitem__(self, name: str) -> AnyArray:
        return self.arrays[name]

    def same(self, name: str, ours: AnyArray | float, tolerance: float = TOLERANCE) -> None:
        expected = self.arrays[name]
        value = np.asarray(ours)
        assert value.size == expected.size, name
        np.testing.assert_allclose(value.reshape(expected.shape), expected, rtol=0, atol=tolerance, err_msg=name)
        self.reproduced.add(name)

    def left_out(self) -> set[str]:
        """Return the results that no call of `same` has reproduced."""
        return {name for name in self.arrays if name.rsplit(".", 1)[-1] not in INPUTS} - self.reproduced
