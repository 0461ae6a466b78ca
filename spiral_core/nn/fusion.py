"""Layers of a chain that are run as one: a convolution, the batch norm behind it, its ReLU and a maximum.

One by one, the last three read or write an array of the norm's input's size eight times forward and eleven times back.
Run as one it is twice each, besides arrays of a quarter of that size, and only the last output is written. With the
convolution in front, an image of its output is still in cache when its moments are taken, and so is its gradient when
the convolution is differentiated, so that this gradient is never written as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple, cast

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import F64, U8, Float
from spiral_core.kernels.vector import LANES
from spiral_core.kernels.znorm import chunk_span
from spiral_core.nn import observation, precision
from spiral_core.nn.activation import ReLU
from spiral_core.nn.conv import Conv2d, NormBehind
from spiral_core.nn.module import Module, Parameter
from spiral_core.nn.norm import WHITENING, BatchNorm2d, Whitening, ZSpaceBatchNorm2d
from spiral_core.nn.observation import RecomputedValues, ZSpacePass
from spiral_core.nn.pooling import MaxPool2d
from spiral_core.nn.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """Layers ``first`` to ``last`` of a chain, and the module that runs them."""

    first: int
    last: int
    module: Module


class _Room(NamedTuple):
    """What a forward pass writes: t and z, sums, and with a maximum the winners' input and place."""

    winner: Float
    taps: U8
    """Both empty without a maximum: all of the input are winners."""
    tangent: Float
    out: Float
    flat: Float
    """The output again, as kernels take it."""
    sums: F64


class _Kept(NamedTuple):
    """What a forward pass hands to kernels: the same while array, training flag, curvature and gain are."""

    x: Float
    flat: Float
    """The same, as kernels take it."""
    room: _Room
    whitening: Whitening
    s: float
    g: float
    one: ZSpacePass


class Descent(NamedTuple):
    """What the gradient of a rectified norm's input is computed from.

    Parameters
    ----------
    x : (N, H, W, C)      the input
    through : (E,)        the gradient behind the projector, of all elements or of the winners
    taps : (E,)           the winners' places; empty without a maximum
    affine : (5, C)       as `rectified_norm_backward_input` takes it
    """

    x: Float
    through: Float
    taps: U8
    affine: Float


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
        *WHITENING,
        "rectified_norm",
        "rectified_norm_backward_sums",
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
        return self.follow(x, None, workspace)

    def follow(self, x: Float, moments: tuple[F64, int] | None, workspace: Workspace) -> Float:
        """Compute the output; where the moments of the input are known, they are given as `whiten` takes them."""
        norm = self.norm
        training = workspace.is_training(norm.training)
        # What is cached holds the array, so that no other one has its id.
        key = id(x), x.shape, training, norm.projector()
        kept = workspace.cached(self, "forward", key, lambda: self._kept(x, training, workspace))
        rows = kept.flat.size // norm.features
        norm.whiten(rows, moments or norm.moments(kept.flat, training, workspace), kept.whitening)
        self._run(kept)
        kernels.add_chunks(kept.room.sums, kept.one.totals)
        workspace.keep(self, kept)
        workspace.keep(norm, kept.one)
        return kept.room.out

    def _kept(self, x: Float, training: bool, workspace: Workspace) -> _Kept:
        norm, flat = self.norm, x.reshape(-1)
        own, blend = norm.whitening(norm.features, workspace), norm.blend(workspace)
        values = RecomputedValues(flat, own.affine[0], own.affine[1], blend.s)
        one = norm.one_pass(x.shape, (training, own.mean, own.inv_std), values, workspace)
        return _Kept(x, flat, self._room(x.shape, workspace), own, blend.s_number, blend.g_number, one)

    def _chunks(self, shape: tuple[int, ...]) -> int:
        return -(-prod(shape) // chunk_span(self.norm.features))

    def _room(self, shape: tuple[int, ...], workspace: Workspace) -> _Room:
        tangent = workspace.array(self, "tangent", (prod(shape),), self.dtype)
        out = workspace.array(self, "out", shape, self.dtype)
        sums = self.norm.sums(self._chunks(shape), 4, "pass as one", workspace)
        return _Room(np.empty(0, self.dtype), np.empty(0, np.uint8), tangent, out, out.reshape(-1), sums)

    def _run(self, kept: _Kept) -> None:
        room = kept.room
        kernels.run(
            kernels.rectified_norm, len(room.sums), kept.flat, kept.whitening.affine, kept.s, kept.g,
            chunk_span(self.norm.features), room.tangent, room.flat, room.sums,
        )  # fmt: skip

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        behind = self.descend(x, grad, workspace)
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        self._backward_input(behind, grad_x)
        return grad_x

    def descend(self, x: Float, grad: Float, workspace: Workspace) -> Descent:
        """Add to the gradients of gamma and beta; return what the gradient of the input is computed from."""
        norm = self.norm
        one = observation.pass_behind(norm, x.shape, workspace)
        kept, flat = workspace.kept(self, _Kept), grad.reshape(-1)
        room, span = kept.room, chunk_span(norm.features)

        def make() -> tuple[_Kept, F64, tuple[F64, Float], Descent]:
            sums = norm.sums(-(-flat.size // span), 4, "backward as one", workspace)
            through = workspace.array(self, "through", flat.shape, self.dtype)
            own = norm.unwhitening(norm.features, workspace)
            return kept, sums, own, Descent(x, through, room.taps, own[1])

        _, sums, own, behind = workspace.cached(self, "backward", (id(x), id(kept), flat.size), make)
        kernels.run(
            kernels.rectified_norm_backward_sums, len(sums), room.winner if room.taps.size else kept.flat,
            room.tangent, room.flat, flat, kept.whitening.affine, kept.s, kept.g, span, behind.through, sums,
        )  # fmt: skip
        norm.finish_backward(one, sums, own, workspace)
        return behind

    def _backward_input(self, behind: Descent, grad_x: Float) -> None:
        span = chunk_span(self.norm.features)
        kernels.run(
            kernels.rectified_norm_backward_input,
            self._chunks(grad_x.shape), behind.x.reshape(-1), behind.through, behind.affine, span, grad_x.reshape(-1),
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
        *WHITENING,
        "rectified_norm_pool",
        "rectified_norm_backward_sums",
        "rectified_norm_pool_backward_input",
    )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, H/2, W/2, C) for (N, H, W, C)."""
        n, h, w, c = self.norm.output_shape(shape)
        return n, h // 2, w // 2, c

    def _chunks(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def _room(self, shape: tuple[int, ...], workspace: Workspace) -> _Room:
        behind = self.shape_behind(shape)
        flat, winner, tangent = (
            workspace.array(self, role, (prod(behind),), self.dtype) for role in ("out", "winner", "winner tangent")
        )
        taps = workspace.array(self, "taps", flat.shape, np.uint8)
        sums = self.norm.sums(self._chunks(shape), 4, "pass as one", workspace)
        return _Room(winner, taps, tangent, flat.reshape(behind), flat, sums)

    def _run(self, kept: _Kept) -> None:
        room, shape = kept.room, kept.x.shape
        kernels.run(
            kernels.rectified_norm_pool, shape[0], kept.flat, shape[1:3], kept.whitening.affine, kept.s, kept.g,
            room.flat, room.winner, room.tangent, room.taps, room.sums,
        )  # fmt: skip

    def _backward_input(self, behind: Descent, grad_x: Float) -> None:
        kernels.run(
            kernels.rectified_norm_pool_backward_input, len(grad_x),
            behind.x.reshape(-1), behind.through, behind.taps, grad_x.shape[1:3], behind.affine, grad_x.reshape(-1),
        )  # fmt: skip


class ConvolvedNorm(Module):
    """Run a convolution and the rectified norm behind it as one module.

    Parameters
    ----------
    conv : Conv2d
    behind : RectifiedNorm
    """

    def __init__(self, conv: Conv2d, behind: RectifiedNorm) -> None:
        super().__init__(f"{conv.name}+{behind.name}", conv.dtype)
        self.conv = conv
        self.behind = behind

    def kernels(self) -> tuple[str, ...]:
        """Return those of the two."""
        return (*self.conv.kernels(), *self.behind.kernels())

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the last layer's output."""
        return self.behind.output_shape(self.conv.output_shape(shape))

    def parameters(self) -> list[Parameter]:
        """Return those of the two."""
        return [*self.conv.parameters(), *self.behind.parameters()]

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        norm = self.behind.norm
        wanted = len(x) if workspace.is_training(norm.training) else 0
        moments = norm.sums(wanted, 2, "moments of images", workspace)
        y = self.conv.convolve(x, moments, workspace)
        workspace.keep(self, y)
        return self.behind.follow(y, (moments, y.shape[1] * y.shape[2]), workspace)

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        y, images = workspace.kept(self, np.ndarray), len(x)
        if not workspace.accumulate and not input_grad:
            return None
        if precision.kind_of(self.conv, workspace):
            # The convolution multiplies a rounded gradient, which is made from the whole of it.
            return self.conv.backward_in(x, self._gradient(y, grad, workspace), workspace, input_grad=input_grad)
        descent = self.behind.descend(y, grad, workspace)

        def make() -> tuple[Descent, Float, NormBehind]:
            taps = descent.taps.reshape(images, -1) if descent.taps.size else np.empty((0, 0), np.uint8)
            behind = NormBehind(y.reshape(images, -1), taps, descent.affine)
            return descent, descent.through.reshape(images, -1), behind

        _, through, behind = workspace.cached(self, "backward", id(descent), make)
        return self.conv.convolve_backward(x, through, self.conv.weight.value, behind, workspace, input_grad)

    def _gradient(self, y: Float, grad: Float, workspace: Workspace) -> Float:
        return cast("Float", self.behind.backward_in(y, grad, workspace, input_grad=True))


def plan(layers: Sequence[Module], shape: tuple[int, ...]) -> list[Stage]:
    """Decide which layers of a chain run as one for an input of this shape.

    A norm that is first in the chain runs alone: what it is given belongs to the caller and may change.
    """
    stages: list[Stage] = []
    position = 0
    while position < len(layers):
        module, length = layers[position], 1
        following = layers[position + 1] if position + 1 < len(layers) else None
        if position > 0 and isinstance(module, (BatchNorm2d, ZSpaceBatchNorm2d)):
            module, length = _joined(layers[position:], module, shape)
        elif isinstance(module, Conv2d) and isinstance(following, (BatchNorm2d, ZSpaceBatchNorm2d)):
            behind, more = _joined(layers[position + 1 :], following, module.output_shape(shape))
            if isinstance(behind, RectifiedNorm):
                module, length = ConvolvedNorm(module, behind), 1 + more
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
    # The kernels do sixteen channels at a time.
    if norm.features % LANES or len(layers) < 2 or not isinstance(layers[1], ReLU):
        return norm, 1
    pool = layers[2] if len(layers) > 2 else None
    halves = (
        isinstance(pool, MaxPool2d)
        and (pool.kernel_size, pool.stride, pool.padding) == ((2, 2), (2, 2), (0, 0))
        and len(shape) == 4
        and shape[1] % 2 == shape[2] % 2 == 0
    )
    return (RectifiedNormPool(norm, *layers[1:3]), 3) if halves else (RectifiedNorm(norm, layers[1]), 2)
