"""Batch normalization: plain, and with a projector that bends whitened values into a hyperbolic ball."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import F64, AnyArray, Float
from spiral_core.errors import ShapeError, StateError
from spiral_core.kernels.znorm import chunk_span, wide_row
from spiral_core.nn import observation
from spiral_core.nn.module import Module, Parameter, StateEntry, array_entry, check_number, check_size
from spiral_core.nn.observation import ZSpaceBatchNormTelemetry, ZSpacePass
from spiral_core.nn.steering import ZSpaceNorm
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import check_curvature, check_gain, effective_gain, root_curvature


def _negative(value: AnyArray) -> str | None:
    return "a variance cannot be negative" if (value < 0).any() else None


class _BatchNorm(Module):
    r"""Whiten each feature over the rows, scale and shift.

    .. math:: n = (x - \mu) / \sqrt{v + \epsilon}, \quad y = \gamma n + \beta

    In training, mean and (population) variance are those of the batch and move the running ones by ``momentum``; in
    evaluation they are the running ones. Backward works in both and differentiates the statistics only in training.

    Parameters
    ----------
    name : str
    features : int                 F
    momentum : float               share of the batch in the running statistics, in [0, 1]
    epsilon : float                > 0, in units of variance
    dtype : float32 or float64

    Notes
    -----
    The running variance is the biased one, unlike PyTorch's. The passes are those of the Z-space norm at gain 0, where
    its projector is exactly the identity.
    """

    KERNELS = ("fold_lanes", "channel_sums", "znorm", "znorm_backward_sums", "znorm_backward_input")

    AXES: ClassVar[tuple[str, ...]] = ("N",)
    """Names of the axes before the last, for messages."""

    def __init__(
        self,
        name: str,
        features: int,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, dtype)
        self.features = check_size(name, "features", features)
        self.momentum = check_number(f"{name}: momentum", momentum, 0.0, 1.0)
        self.epsilon = check_number(f"{name}: epsilon", epsilon, 0.0, above=True)
        self.gamma = Parameter(f"{name}.gamma", np.ones(features, self.dtype))
        self.beta = Parameter(f"{name}.beta", np.zeros(features, self.dtype))
        self.running_mean: Float = np.zeros(features, self.dtype)
        self.running_var: Float = np.ones(features, self.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        if len(shape) != len(self.AXES) + 1 or shape[-1] != self.features:
            raise ShapeError(
                f"{self.name}: input must have shape ({', '.join(self.AXES)}, {self.features}), got {shape}"
            )
        return shape

    def _projector(self) -> tuple[float, float]:
        """Return curvature and gain; without a projector the gain is 0."""
        return -1.0, 0.0

    # State.

    def parameters(self) -> list[Parameter]:
        """Return gamma and beta."""
        return [self.gamma, self.beta]

    def buffers(self) -> dict[str, AnyArray]:
        """Return the running statistics."""
        return {f"{self.name}.running_mean": self.running_mean, f"{self.name}.running_var": self.running_var}

    def state_entries(self) -> list[StateEntry]:
        """Return parameters and running statistics."""
        return [
            *super().state_entries(),
            array_entry(f"{self.name}.running_mean", self.running_mean),
            array_entry(f"{self.name}.running_var", self.running_var, _negative),
        ]

    # Passes.

    def _statistics(self, x: Float, workspace: Workspace) -> tuple[F64, F64]:
        """Return mean and population variance per feature, in two passes with sums in chunk order."""
        rows = x.size // self.features
        width = wide_row(self.features)
        mean = np.zeros(self.features)
        for squares in (False, True):
            sums = self._sums(x.size, 1, "statistics", workspace)
            lanes = workspace.array(self, "lanes 1", (kernels.get_num_threads(), 1, width), self.dtype)
            wide_mean = np.tile(mean.astype(self.dtype), width // self.features)
            kernels.run(kernels.channel_sums, len(sums), x, wide_mean, squares, chunk_span(self.features), lanes, sums)
            total = sums.sum(axis=0)[0] / rows
            if squares:
                return mean, total
            mean = total
        raise AssertionError("unreachable")

    def _sums(self, elements: int, kinds: int, role: str, workspace: Workspace) -> F64:
        chunks = -(-elements // chunk_span(self.features))
        return workspace.array(self, f"sums {role}", (chunks, kinds, self.features), np.float64)

    def _follow(self, mean: F64, variance: F64) -> None:
        """Move the running statistics, unless the batch has none to follow."""
        if np.isfinite(mean).all() and np.isfinite(variance).all():
            share = self.momentum
            self.running_mean[...] = share * mean + (1 - share) * self.running_mean
            self.running_var[...] = share * variance + (1 - share) * self.running_var

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        flat = x.reshape(-1)
        training = workspace.is_training(self.training)
        with np.errstate(all="ignore"):
            if training:
                mean, variance = self._statistics(flat, workspace)
            else:
                mean, variance = self.running_mean.astype(np.float64), self.running_var.astype(np.float64)
            inv_std = 1.0 / np.sqrt(variance + self.epsilon)
        width = wide_row(self.features)
        affine = np.tile(
            np.stack([mean, inv_std, self.gamma.value, self.beta.value]).astype(self.dtype),
            (1, width // self.features),
        )
        curvature, gain = self._projector()
        s, g = root_curvature(curvature), effective_gain(gain)
        normed = workspace.array(self, "normed", flat.shape, self.dtype)
        tangent = workspace.array(self, "tangent", flat.shape, self.dtype)
        out = workspace.array(self, "out", x.shape, self.dtype)
        sums = self._sums(flat.size, 4, "pass", workspace)
        kernels.run(
            kernels.znorm,
            len(sums),
            flat,
            affine,
            kernels.scalar(s, self.dtype),
            kernels.scalar(g, self.dtype),
            chunk_span(self.features),
            self._lanes(workspace),
            normed,
            tangent,
            out.reshape(-1),
            sums,
        )
        if training:
            self._follow(mean, variance)
        totals = sums.sum(axis=0)
        workspace.keep(
            self,
            ZSpacePass(
                shape=x.shape,
                training=training,
                mean=mean,
                inv_std=inv_std,
                normed=normed,
                tangent=tangent,
                totals=totals,
                feature_tangent=totals[0],
                s=s,
                g=g,
                curvature=curvature,
                gain=gain,
            ),
        )
        return out

    def _lanes(self, workspace: Workspace) -> Float:
        return workspace.array(self, "lanes", (kernels.get_num_threads(), 4, wide_row(self.features)), self.dtype)

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        one = workspace.kept(self, ZSpacePass)
        if one.shape != x.shape:
            raise StateError(
                f"{self.name}: backward for input {x.shape} after a forward of {one.shape}: run forward first"
            )
        flat = grad.reshape(-1)
        sums = self._sums(flat.size, 4, "backward", workspace)
        s, g = kernels.scalar(one.s, self.dtype), kernels.scalar(one.g, self.dtype)
        span = chunk_span(self.features)
        kernels.run(
            kernels.znorm_backward_sums,
            len(sums),
            one.normed,
            one.tangent,
            flat,
            s,
            g,
            span,
            self._lanes(workspace),
            sums,
        )
        with np.errstate(all="ignore"):
            sum_g, sum_gp, sum_gj, sum_gjn = sums.sum(axis=0)
            if workspace.accumulate:
                self.gamma.grad += sum_gp.astype(self.dtype)
                self.beta.grad += sum_g.astype(self.dtype)
            if not input_grad:
                return None
            scale = one.inv_std * self.gamma.value
            # Statistics of the batch depend on x; running ones are constants.
            rows = one.rows if one.training else np.inf
            affine = np.stack([scale, scale * sum_gj / rows, scale * sum_gjn / rows]).astype(self.dtype)
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        wide = np.tile(affine, (1, wide_row(self.features) // self.features))
        kernels.run(
            kernels.znorm_backward_input, len(sums), one.normed, one.tangent, flat, wide, g, span, grad_x.reshape(-1)
        )
        return grad_x


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, F): statistics per feature over the batch."""


class BatchNorm2d(_BatchNorm):
    """Batch norm of images (N, H, W, C): statistics per channel over batch and pixels."""

    AXES = ("N", "H", "W")


class _ZSpaceBatchNorm(ZSpaceNorm, _BatchNorm):
    r"""Whiten each feature over the rows, project into the ball, scale and shift.

    .. math:: n = (x - \mu) / \sqrt{v + \epsilon}, \quad
              p = (1-g)\,n + g\,\tanh(s n)/s, \quad y = \gamma p + \beta, \quad s = \sqrt{-\kappa}

    In training, mean and (population) variance are those of the batch and move the running ones by ``momentum``; in
    evaluation they are the running ones. Backward works in both and differentiates the statistics only in training.

    Parameters
    ----------
    name : str
    features : int                 F
    curvature : float              kappa < 0
    momentum : float               share of the batch in the running statistics, in [0, 1]
    epsilon : float                > 0, in units of variance
    projector_gain : float         g in [0, 1]: 0 is Euclidean, 1 fully hyperbolic
    dtype : float32 or float64

    Notes
    -----
    The running variance is the biased one, unlike PyTorch's.
    """

    def __init__(
        self,
        name: str,
        features: int,
        curvature: float = -1.0,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        *,
        projector_gain: float = 1.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _BatchNorm.__init__(self, name, features, momentum, epsilon, dtype=dtype)
        self._curvature = check_curvature(curvature)
        self._gain = check_gain(projector_gain)

    def telemetry(self, workspace: Workspace | None = None) -> ZSpaceBatchNormTelemetry:
        """Copy out everything about the last pass, see `ZSpaceNorm.telemetry`."""
        return observation.snapshot(self._pass(workspace), ZSpaceBatchNormTelemetry)


class ZSpaceBatchNorm1d(_ZSpaceBatchNorm):
    """Z-space batch norm of (N, F): statistics per feature over the batch."""


class ZSpaceBatchNorm2d(_ZSpaceBatchNorm):
    """Z-space batch norm of images (N, H, W, C): statistics per channel over batch and pixels."""

    AXES = ("N", "H", "W")


BatchNorm1d.__doc__ = f"{BatchNorm1d.__doc__}\n\n{_BatchNorm.__doc__}"
BatchNorm2d.__doc__ = f"{BatchNorm2d.__doc__}\n\n{_BatchNorm.__doc__}"
ZSpaceBatchNorm1d.__doc__ = f"{ZSpaceBatchNorm1d.__doc__}\n\n{_ZSpaceBatchNorm.__doc__}"
ZSpaceBatchNorm2d.__doc__ = f"{ZSpaceBatchNorm2d.__doc__}\n\n{_ZSpaceBatchNorm.__doc__}"
