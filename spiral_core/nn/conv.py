"""Convolution of channels-last images."""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import F64, U8, Float
from spiral_core.errors import ShapeError
from spiral_core.kernels.winograd import PLACES, scratch_size
from spiral_core.kernels.znorm import wide_row
from spiral_core.nn import precision
from spiral_core.nn.initial import HE_OR_RAMP, check_init, folding, generator_for, he_normal
from spiral_core.nn.module import Module, Parameter, check_pair, check_size
from spiral_core.nn.workspace import Workspace

CHUNK_PIXELS = 1568
"""Output pixels of one partial sum of the weight's gradient, about: two images of 28 x 28. The rounding of a sum
grows with its length, and partial sums are what threads share."""


class NormBehind(NamedTuple):
    """What the gradient of a convolution's output is computed from, image by image, where a norm follows.

    Parameters
    ----------
    x : (N, P*D)        the norm's input
    taps : (N, P/4*D)   winners of the windows, or without a maximum (0, 0)
    affine : (5, D)     as `spiral_core.kernels.rectified.rectified_norm_backward_input` takes it; (0, 0): no norm
    """

    x: Float
    taps: U8
    affine: Float


class _Scratch(NamedTuple):
    """What the forward pass writes, and what both passes need besides, for T threads."""

    geometry: tuple[int, ...]
    padded: Float
    """(T, padded image)"""
    tiles: Float
    """Where the correlation is done in tiles, else (T, 0)."""
    centre: Float
    """(T, D)"""
    transformed: Float
    """A weight as a correlation in tiles takes it."""
    out: Float
    """(N, OH, OW, D)"""
    rows: Float
    """(N, OH*OW*D), the same"""


class _Backward(NamedTuple):
    """What a backward pass writes, for K chunks of images and T threads."""

    chunks: int
    zeros: Float
    """(C,)"""
    turned: Float
    """(A, B, D, C)"""
    taps: Float
    """The same, flat."""
    behind: Float
    """(T, gradient of an image)"""
    lanes: Float
    spread: Float
    """(T, image that a gradient is spread over)"""
    grad_weight: Float
    """(K, A*B*C*D)"""
    grad_bias: F64
    """(K, 1, D)"""
    biases: F64
    """(K, D), the same"""
    grad_x: Float
    """(N, H, W, C)"""
    grad_rows: Float
    """(N, H*W*C), the same"""


class Conv2d(Module):
    r"""Cross-correlate images with a bank of kernels, with zero padding.

    .. math:: y_{nijd} = b_d + \sum_{abc} x_{n,\; i s_h + a d_h - p_h,\; j s_w + b d_w - p_w,\; c} \, W_{abcd}

    Parameters
    ----------
    name : str
    in_channels, out_channels : int        C and D
    kernel_size : (A, B)                   taps, at least 1
    stride, padding, dilation : pairs      s, p, d as (height, width)
    init : "he_normal" or "ramp"           first weights, see Notes
    generator : numpy Generator            draws the first weights; without one, seeded by the name
    dtype : float32 or float64

    Attributes
    ----------
    weight : (A, B, C, D)   W
    bias : (D,)             b, zero at first

    Notes
    -----
    Inputs are (N, H, W, C), outputs (N, OH, OW, D) with OH = (H + 2 p_h - d_h (A-1) - 1) // s_h + 1.

    ``"he_normal"`` draws values of variance 2 / (A B C). ``"ramp"`` is the fixed pattern of the reference: from 0.02
    on, each value is 1.57 times the one before, folded back below 0.15; filter by filter in the order (C, A, B).
    """

    KERNELS = (
        "fold_lanes",
        "pad_image",
        "product",
        "transform_weight",
        "transform_patches",
        "multiply_places",
        "correlate_tiles",
        "is_plane",
        "correlate_plane",
        "correlate_plane_backward",
        "correlate",
        "span_moments",
        "convolve",
        "spread_image",
        "correlate_backward",
        "rectified_norm_backward_input",
        "rectified_norm_pool_backward_input",
        "convolve_backward",
        "add_parts",
    )

    def __init__(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (3, 3),
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        init: Literal["he_normal", "ramp"] = "he_normal",
        generator: np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, dtype)
        self.in_channels = check_size(name, "in_channels", in_channels)
        self.out_channels = check_size(name, "out_channels", out_channels)
        self.kernel_size = check_pair(name, "kernel_size", kernel_size, 1)
        self.stride = check_pair(name, "stride", stride, 1)
        self.padding = check_pair(name, "padding", padding, 0)
        self.dilation = check_pair(name, "dilation", dilation, 1)
        shape = (*self.kernel_size, self.in_channels, self.out_channels)
        if check_init(name, init, HE_OR_RAMP) == "ramp":
            filters = folding(prod(shape)).reshape(shape[3], shape[2], shape[0], shape[1])
            weight: Float = filters.transpose(2, 3, 1, 0).astype(self.dtype, order="C")
        else:
            weight = he_normal(shape, prod(shape[:3]), generator_for(name, generator), self.dtype)
        self.weight = Parameter(f"{name}.weight", weight)
        self.bias = Parameter(f"{name}.bias", np.zeros(self.out_channels, self.dtype))
        self._no_moments = np.empty((0, 2, self.out_channels))

    def parameters(self) -> list[Parameter]:
        """Return weight and bias."""
        return [self.weight, self.bias]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, OH, OW, D) for (N, H, W, C)."""
        if len(shape) != 4 or shape[3] != self.in_channels:
            raise ShapeError(f"{self.name}: input must have shape (N, H, W, {self.in_channels}), got {shape}")
        out = [
            (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
            for size, pad, dilation, taps, stride in zip(
                shape[1:3], self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        if min(out) < 1:
            raise ShapeError(f"{self.name}: the dilated kernel is larger than the padded image of shape {shape}")
        return shape[0], out[0], out[1], self.out_channels

    def _geometry(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the tuple that the kernels take; the images per chunk depend on shapes alone."""
        _, out_h, out_w, _ = self.output_shape(shape)
        images = min(max(1, CHUNK_PIXELS // (out_h * out_w)), shape[0])
        return (
            *shape[1:], *self.kernel_size, *self.stride, *self.padding, *self.dilation, out_h, out_w, images,
        )  # fmt: skip

    def _scratch(self, shape: tuple[int, ...], workspace: Workspace) -> _Scratch:
        threads = kernels.get_num_threads()

        def make() -> _Scratch:
            geometry, (h, w, c) = self._geometry(shape), shape[1:]
            # Asked for with both axes, because the zero border moves when they change at the same product.
            padded = (threads, h + 2 * self.padding[0], w + 2 * self.padding[1], c)
            tiles = workspace.array(self, "tiles", (threads, scratch_size(geometry, self.out_channels)), self.dtype)
            pairs = self.in_channels * self.out_channels if tiles.size else 0
            out = workspace.array(self, "out", self.shape_behind(shape), self.dtype)
            return _Scratch(
                geometry,
                workspace.array(self, "padded", padded, self.dtype, zero=True).reshape(threads, -1),
                tiles,
                workspace.array(self, "centre", (threads, self.out_channels), self.dtype),
                workspace.array(self, "weight transformed", (PLACES * pairs,), self.dtype),
                out,
                out.reshape(len(out), -1),
            )

        return workspace.cached(self, "scratch", (shape, threads), make)

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        return self.convolve(x, self._no_moments, workspace)

    def convolve(self, x: Float, moments: F64, workspace: Workspace) -> Float:
        """Compute the output from a checked input, and the moments of each output image.

        ``moments`` is (N, 2, D), where D is a multiple of 16, or has no entries: then they are not wanted.
        """
        x, weight = precision.operands(self, x, (self.weight,), workspace)
        scratch = self._scratch(x.shape, workspace)
        images, taps = len(x), weight.reshape(-1)
        if scratch.tiles.size:
            taps = self._transformed(taps, scratch)
        kernels.run(
            kernels.convolve, images, x.reshape(images, -1), taps, self.bias.value, scratch.geometry, scratch.padded,
            scratch.tiles, scratch.rows, scratch.centre, moments,
        )  # fmt: skip
        return scratch.out

    def _transformed(self, taps: Float, scratch: _Scratch) -> Float:
        """Return a weight (3, 3, ...), flat, as a correlation in tiles takes it."""
        kernels.transform_weight(taps, self.in_channels * self.out_channels, scratch.transformed)
        return scratch.transformed

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not (workspace.accumulate or input_grad):
            return None
        x, grad, weight = precision.operands_backward(self, x, grad, (self.weight,), workspace)
        nothing = np.empty((0, 0), self.dtype)
        behind = NormBehind(nothing, np.empty((0, 0), np.uint8), nothing)
        return self.convolve_backward(x, grad.reshape(x.shape[0], -1), weight, behind, workspace, input_grad)

    def convolve_backward(
        self, x: Float, grad: Float, weight: Float, behind: NormBehind, workspace: Workspace, input_grad: bool
    ) -> Float | None:
        """Compute what `_backward` does from what the products take, and from the gradient of a norm behind."""
        images, scratch = len(x), self._scratch(x.shape, workspace)
        own = self._backward_arrays(x.shape, behind.x.shape[1], workspace, input_grad)
        taps = own.taps
        if input_grad:
            own.turned[...] = weight[::-1, ::-1].transpose(0, 1, 3, 2)
            if scratch.tiles.size:
                taps = self._transformed(taps, scratch)
        kernels.run(
            kernels.convolve_backward, own.chunks, x.reshape(images, -1), taps, own.zeros, grad, scratch.geometry,
            behind.x, behind.taps, behind.affine, own.behind, scratch.padded, scratch.tiles, own.lanes, own.spread,
            own.grad_weight, own.grad_bias, own.grad_rows,
        )  # fmt: skip
        if workspace.accumulate:
            kernels.add_parts(own.grad_weight, own.biases, self.weight.grad.reshape(-1), self.bias.grad)
        return own.grad_x if input_grad else None

    def _backward_arrays(self, shape: tuple[int, ...], width: int, workspace: Workspace, input_grad: bool) -> _Backward:
        """Return what a backward pass writes; ``width``: numbers of an image behind the convolution, or none."""
        threads, accumulate = kernels.get_num_threads(), workspace.accumulate

        def array(role: str, shape: tuple[int, ...], *, zero: bool = False) -> Float:
            return workspace.array(self, role, shape, self.dtype, zero=zero)

        def make() -> _Backward:
            (images, h, w, c), d, (a_taps, b_taps) = shape, self.out_channels, self.kernel_size
            chunks = -(-images // self._geometry(shape)[13])
            used = chunks if accumulate else 0
            rows, columns = h + self.dilation[0] * (a_taps - 1), w + self.dilation[1] * (b_taps - 1)
            # The gradient of the input is a correlation with the turned weight; where nobody wants it, all is empty.
            wanted = int(input_grad)
            grad_x = array("grad x", (wanted * images, h, w, c))
            spread = array("spread", (wanted * threads, rows, columns, d), zero=True)
            grad_bias = workspace.array(self, "grad bias", (used, 1, d), np.float64)
            turned = array("weight turned", (a_taps, b_taps, wanted * d, c))
            return _Backward(
                chunks=chunks,
                zeros=np.zeros(c, self.dtype),
                turned=turned,
                taps=turned.reshape(-1),
                behind=array("behind", (threads, width)),
                lanes=array("lanes", (threads, 1, wide_row(d))),
                spread=spread.reshape(len(spread), rows * columns * d),
                grad_weight=array("grad weight", (used, self.weight.value.size)),
                grad_bias=grad_bias,
                biases=grad_bias.reshape(used, d),
                grad_x=grad_x,
                grad_rows=grad_x.reshape(len(grad_x), h * w * c),
            )

        return workspace.cached(self, "backward", (shape, width, threads, accumulate, input_grad), make)
