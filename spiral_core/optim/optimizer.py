"""What every optimizer has: parameters, a learning rate that can be steered, and a state that can be saved."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError, ShapeError, StateDictError
from spiral_core.nn import Parameter


class Optimizer(ABC):
    """Updates parameters from their gradients.

    Parameters
    ----------
    parameters : sequence of Parameter   updated in place
    lr : float                           learning rate, finite and > 0
    weight_decay : float                 L2 penalty, added to the gradient; finite and >= 0

    Raises
    ------
    ArgumentError
        No parameters, or a value out of bounds.
    """

    KERNELS: ClassVar[tuple[str, ...]] = ()
    """Names of the compiled kernels that the class runs."""

    def __init__(self, parameters: Sequence[Parameter], lr: float, *, weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ArgumentError("an optimizer needs at least one parameter")
        self.weight_decay = check_decay(weight_decay)
        self._lr = check_rate(lr)

    @property
    def lr(self) -> float:
        """Learning rate that the next step uses."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_rate(value)

    def set_rates(self, lr: float) -> None:
        """Set every rate from a schedule's value: as `lr`, but 0 is allowed, which ends many schedules."""
        self._lr = check_rate(lr, zero=True)

    @abstractmethod
    def step(self) -> None:
        """Update every parameter from its gradient; gradients stay as they are.

        Raises
        ------
        ShapeError
            A gradient has not the shape of its value; nothing was changed.
        """

    @abstractmethod
    def slots(self) -> dict[str, AnyArray]:
        """Return the optimizer's own arrays by name; the arrays themselves."""

    def _refuse(self, _name: str, _value: AnyArray) -> str | None:
        """Return why a finite array of the right shape and dtype cannot be loaded into a slot, or None."""
        return None

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for parameter in self.parameters:
            parameter.grad.fill(0)

    def state_dict(self) -> dict[str, AnyArray]:
        """Return copies of the optimizer's arrays and of its learning rate."""
        return {"lr": np.array(self._lr), **{name: array.copy() for name, array in self.slots().items()}}

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave; all of it or nothing.

        Raises
        ------
        StateDictError
            A name missing or unknown, a wrong shape or dtype, or a value that is not finite or out of bounds. Nothing
            was loaded.
        """
        slots = self.slots()
        values = checked_slots(slots, state, {"lr"}, self._refuse)
        try:
            rate = check_rate(float(state["lr"]), zero=True)
        except (ArgumentError, TypeError, ValueError) as error:
            raise StateDictError(f"lr: {error}") from error
        for name, array in slots.items():
            array[...] = values[name]
        self._lr = rate


def check_rate(lr: float, *, zero: bool = False) -> float:
    """Return a learning rate as a float.

    Raises
    ------
    ArgumentError
        Not finite, or not above zero (with ``zero``: below zero).
    """
    if not (math.isfinite(lr) and (lr > 0 or (zero and lr == 0))):
        raise ArgumentError(f"lr must be finite and {'>=' if zero else '>'} 0, got {lr!r}")
    return float(lr)


def check_decay(weight_decay: float) -> float:
    """Return a weight decay as a float.

    Raises
    ------
    ArgumentError
        Not finite, or below zero.
    """
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ArgumentError(f"weight_decay must be finite and >= 0, got {weight_decay!r}")
    return float(weight_decay)


def check_gradients(parameters: Sequence[Parameter]) -> None:
    """Look at the shapes of gradients, which compiled code takes for granted.

    Raises
    ------
    ShapeError
        One has not the shape of its value.
    """
    for parameter in parameters:
        shape, wanted = parameter.grad.shape, parameter.value.shape
        if shape != wanted:
            raise ShapeError(f"{parameter.name}: the gradient must have the shape {wanted} of the value, got {shape}")


def checked_slots(
    slots: Mapping[str, AnyArray],
    state: Mapping[str, AnyArray],
    scalars: set[str],
    refuse: Callable[[str, AnyArray], str | None],
) -> dict[str, AnyArray]:
    """Return copies of the arrays of ``state`` that belong in ``slots``.

    Raises
    ------
    StateDictError
        ``state`` is not exactly the slots and the scalars, or an array does not fit its slot.
    """
    expected = {*scalars, *slots}
    if set(state) != expected:
        raise StateDictError(f"state dict must hold exactly {sorted(expected)}, got {sorted(state)}")
    for name, array in slots.items():
        given = np.asarray(state[name])
        if given.shape != array.shape or given.dtype != array.dtype:
            raise StateDictError(
                f"{name}: must be {array.dtype} of shape {array.shape}, got {given.dtype} of shape {given.shape}"
            )
        reason = "has a value that is not finite" if not np.isfinite(given).all() else refuse(name, given)
        if reason is not None:
            raise StateDictError(f"{name}: {reason}")
    return {name: np.array(state[name]) for name in slots}


def gradient_norm(parameters: Sequence[Parameter]) -> float:
    """Return the L2 norm of all gradients together, summed in float64 in the order given; NaN and infinity show."""
    return math.sqrt(sum(kernels.sum_of_squares(parameter.grad.reshape(-1)) for parameter in parameters))


def gradient_is_finite(parameter: Parameter) -> bool:
    """Tell whether every element of a gradient is finite."""
    # The sum needs no memory, and where it is finite so is every element; large float64 numbers can overflow in it.
    if math.isfinite(kernels.sum_of_squares(parameter.grad.reshape(-1))):
        return True
    return bool(np.isfinite(parameter.grad).all())
