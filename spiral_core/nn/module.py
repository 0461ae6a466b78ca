"""What every layer is: parameters, running statistics, and a forward beside a backward.

A module holds only what it has learnt. Whatever a pass produces goes to a `Workspace`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import DTypeLike

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError, DtypeError, ShapeError, StateDictError
from spiral_core.kernels.accelerate import float_name
from spiral_core.nn.workspace import Workspace


class Parameter:
    """A trained array and its gradient.

    Attributes
    ----------
    name : str     ``"conv1.weight"``
    value : array  updated in place by optimizers
    grad : array   the shape and dtype of ``value``; ``backward`` adds to it
    """

    __slots__ = ("grad", "name", "value")

    def __init__(self, name: str, value: Float) -> None:
        self.name = name
        self.value = value
        self.grad = np.zeros_like(value)

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.value.dtype}{list(self.value.shape)})"


def _anything(_value: AnyArray) -> str | None:
    return None


@dataclass(frozen=True)
class StateEntry:
    """One entry of a state dict.

    Parameters
    ----------
    name : str
    read : callable     returns the array as it is now (it is copied by the caller)
    write : callable    stores a checked array
    refuse : callable   returns why a finite array of the right shape and dtype cannot be loaded, or None
    """

    name: str
    read: Callable[[], AnyArray]
    write: Callable[[AnyArray], None]
    refuse: Callable[[AnyArray], str | None] = _anything


def array_entry(name: str, array: AnyArray, refuse: Callable[[AnyArray], str | None] = _anything) -> StateEntry:
    """Return the entry of an array that is written in place."""

    def write(value: AnyArray) -> None:
        array[...] = value

    return StateEntry(name, lambda: array, write, refuse)


class Module(ABC):
    """Base of all layers and of `Sequential`.

    Parameters
    ----------
    name : str
        Prefix of parameter and state names; not empty.
    dtype : float32 or float64
        Of parameters, inputs and outputs.

    Raises
    ------
    ArgumentError
        An empty name or another dtype.
    """

    KERNELS: ClassVar[tuple[str, ...]] = ()
    """Names of the compiled kernels that the class runs."""

    def __init__(self, name: str, dtype: DTypeLike = np.float32) -> None:
        if not name:
            raise ArgumentError("a layer needs a name that is not empty")
        self.name = name
        self.dtype = np.dtype(float_name(dtype))
        self.training = True
        self._default: Workspace | None = None
        self._last_shapes: tuple[tuple[int, ...], tuple[int, ...]] = (), ()

    # What a layer defines.

    @abstractmethod
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the output for an input of ``shape``.

        Raises
        ------
        ShapeError
            The layer cannot take such an input.
        """

    @abstractmethod
    def _forward(self, x: Float, workspace: Workspace) -> Float:
        """Compute the output from a checked, contiguous input."""

    @abstractmethod
    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        """Add to parameter gradients and return the input's gradient, or None where it is not asked for."""

    def parameters(self) -> list[Parameter]:
        """Return the trained parameters, in a fixed order."""
        return []

    def buffers(self) -> dict[str, AnyArray]:
        """Return the running statistics by name; the arrays themselves, not copies."""
        return {}

    def state_entries(self) -> list[StateEntry]:
        """Return the entries of the state dict, in order."""
        return [array_entry(p.name, p.value) for p in self.parameters()]

    # What every module does.

    def workspace(self) -> Workspace:
        """Return the module's default workspace."""
        if self._default is None:
            self._default = Workspace()
        return self._default

    def forward(self, x: Float, workspace: Workspace | None = None) -> Float:
        """Compute the output.

        Parameters
        ----------
        x : (N, ...)
            Not modified; leave it as it is until ``backward`` has run.
        workspace : Workspace, optional
            Without one, the module uses its own and the result is a copy.

        Returns
        -------
        array
            Lives in the workspace, until the next pass through it.

        Raises
        ------
        ShapeError, DtypeError
            The input does not fit; nothing has changed.
        """
        place = workspace if workspace is not None else self.workspace()
        self._check(x, "input")
        self.shape_behind(x.shape)
        y = self.forward_checked(x, place)
        return y if workspace is not None else y.copy()

    def backward(self, x: Float, grad: Float, workspace: Workspace | None = None) -> Float:
        """Add to the gradient of each parameter and return the gradient of the input.

        Parameters
        ----------
        x : (N, ...)
            The input of the last forward pass in the same workspace.
        grad : shape of the output
            The gradient of the loss with respect to the output.
        workspace : Workspace, optional
            As in `forward`.

        Raises
        ------
        ShapeError, DtypeError
            An array does not fit; nothing has changed.
        StateError
            The layer needs a forward pass first.
        """
        place = workspace if workspace is not None else self.workspace()
        grad_x = self.backward_in(x, grad, place, input_grad=True)
        result = cast("Float", grad_x)
        return result if workspace is not None else result.copy()

    def backward_in(self, x: Float, grad: Float, workspace: Workspace, *, input_grad: bool) -> Float | None:
        """Run `backward`, and skip the gradient of the input where nobody needs it (the result is then None)."""
        self._check(x, "input")
        self._check(grad, "grad")
        expected = self.shape_behind(x.shape)
        if grad.shape != expected:
            raise ShapeError(f"{self.name}: grad must have the output's shape {expected}, got {grad.shape}")
        return self.backward_checked(x, grad, workspace, input_grad=input_grad)

    def forward_checked(self, x: Float, workspace: Workspace) -> Float:
        """Run `forward` on an array whose dtype and shape are known to fit, as between the layers of a chain."""
        return self._forward(self._plain(x, "input", workspace), workspace)

    def backward_checked(self, x: Float, grad: Float, workspace: Workspace, *, input_grad: bool) -> Float | None:
        """Run `backward_in` on arrays whose dtypes and shapes are known to fit."""
        return self._backward(
            self._plain(x, "input", workspace), self._plain(grad, "grad", workspace), workspace, input_grad
        )

    def shape_behind(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return `output_shape`, remembered: the shapes of a training loop repeat."""
        known, found = self._last_shapes
        if shape != known:
            found = self.output_shape(shape)
            self._last_shapes = shape, found
        return found

    def _check(self, array: Float, what: str) -> None:
        if not isinstance(array, np.ndarray):
            raise DtypeError(f"{self.name}: {what} must be a NumPy array, got {type(array).__name__}")
        if array.dtype != self.dtype:
            raise DtypeError(f"{self.name}: {what} must be {self.dtype}, got {array.dtype}; convert it with astype")
        if array.ndim == 0 or array.shape[0] == 0:
            raise ShapeError(f"{self.name}: {what} must have at least one row, got shape {array.shape}")

    def _plain(self, array: Float, role: str, workspace: Workspace) -> Float:
        """Kernels are compiled for contiguous writable arrays: anything else is copied once here."""
        # C-contiguous, aligned and writeable, in one look.
        if array.flags.carray:
            return array
        copy = workspace.array(self, f"plain {role}", array.shape, self.dtype)
        copy[...] = array
        return copy

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    def set_training(self, training: bool) -> None:
        """Choose between batch statistics (True) and running statistics (False)."""
        self.training = bool(training)

    def train(self) -> None:
        """Choose batch statistics."""
        self.set_training(True)

    def eval(self) -> None:
        """Choose running statistics, which then stay as they are."""
        self.set_training(False)

    def kernels(self) -> tuple[str, ...]:
        """Return the names of the kernels that this module runs, without repeats, in order of first use."""
        return self.KERNELS

    def state_dict(self) -> dict[str, AnyArray]:
        """Return copies of everything learnt, by name."""
        return {entry.name: entry.read().copy() for entry in self.state_entries()}

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave; all of it or nothing. Gradients are left as they are.

        Raises
        ------
        StateDictError
            A name missing or unknown, a wrong shape or dtype, a value that is not finite or out of bounds. Nothing
            was loaded.
        """
        entries = self.state_entries()
        names = {entry.name for entry in entries}
        missing = [entry.name for entry in entries if entry.name not in state]
        unknown = [name for name in state if name not in names]
        if missing or unknown:
            raise StateDictError(
                f"{self.name}: state dict lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}"
            )
        for entry in entries:
            self._check_entry(entry, state[entry.name])
        # Copied first, so that a state dict that shares memory with this module loads as it was.
        values = [np.array(state[entry.name]) for entry in entries]
        for entry, value in zip(entries, values, strict=True):
            entry.write(value)

    def _check_entry(self, entry: StateEntry, value: AnyArray) -> None:
        now = entry.read()
        given = np.asarray(value)
        if given.shape != now.shape:
            raise StateDictError(f"{entry.name}: shape must be {now.shape}, got {given.shape}")
        if given.dtype != now.dtype:
            raise StateDictError(f"{entry.name}: dtype must be {now.dtype}, got {given.dtype}")
        if not np.isfinite(given).all():
            raise StateDictError(f"{entry.name}: has a value that is not finite")
        reason = entry.refuse(given)
        if reason is not None:
            raise StateDictError(f"{entry.name}: {reason}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def check_size(name: str, what: str, value: int) -> int:
    """Return a size of at least 1.

    Raises
    ------
    ArgumentError
        Not an integer, or below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name}: {what} must be an integer >= 1, got {value!r}")
    return int(value)


def check_pair(name: str, what: str, value: tuple[int, int], least: int) -> tuple[int, int]:
    """Return a (height, width) pair of integers of at least ``least``.

    Raises
    ------
    ArgumentError
        Not such a pair.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least for v in pair
    ):
        raise ArgumentError(f"{name}: {what} must be a pair (height, width) of integers >= {least}, got {value!r}")
    return int(pair[0]), int(pair[1])


def check_number(what: str, value: float, least: float, most: float = float("inf"), *, above: bool = False) -> float:
    """Return a finite number within bounds; ``above`` leaves out ``least`` itself.

    Raises
    ------
    ArgumentError
        Not a number, not finite, or out of bounds.
    """
    number = float(value) if isinstance(value, (int, float, np.integer, np.floating)) else float("nan")
    if not (np.isfinite(number) and least <= number <= most and not (above and number == least)):
        bounds = f"{'>' if above else '>='} {least:g}" + (f" and <= {most:g}" if np.isfinite(most) else "")
        raise ArgumentError(f"{what} must be finite and {bounds}, got {value!r}")
    return number
