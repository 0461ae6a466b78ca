"""Convolution of channels-last images."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.kernels.znorm import wide_row
from spiral_core.nn import precision
from spiral_core.nn.initial import HE_OR_RAMP, check_init, folding, generator_for, he_normal
from spiral_core.nn.module import Module, Parameter, check_pair, check_size
from spiral_core.nn.workspace import Workspace

CHUNK_PIXELS = 6272
"""Output pixels of one partial sum of the weight's gradient, about: eight images of 28 x 28. The rounding of a sum
grows with its length, and partial sums are what threads share."""


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
        "is_plane",
        "correlate_plane",
        "correlate_plane_backward",
        "correlate",
        "convolve",
        "convolve_backward_weight",
        "spread_image",
        "convolve_backward_input",
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
        images = max(1, CHUNK_PIXELS // (out_h * out_w))
        return (
            *shape[1:], *self.kernel_size, *self.stride, *self.padding, *self.dilation, out_h, out_w,
            min(images, shape[0]),
        )  # fmt: skip

    def _padded(self, shape: tuple[int, ...], workspace: Workspace) -> Float:
        """Return scratch for one padded image per thread."""
        # Asked for with both axes, because the zero border moves when they change at the same product.
        h, w, c = shape[1:]
        threads = kernels.get_num_threads()
        padded = (threads, h + 2 * self.padding[0], w + 2 * self.padding[1], c)
        return workspace.array(self, "padded", padded, self.dtype, zero=True).reshape(threads, -1)

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        x, weight = precision.operands(self, x, (self.weight,), workspace)
        out = workspace.array(self, "out", self.output_shape(x.shape), self.dtype)
        images = x.shape[0]
        kernels.run(
            kernels.convolve,
            images,
            x.reshape(images, -1),
            weight.reshape(-1),
            self.bias.value,
            self._geometry(x.shape),
            self._padded(x.shape, workspace),
            out.reshape(images, -1),
        )
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not (workspace.accumulate or input_grad):
            return None
        x, grad, weight = precision.operands_backward(self, x, grad, (self.weight,), workspace)
        geometry = self._geometry(x.shape)
        if workspace.accumulate:
            self._backward_weight(x, grad, geometry, workspace)
        if not input_grad:
            return None
        images, (h, w, c) = x.shape[0], x.shape[1:]
        a_taps, b_taps = self.kernel_size
        turned = workspace.array(self, "weight turned", (a_taps, b_taps, self.out_channels, c), self.dtype)
        turned[...] = weight[::-1, ::-1].transpose(0, 1, 3, 2)
        rows = h + self.dilation[0] * (a_taps - 1)
        columns = w + self.dilation[1] * (b_taps - 1)
        backward = (rows, columns, self.out_channels, a_taps, b_taps, 1, 1, 0, 0, *self.dilation, h, w, geometry[13])
        shape = (kernels.get_num_threads(), rows, columns, self.out_channels)
        spread = workspace.array(self, "spread", shape, self.dtype, zero=True)
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        kernels.run(
            kernels.convolve_backward_input,
            images,
            turned.reshape(-1),
            np.zeros(c, self.dtype),
            grad.reshape(images, -1),
            geometry,
            backward,
            spread.reshape(shape[0], -1),
            grad_x.reshape(images, -1),
        )
        return grad_x

    def _backward_weight(self, x: Float, grad: Float, geometry: tuple[int, ...], workspace: Workspace) -> None:
        images, channels = x.shape[0], self.out_channels
        chunks = -(-images // geometry[13])
        lanes_shape = (kernels.get_num_threads(), 1, wide_row(channels))
        grad_weight = workspace.array(self, "grad weight", (chunks, self.weight.value.size), self.dtype)
        grad_bias = workspace.array(self, "grad bias", (chunks, 1, channels), np.float64)
        kernels.run(
            kernels.convolve_backward_weight,
            chunks,
            x.reshape(images, -1),
            grad.reshape(images, -1),
            geometry,
            self._padded(x.shape, workspace),
            workspace.array(self, "lanes", lanes_shape, self.dtype),
            grad_weight,
            grad_bias,
        )
        with np.errstate(all="ignore"):
            self.weight.grad += grad_weight.sum(axis=0).reshape(self.weight.grad.shape)
            self.bias.grad += grad_bias.sum(axis=(0, 1)).astype(self.dtype)
