"""Layer normalization: plain, and with a projector that bends whitened values into a hyperbolic ball."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.kernels.rownorm import ROWS
from spiral_core.kernels.vector import PAIR
from spiral_core.nn import observation
from spiral_core.nn.kept_input import InputValues
from spiral_core.nn.module import Module, Parameter, check_number, check_size
from spiral_core.nn.observation import (
    StoredValues,
    WhitenedValues,
    ZSpaceLayerNormTelemetry,
    ZSpacePass,
)
from spiral_core.nn.steering import ZSpaceNorm
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import check_curvature, check_gain, effective_gain, root_curvature

CURVATURE_SHARE = 0.1
"""By how much epsilon grows per unit of sqrt(-curvature)."""


class _LayerNorm(Module):
    """Whiten each sample over its features, and what follows; subclasses say with which projector."""

    KERNELS = ("row_statistics", "row_norm", "row_norm_backward")
    PAIRED: ClassVar[tuple[str, ...]] = (
        "rowwise_statistics",
        "rowwise_norm",
        "rowwise_norm_backward",
        "add_parameter_sums",
    )
    """Names of the kernels where the features come in pairs of vectors."""

    def __init__(self, name: str, features: int, curvature: float, epsilon: float, dtype: DTypeLike) -> None:
        super().__init__(name, dtype)
        self.features = check_size(name, "features", features)
        self._curvature = check_curvature(curvature)
        self.epsilon = check_number(f"{name}: epsilon", epsilon, 0.0, above=True)
        self.gamma = Parameter(f"{name}.gamma", np.ones(features, self.dtype))
        self.beta = Parameter(f"{name}.beta", np.zeros(features, self.dtype))

    @property
    def curvature(self) -> float:
        """Curvature kappa in force."""
        return self._curvature

    @property
    def effective_epsilon(self) -> float:
        """What is added to the variance: epsilon (1 + 0.1 s)."""
        return self.epsilon * (1 + CURVATURE_SHARE * root_curvature(self._curvature))

    def parameters(self) -> list[Parameter]:
        """Return gamma and beta."""
        return [self.gamma, self.beta]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        if len(shape) < 2 or shape[-1] != self.features:
            raise ShapeError(f"{self.name}: input must have shape (N, ..., {self.features}), got {shape}")
        return shape

    def projector(self) -> tuple[float, float]:
        """Return curvature and gain; without a projector the gain is 0."""
        return self._curvature, 0.0

    def kernels(self) -> tuple[str, ...]:
        """Return the names of the kernels for this number of features."""
        return self.PAIRED if self._paired else self.KERNELS

    @property
    def _paired(self) -> bool:
        return self.features % PAIR == 0

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        flat = x.reshape(-1, self.features)
        chunks = -(-len(flat) // ROWS)
        statistics = workspace.array(self, "statistics", (2, len(flat)), np.float64)
        curvature, gain = self.projector()
        s, g = root_curvature(curvature), effective_gain(gain)
        affine = workspace.array(self, "affine", (2, self.features), self.dtype)
        affine[0], affine[1] = self.gamma.value, self.beta.value
        tangent = workspace.array(self, "tangent", (x.size,), self.dtype)
        out = workspace.array(self, "out", x.shape, self.dtype)
        totals = workspace.array(self, "totals", (4, len(flat)), np.float64)
        bent = kernels.scalar(s, self.dtype), kernels.scalar(g, self.dtype)
        mean, inv_std = statistics
        values: WhitenedValues
        if self._paired:
            sums = workspace.array(self, "sums pass", (chunks, self.features), self.dtype)
            kernels.run(
                kernels.rowwise_norm, chunks, flat, affine, self.effective_epsilon, *bent,
                statistics, tangent, out.reshape(-1), totals, sums,
            )  # fmt: skip
            values = InputValues(self.name, flat, tangent, mean[:, None], inv_std[:, None], s)
        else:
            wide = workspace.array(self, "sums pass", (chunks, self.features), np.float64)
            sums = wide
            normed = workspace.array(self, "normed", flat.shape, self.dtype)
            kernels.run(kernels.row_statistics, chunks, flat, self.effective_epsilon, mean, inv_std)
            kernels.run(
                kernels.row_norm, chunks, flat, mean, inv_std, affine, *bent,
                normed, tangent.reshape(flat.shape), out.reshape(flat.shape), totals, wide,
            )  # fmt: skip
            values = StoredValues(normed.reshape(-1), tangent)
        workspace.keep(
            self,
            ZSpacePass(
                shape=x.shape,
                training=True,
                mean=mean,
                inv_std=inv_std,
                values=values,
                totals=totals,
                feature_tangents=sums,
                s=s,
                g=g,
                curvature=curvature,
                gain=gain,
                by_sample=True,
            ),
        )
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        one = observation.pass_behind(self, x.shape, workspace)
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        sums_shape = (-(-one.rows // ROWS), 2, self.features)
        bent = kernels.scalar(one.s, self.dtype), kernels.scalar(one.g, self.dtype)
        if isinstance(one.values, InputValues):
            sums = workspace.array(self, "sums backward", sums_shape, self.dtype)
            statistics = workspace.array(self, "statistics", (2, one.rows), np.float64)
            kernels.run(
                kernels.rowwise_norm_backward, len(sums), one.values.x, one.values.tangent, grad.reshape(-1),
                statistics, self.gamma.value, *bent, grad_x.reshape(-1), sums,
            )  # fmt: skip
            if workspace.accumulate:
                kernels.add_parameter_sums(sums, self.gamma.grad, self.beta.grad)
            return grad_x if input_grad else None
        shape = (one.rows, self.features)
        normed, tangent = one.values.arrays()
        sums = workspace.array(self, "sums backward", sums_shape, np.float64)
        kernels.run(
            kernels.row_norm_backward, len(sums), normed.reshape(shape), tangent.reshape(shape), grad.reshape(shape),
            one.inv_std, self.gamma.value, *bent, grad_x.reshape(shape), sums,
        )  # fmt: skip
        if workspace.accumulate:
            with np.errstate(all="ignore"):
                sum_gp, sum_g = sums.sum(axis=0)
                self.gamma.grad += sum_gp.astype(self.dtype)
                self.beta.grad += sum_g.astype(self.dtype)
        return grad_x if input_grad else None


class LayerNorm(_LayerNorm):
    r"""Whiten each sample over its features, scale and shift.

    .. math:: n = (x - \mu) / \sqrt{v + \epsilon (1 + 0.1 s)}, \quad y = \gamma n + \beta, \quad s = \sqrt{-\kappa}

    Mean and (population) variance are those of the sample, in training and in evaluation alike.

    Parameters
    ----------
    name : str
    features : int             F, the last axis of the input (N, ..., F)
    curvature : float          kappa < 0; it does nothing but widen epsilon
    epsilon : float            > 0, in units of variance
    dtype : float32 or float64

    Notes
    -----
    The passes are those of the Z-space layer norm at gain 0, where its projector is exactly the identity. Backward
    works from what the last forward pass has kept.
    """

    def __init__(
        self,
        name: str,
        features: int,
        curvature: float = -1.0,
        epsilon: float = 1e-5,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, features, curvature, epsilon, dtype)


class ZSpaceLayerNorm(ZSpaceNorm, _LayerNorm):
    r"""Whiten each sample over its features, project into the ball, scale and shift.

    .. math:: n = (x - \mu) / \sqrt{v + \epsilon (1 + 0.1 s)}, \quad
              p = (1-g)\,n + g\,\tanh(s n)/s, \quad y = \gamma p + \beta, \quad s = \sqrt{-\kappa}

    Mean and (population) variance are those of the sample, in training and in evaluation alike.

    Parameters
    ----------
    name : str
    features : int             F, the last axis of the input (N, ..., F)
    curvature : float          kappa < 0
    epsilon : float            > 0, in units of variance
    projector_gain : float     g in [0, 1]: 0 is Euclidean, 1 fully hyperbolic
    dtype : float32 or float64
    """

    def __init__(
        self,
        name: str,
        features: int,
        curvature: float = -1.0,
        epsilon: float = 1e-5,
        *,
        projector_gain: float = 1.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _LayerNorm.__init__(self, name, features, curvature, epsilon, dtype)
        self._gain = check_gain(projector_gain)

    def telemetry(self, workspace: Workspace | None = None) -> ZSpaceLayerNormTelemetry:
        """Copy out everything about the last pass, see `ZSpaceNorm.telemetry`."""
        return observation.snapshot(self._pass(workspace), ZSpaceLayerNormTelemetry)
