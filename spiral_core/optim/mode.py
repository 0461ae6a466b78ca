"""The modes of `ZSpaceOptimizer`: in which geometry a step is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

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
