"""The modes of `ZSpaceOptimizer`: in which geometry a step is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError
from spiral_core.optim.optimizer import check_rate
from spiral_core.zspace import check_curvature


@dataclass(frozen=True)
class OptimizerMode:
    """One mode; made by `euclidean`, `realgrad`, `hypergrad` and `riemannian`.

    Attributes
    ----------
    name : str           ``"euclidean"``, ``"realgrad"``, ``"hypergrad"`` or ``"riemannian"``
    curvature : float    kappa < 0 in the two hyperbolic modes, else None
    lr : float           the mode's own rate; None keeps the optimizer's rate
    """

    name: str
    curvature: float | None = None
    lr: float | None = None

    NAMES: ClassVar[tuple[str, ...]] = ("euclidean", "realgrad", "hypergrad", "riemannian")
    HYPERBOLIC: ClassVar[tuple[str, ...]] = ("hypergrad", "riemannian")

    def __post_init__(self) -> None:
        if self.name not in self.NAMES:
            raise ArgumentError(f"mode must be one of {', '.join(self.NAMES)}, got {self.name!r}")
        if self.lr is not None:
            check_rate(self.lr, zero=True)
        if self.hyperbolic:
            check_curvature(self.curvature if self.curvature is not None else 0.0)
        elif self.curvature is not None:
            raise ArgumentError(f"mode {self.name} has no curvature, got {self.curvature!r}")

    @property
    def hyperbolic(self) -> bool:
        """Whether the mode bends its steps."""
        return self.name in self.HYPERBOLIC

    @property
    def kappa(self) -> float:
        """The curvature of a hyperbolic mode."""
        if self.curvature is None:
            raise ArgumentError(f"mode {self.name} has no curvature")
        return self.curvature

    def with_rate(self, lr: float) -> OptimizerMode:
        """Return the same mode with another rate; 0 is allowed, as at the end of a schedule."""
        return replace(self, lr=check_rate(lr, zero=True))

    def numbers(self) -> dict[str, AnyArray]:
        """Return the mode as a state dict keeps it."""
        return {
            "mode": np.array(self.NAMES.index(self.name)),
            "mode_lr": np.array(-1.0 if self.lr is None else self.lr),
            "curvature": np.array(0.0 if self.curvature is None else self.curvature),
        }

    @classmethod
    def from_numbers(cls, state: Mapping[str, AnyArray]) -> OptimizerMode:
        """Return the mode of `numbers`.

        Raises
        ------
        ArgumentError
            There is no such mode, or a value is out of bounds.
        TypeError, ValueError
            An array is not one number.
        """
        number, lr, curvature = int(state["mode"]), float(state["mode_lr"]), float(state["curvature"])
        if not 0 <= number < len(cls.NAMES):
            raise ArgumentError(f"there is no mode number {number}")
        return cls(cls.NAMES[number], None if curvature == 0.0 else curvature, None if lr == -1.0 else lr)

    @classmethod
    def euclidean(cls) -> OptimizerMode:
        r"""Step straight, with the optimizer's own rate: :math:`w \leftarrow w - \eta d`."""
        return cls("euclidean")

    @classmethod
    def realgrad(cls, lr: float | None = None) -> OptimizerMode:
        """Step straight, from a tape that gradients are gathered on, with the mode's rate."""
        return cls("realgrad", None, None if lr is None else check_rate(lr))

    @classmethod
    def hypergrad(cls, curvature: float, lr: float | None = None) -> OptimizerMode:
        """Step as the reference system does: compressed gradients, then rows pulled into the unit ball.

        See `spiral_core.optim.hypergrad`; it moves weights even where their gradient is zero.
        """
        return cls("hypergrad", check_curvature(curvature), None if lr is None else check_rate(lr))

    @classmethod
    def riemannian(cls, curvature: float, lr: float | None = None) -> OptimizerMode:
        """Step along geodesics of the Poincaré ball; see `spiral_core.optim.riemannian`."""
        return cls("riemannian", check_curvature(curvature), None if lr is None else check_rate(lr))
