"""Parameter groups: which parameters take hyperbolic steps, and which decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spiral_core.errors import ArgumentError
from spiral_core.nn import Parameter


@dataclass(frozen=True)
class ParameterGroup:
    """The parameters whose names end in one of some words, and what is special about them.

    Parameters
    ----------
    endings : tuple of str          last parts of names: ``("gamma", "beta")`` takes in ``"bn1.gamma"``
    hyperbolic : bool               False: they take straight steps, whatever the mode
    weight_decay : float, optional  instead of the optimizer's
    """

    endings: tuple[str, ...]
    hyperbolic: bool = True
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not self.endings or not all(self.endings):
            raise ArgumentError(f"a parameter group needs endings that are not empty, got {self.endings!r}")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise ArgumentError(f"weight_decay must be finite and >= 0, got {self.weight_decay!r}")


NORMS_AND_BIASES = ParameterGroup(("gamma", "beta", "bias"), hyperbolic=False)
"""Scales, shifts and biases are no points of a ball: a row of 256 ones would become 256 sixteenths in one step."""

_REST = ParameterGroup(("everything else",))


def group_of(parameter: Parameter, groups: Sequence[ParameterGroup]) -> ParameterGroup:
    """Return the first group that takes in the parameter, or one with nothing special."""
    last = parameter.name.rsplit(".", 1)[-1]
    return next((group for group in groups if last in group.endings), _REST)
