"""Batch normalization: plain, and with a projector that bends whitened values into a hyperbolic ball."""

from __future__ import annotations

import math
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import F64, AnyArray, Float
from spiral_core.errors import ShapeError
from spiral_core.kernels.stripwise import strips
from spiral_core.kernels.znorm import chunk_span, wide_row
from spiral_core.nn import observation
from spiral_core.nn.kept_input import InputValues
from spiral_core.nn.module import Module, Parameter, StateEntry, array_entry, check_number, check_size
from spiral_core.nn.observation import Blend, StoredValues, WhitenedValues, ZSpaceBatchNormTelemetry, ZSpacePass
from spiral_core.nn.steering import ZSpaceNorm
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import check_curvature, check_gain, effective_gain, root_curvature


def _negative(value: AnyArray) -> str | None:
    return "a variance cannot be negative" if (value < 0).any() else None


class Whitening(NamedTuple):
    """What rows are whitened by, as `_BatchNorm.whiten` finds it.

    Parameters
    ----------
    statistics : (2, F)      the two that follow
    mean, inv_std : (F,)     the latter is 1/sqrt(v + epsilon)
    affine : (4, width)      mean, inv_std, gamma and beta, as kernels take them
    """

    statistics: F64
    mean: F64
    inv_std: F64
    affine: Float


WHITENING: Final = ("merge_moments", "follow_statistics", "whiten", "add_chunks", "unwhiten")
"""Names of the kernels between the passes over the elements, whichever those are."""


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

    KERNELS = (
        "fold_lanes",
        "channel_moments",
        "span_moments",
        *WHITENING,
        "znorm",
        "znorm_backward_sums",
        "znorm_backward_input",
    )

    STRIPWISE: ClassVar[tuple[str, ...]] = ("stripwise_statistics", "stripwise_norm", "stripwise_norm_backward")
    """Names of the kernels that matrices of many features run besides."""

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
        self._no_moments = np.empty((0, 2, features))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        if len(shape) != len(self.AXES) + 1 or shape[-1] != self.features:
            raise ShapeError(
                f"{self.name}: input must have shape ({', '.join(self.AXES)}, {self.features}), got {shape}"
            )
        return shape

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

    def kernels(self) -> tuple[str, ...]:
        """Return the names of the kernels for this number of features."""
        return (*self.KERNELS, *self.STRIPWISE) if self._strips((1, self.features)) else self.KERNELS

    def whitening(self, width: int, workspace: Workspace) -> Whitening:
        """Return what `whiten` writes, with rows of ``affine`` that are ``width`` long."""

        def make() -> Whitening:
            statistics = workspace.array(self, "whitening statistics", (2, self.features), np.float64)
            affine = workspace.array(self, "whitening affine", (4, width), self.dtype)
            return Whitening(statistics, statistics[0], statistics[1], affine)

        return workspace.cached(self, "whitening", width, make)

    def whiten(self, rows: int, moments: tuple[F64, int], own: Whitening) -> None:
        """Find what so many rows are whitened by, from moments as `moments` gives them; these move the running ones.

        Where there are none, as in evaluation, the running statistics are used as they are.
        """
        kernels.whiten(
            moments[0], rows, moments[1], self.momentum, self.epsilon, self.running_mean, self.running_var,
            self.gamma.value, self.beta.value, own.statistics, own.affine,
        )  # fmt: skip

    def moments(self, x: Float, training: bool, workspace: Workspace) -> tuple[F64, int]:
        """Return mean and squared deviations of spans of x, (E,), and the rows in a span; in evaluation of no span."""
        if not training:
            return self._no_moments, 1
        return self._moments(x, workspace), chunk_span(self.features) // self.features

    def projector(self) -> tuple[float, float]:
        """Return curvature and gain; without a projector the gain is 0."""
        return -1.0, 0.0

    def blend(self, workspace: Workspace) -> Blend:
        """Return what the projector computes with."""
        curvature, gain = self.projector()

        def make() -> Blend:
            s, g = root_curvature(curvature), effective_gain(gain)
            return Blend(curvature, gain, s, g, kernels.scalar(s, self.dtype), kernels.scalar(g, self.dtype))

        return workspace.cached(self, "blend", (curvature, gain), make)

    def sums(self, chunks: int, kinds: int, role: str, workspace: Workspace) -> F64:
        """Return a buffer for partial sums."""
        return workspace.array(self, f"sums {role}", (chunks, kinds, self.features), np.float64)

    def lanes(self, width: int, workspace: Workspace) -> Float:
        """Return scratch for four sums along a wide row."""
        return workspace.array(self, "lanes", (kernels.get_num_threads(), 4, width), self.dtype)

    def unwhitening(self, width: int, workspace: Workspace) -> tuple[F64, Float]:
        """Return what `finish_backward` writes: scratch (4, F) and its result, whose rows are ``width`` long."""

        def make() -> tuple[F64, Float]:
            totals = workspace.array(self, "totals backward", (4, self.features), np.float64)
            return totals, workspace.array(self, "affine backward", (5, width), self.dtype)

        return workspace.cached(self, "unwhitening", width, make)

    def finish_backward(self, one: ZSpacePass, sums: F64, own: tuple[F64, Float], workspace: Workspace) -> Float:
        """Add to the gradients of gamma and beta; return what the gradient of the input needs.

        Parameters
        ----------
        one : ZSpacePass
            The forward pass.
        sums : (chunks, 4, F)
            Partial sums of G, G p, G J and G J n.
        own : (scratch, result)
            Written; of `unwhitening`.

        Returns
        -------
        (5, width)
            mean, inv_std, inv_std gamma mean(G J), inv_std gamma mean(G J n), inv_std gamma.
        """
        totals, affine = own
        # Statistics of the batch depend on x; running ones are constants.
        members = float(one.rows) if one.training else math.inf
        kernels.unwhiten(
            sums, totals, one.mean, one.inv_std, members, self.gamma.value, workspace.accumulate, self.gamma.grad,
            self.beta.grad, affine,
        )  # fmt: skip
        return affine

    def _moments(self, x: Float, workspace: Workspace) -> F64:
        """Return mean and squared deviations of chunks: two passes over each."""
        span = chunk_span(self.features)
        moments = self.sums(-(-x.size // span), 2, "moments", workspace)
        shape = (kernels.get_num_threads(), 2, wide_row(self.features))
        lanes = workspace.array(self, "lanes of moments", shape, self.dtype)
        kernels.run(kernels.channel_moments, len(moments), x, span, lanes, moments)
        return moments

    def _strips(self, shape: tuple[int, ...]) -> int:
        """Return how many strips of channels an input is cut into; 0 where it is cut into rows."""
        return strips(shape[0], self.features) if len(shape) == 2 else 0

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        return self._forward_strips(x, workspace) if self._strips(x.shape) else self._forward_rows(x, workspace)

    def _forward_strips(self, x: Float, workspace: Workspace) -> Float:
        training = workspace.is_training(self.training)
        statistics = workspace.array(self, "statistics", (3, self.features), np.float64)
        if not training:
            statistics[0], statistics[1] = self.running_mean, self.running_var
        blend = self.blend(workspace)
        affine = workspace.array(self, "affine", (5, self.features), self.dtype)
        tangent = workspace.array(self, "tangent", (x.size,), self.dtype)
        out = workspace.array(self, "out", x.shape, self.dtype)
        sums = self.sums(1, 4, "pass", workspace)
        kernels.run(
            kernels.stripwise_norm, self._strips(x.shape), x, self.gamma.value, self.beta.value, self.epsilon, training,
            blend.s_number, blend.g_number, statistics, affine, tangent, out.reshape(-1), sums[0],
        )  # fmt: skip
        if training:
            kernels.follow_statistics(statistics, self.momentum, self.running_mean, self.running_var)
        values = InputValues(self.name, x, tangent, affine[0], affine[1], blend.s)
        one = self.one_pass(x.shape, (training, statistics[0], statistics[2]), values, workspace)
        kernels.add_chunks(sums, one.totals)
        workspace.keep(self, one)
        return out

    def _forward_rows(self, x: Float, workspace: Workspace) -> Float:
        flat = x.reshape(-1)
        width, span = wide_row(self.features), chunk_span(self.features)
        training = workspace.is_training(self.training)
        own, blend = self.whitening(width, workspace), self.blend(workspace)
        self.whiten(flat.size // self.features, self.moments(flat, training, workspace), own)
        normed = workspace.array(self, "normed", flat.shape, self.dtype)
        tangent = workspace.array(self, "tangent", flat.shape, self.dtype)
        out = workspace.array(self, "out", x.shape, self.dtype)
        sums = self.sums(-(-flat.size // span), 4, "pass", workspace)
        kernels.run(
            kernels.znorm, len(sums), flat, own.affine, blend.s_number, blend.g_number, span,
            self.lanes(width, workspace), normed, tangent, out.reshape(-1), sums,
        )  # fmt: skip
        one = self.one_pass(x.shape, (training, own.mean, own.inv_std), StoredValues(normed, tangent), workspace)
        kernels.add_chunks(sums, one.totals)
        workspace.keep(self, one)
        return out

    def one_pass(
        self, shape: tuple[int, ...], whitening: tuple[bool, F64, F64], values: WhitenedValues, workspace: Workspace
    ) -> ZSpacePass:
        """Return a forward pass, its totals not yet written.

        Parameters
        ----------
        shape : tuple                                of the input
        whitening : (training, mean, inv_std)
        values : WhitenedValues                      n and t
        workspace : Workspace
        """
        training, mean, inv_std = whitening
        blend, totals = self.blend(workspace), workspace.array(self, "totals", (4, self.features), np.float64)
        return ZSpacePass(
            shape=shape, training=training, mean=mean, inv_std=inv_std, values=values, totals=totals,
            feature_tangents=totals[:1], s=blend.s, g=blend.g, curvature=blend.curvature, gain=blend.gain,
        )  # fmt: skip

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        one = observation.pass_behind(self, x.shape, workspace)
        if isinstance(one.values, InputValues):
            return self._backward_strips(one, one.values, grad, workspace, input_grad)
        normed, tangent = one.values.arrays()
        flat = grad.reshape(-1)
        width, span = wide_row(self.features), chunk_span(self.features)
        sums = self.sums(-(-flat.size // span), 4, "backward", workspace)
        s, g = kernels.scalar(one.s, self.dtype), kernels.scalar(one.g, self.dtype)
        lanes = self.lanes(width, workspace)
        kernels.run(kernels.znorm_backward_sums, len(sums), normed, tangent, flat, s, g, span, lanes, sums)
        affine = self.finish_backward(one, sums, self.unwhitening(width, workspace), workspace)
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        kernels.run(
            kernels.znorm_backward_input, len(sums), normed, tangent, flat, affine[2:], g, span, grad_x.reshape(-1)
        )
        return grad_x

    def _backward_strips(
        self, one: ZSpacePass, values: InputValues, grad: Float, workspace: Workspace, input_grad: bool
    ) -> Float | None:
        statistics = workspace.array(self, "statistics", (3, self.features), np.float64)
        affine = workspace.array(self, "affine", (5, self.features), self.dtype)
        grad_x = workspace.array(self, "grad x", one.shape, self.dtype)
        kernels.run(
            kernels.stripwise_norm_backward, self._strips(one.shape), values.x, values.tangent, grad.reshape(-1),
            statistics, self.gamma.value, kernels.scalar(one.s, self.dtype), kernels.scalar(one.g, self.dtype),
            (one.training, workspace.accumulate, input_grad), affine, self.sums(1, 4, "backward", workspace)[0],
            self.gamma.grad, self.beta.grad, grad_x.reshape(-1),
        )  # fmt: skip
        return grad_x if input_grad else None


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
