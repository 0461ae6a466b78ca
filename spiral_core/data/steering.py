"""What can be changed in a data set while a run trains: the size of its batches, and knobs of its own.

All of it is in `SteeredDataset.state_dict`: with that, the seed and the number of batches drawn, a run can go on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.data.streams import check_count
from spiral_core.errors import ArgumentError, StateDictError


@dataclass(frozen=True)
class DataKnob:
    """One thing about the training stream that a data set lets people change.

    Held-out images never change with it, so that accuracies before and after can be compared.

    Parameters
    ----------
    name : str            without the ``data.`` in front
    start : float, bool   the value at first; a bool makes it a switch
    help : str
    low, high : float     bounds, both allowed; those of a switch say nothing
    step : float          what an arrow key moves
    unit : str
    """

    name: str
    start: float | bool
    help: str
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    unit: str = ""

    def check(self, value: float | bool) -> float | bool:
        """Return a value that the knob can hold.

        Raises
        ------
        ArgumentError
            Not a bool for a switch; not a finite number within the bounds for the others.
        """
        switch = isinstance(self.start, bool)
        if switch != isinstance(value, (bool, np.bool_)):
            raise ArgumentError(f"{self.name} takes {'True or False' if switch else 'a number'}, got {value!r}")
        if switch:
            return bool(value)
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ArgumentError(f"{self.name} must be between {self.low:g} and {self.high:g}, got {value!r}")
        return float(value)


class SteeredDataset(ABC):
    """Base of every data set: the training stream's seed, and what may be changed in it between two batches.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0.
    batch_size : int
        Images per batch at first, >= 1.

    Raises
    ------
    ArgumentError
        When an argument is no integer or out of its range.

    Notes
    -----
    A batch is a function of the seed, its index, the batch size in force and the values of the knobs. A new batch size
    begins a new epoch: what is left of the old one is dropped, as its last partial batch would have been.
    """

    KNOBS: ClassVar[tuple[DataKnob, ...]] = ()
    """What can be changed besides the batch size."""

    KERNELS: ClassVar[tuple[str, ...]] = ()
    """Names of the compiled kernels that draw training batches."""

    largest_batch: int

    def __init__(self, *, seed: int, batch_size: int) -> None:
        self.seed = check_count("seed", seed, 0)
        self.batch_size = self._checked_size(batch_size)
        self.report_batches = self._fit(self.batch_size)
        self.first_batch = 0
        """Index of the first batch of the size in force."""
        self.first_epoch = 0
        """The epoch that it began."""
        self._settings = {knob.name: knob.start for knob in self.KNOBS}

    @abstractmethod
    def _fit(self, batch_size: int) -> int:
        """Make what the batch size decides, such as scratch memory, and return the number of batches in one epoch."""

    def _checked_size(self, batch_size: int) -> int:
        return check_count("batch_size", batch_size, 1)

    # Batches and epochs.

    def place(self, index: int) -> tuple[int, int]:
        """Return the epoch of a training batch, and its place in it.

        Raises
        ------
        ArgumentError
            The batch comes before those of the size in force: it cannot be drawn any more.
        """
        epoch, place = divmod(check_count("index", index, self.first_batch) - self.first_batch, self.report_batches)
        return self.first_epoch + epoch, place

    def epochs(self, count: int) -> float:
        """Return how many epochs ``count`` batches are; one that a new batch size has cut short counts as whole."""
        return self.first_epoch + (count - self.first_batch) / self.report_batches

    def resize(self, batch_size: int, index: int) -> None:
        """Let training batch ``index`` and those after it have another size, and begin a new epoch with it.

        Parameters
        ----------
        batch_size : int
            The size in force changes nothing.
        index : int
            Of the next batch.

        Raises
        ------
        ArgumentError
            An argument is out of its range; nothing has changed.
        """
        size = self._checked_size(batch_size)
        epoch, place = self.place(index)
        if size != self.batch_size:
            self._enter(size, int(index), epoch + (place > 0))

    def _enter(self, batch_size: int, first_batch: int, first_epoch: int) -> None:
        self.batch_size, self.first_batch, self.first_epoch = batch_size, first_batch, first_epoch
        self.report_batches = self._fit(batch_size)

    # Knobs.

    def setting(self, name: str) -> float | bool:
        """Return what a knob holds.

        Raises
        ------
        ArgumentError
            There is no such knob.
        """
        return self._settings[self._knob(name).name]

    def set(self, name: str, value: float | bool) -> None:
        """Let a knob hold a value from the next batch on.

        Raises
        ------
        ArgumentError
            There is no such knob, or it cannot hold the value; nothing has changed.
        """
        self._settings[name] = self._knob(name).check(value)

    def _knob(self, name: str) -> DataKnob:
        for knob in self.KNOBS:
            if knob.name == name:
                return knob
        raise ArgumentError(f"no knob {name!r}; there are {', '.join(knob.name for knob in self.KNOBS) or 'none'}")

    # State.

    def state_dict(self) -> dict[str, AnyArray]:
        """Return the batch size, where it began, and what the knobs hold."""
        return {
            "batch_size": np.array(self.batch_size),
            "first_batch": np.array(self.first_batch),
            "first_epoch": np.array(self.first_epoch),
            **{f"knob.{name}": np.array(value) for name, value in self._settings.items()},
        }

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave; all of it or nothing.

        Raises
        ------
        StateDictError
            A name missing or unknown, or a value out of bounds. Nothing was loaded.
        """
        expected = self.state_dict()
        if set(state) != set(expected):
            raise StateDictError(f"state dict must hold exactly {sorted(expected)}, got {sorted(state)}")
        try:
            values = {name: np.asarray(value).item() for name, value in state.items()}
            size = self._checked_size(values["batch_size"])
            first_batch = check_count("first_batch", values["first_batch"], 0)
            first_epoch = check_count("first_epoch", values["first_epoch"], 0)
            settings = {knob.name: knob.check(values[f"knob.{knob.name}"]) for knob in self.KNOBS}
        except (TypeError, ValueError) as error:
            raise StateDictError(f"data set {type(self).__name__}: {error}") from error
        self._settings = settings
        self._enter(size, first_batch, first_epoch)
