"""Layers of a chain that are run as one: a batch norm with the ReLU and the maximum behind it.

Between them these three walk through the same memory eleven times. Run as one it is four times, and only the last
output is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import U8, Float
from spiral_core.kernels.znorm import chunk_span, wide_row
from spiral_core.nn import observation
from spiral_core.nn.activation import ReLU
from spiral_core.nn.module import Module, Parameter
from spiral_core.nn.norm import BatchNorm2d, ZSpaceBatchNorm2d
from spiral_core.nn.observation import RecomputedValues
from spiral_core.nn.pooling import MaxPool2d
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import effective_gain, root_curvature


@dataclass(frozen=True)
class Stage:
    """Layers ``first`` to ``last`` of a chain, and the module that runs them."""

    first: int
    last: int
    module: Module


@dataclass(frozen=True)
class _Kept:
    """What the backward pass needs: t and z, and with a maximum the winners' input and place."""

    x: Float
    tangent: Float
    out: Float
    taps: U8
    """Empty without a maximum."""


class RectifiedNorm(Module):
    """Run a batch norm of images and the ReLU behind it as one module.

    Parameters
    ----------
    norm : BatchNorm2d or ZSpaceBatchNorm2d
    relu : ReLU

    Notes
    -----
    The layers stay what they are: statistics, gradients and telemetry land where they would have landed. The input
    must not change between forward and telemetry.
    """

    KERNELS: ClassVar[tuple[str, ...]] = (
        "rectified_row",
        "rectified_norm",
        "rectified_norm_backward_sums",
        "statistics_gradient",
        "rectified_norm_backward_input",
    )

    def __init__(self, norm: BatchNorm2d | ZSpaceBatchNorm2d, *behind: Module) -> None:
        super().__init__("+".join(layer.name for layer in (norm, *behind)), norm.dtype)
        self.norm = norm

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        return self.norm.output_shape(shape)

    def parameters(self) -> list[Parameter]:
        """Return the norm's."""
        return self.norm.parameters()

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        norm, flat = self.norm, x.reshape(-1)
        whitening = norm.whitening(flat, workspace)
        curvature, gain = norm.projector()
        affine = norm.affine(*whitening[1:], self._width(x.shape))
        s, g = root_curvature(curvature), effective_gain(gain)
        kept = self._run(x, affine, kernels.scalar(s, self.dtype), kernels.scalar(g, self.dtype), workspace)
        workspace.keep(self, kept)
        values = RecomputedValues(flat, affine[0, : norm.features], affine[1, : norm.features], s)
        norm.keep_pass(x.shape, whitening, values, norm.sums(self._chunks(x.shape), 4, "pass", workspace), workspace)
        return kept.out

    def _width(self, shape: tuple[int, ...]) -> int:
        return wide_row(self.norm.features)

    def _chunks(self, shape: tuple[int, ...]) -> int:
        return -(-int(np.prod(shape)) // chunk_span(self.norm.features))

    def _run(self, x: Float, affine: Float, s: float, g: float, workspace: Workspace) -> _Kept:
        norm, flat = self.norm, x.reshape(-1)
        sums = norm.sums(self._chunks(x.shape), 4, "pass", workspace)
        tangent = workspace.array(self, "tangent", flat.shape, self.dtype)
        out = workspace.array(self, "out", x.shape, self.dtype)
        kernels.run(
            kernels.rectified_norm,
            len(sums), flat, affine, s, g, chunk_span(norm.features), norm.lanes(affine.shape[1], workspace),
            tangent, out.reshape(-1), sums,
        )  # fmt: skip
        return _Kept(flat, tangent, out, np.empty(0, np.uint8))

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        norm = self.norm
        one = observation.pass_behind(norm, x.shape, workspace)
        kept = workspace.kept(self, _Kept)
        flat = grad.reshape(-1)
        span = chunk_span(norm.features)
        sums = norm.sums(-(-flat.size // span), 4, "backward", workspace)
        through = workspace.array(self, "through", flat.shape, self.dtype)
        narrow = wide_row(norm.features)
        mean, inv_std = (values.astype(self.dtype) for values in (one.mean, one.inv_std))
        kernels.run(
            kernels.rectified_norm_backward_sums,
            len(sums), kept.x.reshape(-1), kept.tangent.reshape(-1), kept.out.reshape(-1), flat,
            np.tile(np.stack([mean, inv_std]), (1, narrow // norm.features)),
            kernels.scalar(one.s, self.dtype), kernels.scalar(one.g, self.dtype), span,
            norm.lanes(narrow, workspace), through, sums,
        )  # fmt: skip
        affine = norm.finish_backward(one, sums, self._width(x.shape), workspace)
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        self._backward_input(x, through, kept, affine, grad_x, workspace)
        return grad_x

    def _backward_input(
        self, x: Float, through: Float, kept: _Kept, affine: Float, grad_x: Float, workspace: Workspace
    ) -> None:
        kernels.run(
            kernels.rectified_norm_backward_input,
            self._chunks(x.shape), x.reshape(-1), through, affine, chunk_span(self.norm.features), grad_x.reshape(-1),
        )  # fmt: skip


class RectifiedNormPool(RectifiedNorm):
    """Run a batch norm of images, its ReLU and a maximum over 2 x 2 windows as one module.

    Parameters
    ----------
    norm : BatchNorm2d or ZSpaceBatchNorm2d
    relu : ReLU
    pool : MaxPool2d
        2 x 2 windows side by side without padding; height and width of the images are even.
    """

    KERNELS = (
        "rectified_row",
        "split_windows",
        "challenge",
        "rectified_norm_pool",
        "rectified_norm_backward_sums",
        "statistics_gradient",
        "add_where",
        "join_windows",
        "rectified_norm_pool_backward_input",
    )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, H/2, W/2, C) for (N, H, W, C)."""
        n, h, w, c = self.norm.output_shape(shape)
        return n, h // 2, w // 2, c

    def _width(self, shape: tuple[int, ...]) -> int:
        return shape[2] // 2 * shape[3]

    def _chunks(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def _run(self, x: Float, affine: Float, s: float, g: float, workspace: Workspace) -> _Kept:
        shape = self.output_shape(x.shape)
        width = affine.shape[1]
        lines = (shape[0], shape[1], width)
        out, winner, tangent = (
            workspace.array(self, role, lines, self.dtype) for role in ("out", "winner", "winner tangent")
        )
        taps = workspace.array(self, "taps", lines, np.uint8)
        rows = workspace.array(self, "rows", (kernels.get_num_threads(), 9, width), self.dtype)
        kernels.run(
            kernels.rectified_norm_pool,
            shape[0], x.reshape(*x.shape[:2], -1), affine, s, g, self.norm.lanes(width, workspace), rows,
            out, winner, tangent, taps, self.norm.sums(shape[0], 4, "pass", workspace),
        )  # fmt: skip
        return _Kept(winner, tangent, out.reshape(shape), taps)

    def _backward_input(
        self, x: Float, through: Float, kept: _Kept, affine: Float, grad_x: Float, workspace: Workspace
    ) -> None:
        width = affine.shape[1]
        rows = workspace.array(self, "rows", (kernels.get_num_threads(), 9, width), self.dtype)
        lines = (*x.shape[:2], x.shape[2] * x.shape[3])
        kernels.run(
            kernels.rectified_norm_pool_backward_input,
            x.shape[0], x.reshape(lines), through.reshape(kept.x.shape), kept.taps, affine, self.norm.features, rows,
            grad_x.reshape(lines),
        )  # fmt: skip


def plan(layers: Sequence[Module], shape: tuple[int, ...]) -> list[Stage]:
    """Decide which layers of a chain run as one for an input of this shape.

    A norm that is first in the chain runs alone: what it is given belongs to the caller and may change.
    """
    stages: list[Stage] = []
    position = 0
    while position < len(layers):
        module, length = layers[position], 1
        if position > 0 and isinstance(module, (BatchNorm2d, ZSpaceBatchNorm2d)):
            module, length = _joined(layers[position:], module, shape)
        stages.append(Stage(position, position + length - 1, module))
        shape = module.output_shape(shape)
        position += length
    return stages


def kernels_of(layers: Sequence[Module]) -> list[str]:
    """Return the kernels that a chain of these layers may need where it fuses, besides those of the layers alone.

    Images of odd height or width before a maximum need others, which are then compiled when they are first met.
    """
    named: list[str] = []
    for position in range(1, len(layers)):
        norm = layers[position]
        if isinstance(norm, (BatchNorm2d, ZSpaceBatchNorm2d)):
            module, length = _joined(layers[position:], norm, (1, 2, 2, norm.features))
            named += module.kernels() if length > 1 else ()
    return named


def _joined(
    layers: Sequence[Module], norm: BatchNorm2d | ZSpaceBatchNorm2d, shape: tuple[int, ...]
) -> tuple[Module, int]:
    if len(layers) < 2 or not isinstance(layers[1], ReLU):
        return norm, 1
    pool = layers[2] if len(layers) > 2 else None
    halves = (
        isinstance(pool, MaxPool2d)
        and (pool.kernel_size, pool.stride, pool.padding) == ((2, 2), (2, 2), (0, 0))
        and len(shape) == 4
        and shape[1] % 2 == shape[2] % 2 == 0
    )
    return (RectifiedNormPool(norm, *layers[1:3]), 3) if halves else (RectifiedNorm(norm, layers[1]), 2)
