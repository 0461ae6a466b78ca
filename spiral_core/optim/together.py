"""Straight steps with momentum of all parameters in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import AnyArray, Float
from spiral_core.nn import Parameter


class Together:
    """Parameters of one dtype, with the arrays that a step of momentum needs, as the kernel finds them.

    Parameters
    ----------
    parameters : sequence of Parameter
    velocities : sequence of array       v of each
    decays : sequence of float           lambda of each
    terms : object                       what the decays were found by
    """

    def __init__(
        self, parameters: Sequence[Parameter], velocities: Sequence[Float], decays: Sequence[float], terms: object
    ) -> None:
        self._parameters, self._terms = list(parameters), terms
        # Held, so that their addresses stay theirs.
        self._arrays = [(p.value, p.grad, v) for p, v in zip(parameters, velocities, strict=True)]
        self._places = np.array([[*map(_address, row), row[0].size] for row in self._arrays], np.int64)
        self._decays = np.array(decays, self._arrays[0][0].dtype)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Make nothing of a copy: the arrays that are copied with it lie elsewhere."""
        return type(None), ()

    @classmethod
    def of(
        cls, parameters: Sequence[Parameter], velocities: Sequence[Float], decays: Sequence[float], terms: object
    ) -> Together | None:
        """Return them together, or None where there are none or an array is one that a kernel would not take."""
        rows = [(p.value, p.grad, v) for p, v in zip(parameters, velocities, strict=True)]
        fit = all(_fits(array, row[0].shape, rows[0][0].dtype) for row in rows for array in row)
        return cls(parameters, velocities, decays, terms) if rows and fit else None

    def fits(self, parameters: Sequence[Parameter], slots: Mapping[str, Mapping[str, AnyArray]], terms: object) -> bool:
        """Tell whether these are still the parameters and terms, and the arrays still theirs."""
        return (
            parameters == self._parameters
            and terms == self._terms
            and all(
                parameter.value is value and parameter.grad is grad and slots[parameter.name]["velocity"] is velocity
                for parameter, (value, grad, velocity) in zip(parameters, self._arrays, strict=True)
            )
        )

    def step(self, lr: float, momentum: float) -> None:
        """Step all of them in place as `SGD` would, to the last bit."""
        dtype = self._decays.dtype
        kernels.sgd_update_all(self._places, self._decays, kernels.scalar(lr, dtype), kernels.scalar(momentum, dtype))


def _fits(array: Float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    # What compiled code asks of the arrays it is given; of an address it can ask nothing.
    flags = array.flags
    whole = flags.c_contiguous and flags.writeable and flags.aligned
    return whole and array.shape == shape and array.dtype == dtype and dtype.isnative


def _address(array: Float) -> int:
    return int(array.ctypes.data)
