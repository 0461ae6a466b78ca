"""Convolution of channels-last images."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.nn import precision
from spiral_core.nn.initial import generator_for, he_normal
from spiral_core.nn.module import Module, Parameter, check_pair, check_size
from spiral_core.nn.workspace import Workspace

PATCH_ELEMENTS = 131072
"""Most elements of the patch matrix of one chunk (512 KiB of float32): it is written and read back at once, so it
should stay in a core's second-level cache."""


class Conv2d(Module):
    r"""Cross-correlate images with a bank of kernels, with zero padding.

    .. math:: y_{nijd} = b_d + \sum_{abc} x_{n,\; i s_h + a d_h - p_h,\; j s_w + b d_w - p_w,\; c} \, W_{abcd}

    Parameters
    ----------
    name : str
    in_channels, out_channels : int        C and D
    kernel_size : (A, B)                   taps, at least 1
    stride, padding, dilation : pairs      s, p, d as (height, width)
    generator : numpy Generator            draws the first weights (He normal); without one, seeded by the name
    dtype : float32 or float64

    Attributes
    ----------
    weight : (A, B, C, D)   W
    bias : (D,)             b, zero at first

    Notes
    -----
    Inputs are (N, H, W, C), outputs (N, OH, OW, D) with OH = (H + 2 p_h - d_h (A-1) - 1) // s_h + 1.
    """

    KERNELS = ("pad_image", "gather_taps", "gather_patches", "convolve", "scatter_patches", "convolve_backward")

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
        fan_in = shape[0] * shape[1] * shape[2]
        draws = generator_for(name, generator)
        self.weight = Parameter(f"{name}.weight", he_normal(shape, fan_in, draws, self.dtype))
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
        taps = self.kernel_size[0] * self.kernel_size[1] * self.in_channels
        fit = max(1, PATCH_ELEMENTS // (out_h * out_w * taps))
        images = 1 << (fit.bit_length() - 1)
        return (
            *shape[1:], *self.kernel_size, *self.stride, *self.padding, *self.dilation, out_h, out_w,
            min(images, shape[0]),
        )  # fmt: skip

    def _scratch(self, shape: tuple[int, ...], geometry: tuple[int, ...], workspace: Workspace) -> tuple[Float, Float]:
        threads = kernels.get_num_threads()
        h, w, c = shape[1:]
        taps = self.kernel_size[0] * self.kernel_size[1] * c
        rows = geometry[11] * geometry[12] * geometry[13]
        # Asked for with both axes, because the zero border moves when they change at the same product.
        shape_padded = (2 * threads, h + 2 * self.padding[0], w + 2 * self.padding[1], c)
        padded = workspace.array(self, "padded", shape_padded, self.dtype, zero=True)
        patches = workspace.array(self, "patches", (threads, rows, taps), self.dtype)
        return padded.reshape(2 * threads, -1), patches

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        x, weight = precision.operands(self, x, (self.weight,), workspace)
        out = workspace.array(self, "out", self.output_shape(x.shape), self.dtype)
        geometry = self._geometry(x.shape)
        padded, patches = self._scratch(x.shape, geometry, workspace)
        images = x.shape[0]
        kernels.run(
            kernels.convolve,
            -(-images // geometry[13]),
            x.reshape(images, -1),
            weight.reshape(-1, self.out_channels),
            self.bias.value,
            geometry,
            padded,
            patches,
            out.reshape(-1, self.out_channels),
        )
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        want_weight = workspace.accumulate
        if not (want_weight or input_grad):
            return None
        x, grad, weight = precision.operands_backward(self, x, grad, (self.weight,), workspace)
        geometry = self._geometry(x.shape)
        padded, patches = self._scratch(x.shape, geometry, workspace)
        images, channels = x.shape[0], self.out_channels
        chunks = -(-images // geometry[13])
        weight = weight.reshape(-1, channels)
        weight_t = workspace.array(self, "weight transposed", weight.T.shape, self.dtype)
        weight_t[...] = weight.T
        parts = chunks if want_weight else 0
        grad_weight = workspace.array(self, "grad weight", (parts, *weight.shape), self.dtype)
        grad_bias = workspace.array(self, "grad bias", (parts, channels), np.float64)
        grad_x = workspace.array(self, "grad x", x.shape if input_grad else (0, *x.shape[1:]), self.dtype)
        kernels.run(
            kernels.convolve_backward,
            chunks,
            x.reshape(images, -1),
            weight_t,
            grad.reshape(-1, channels),
            geometry,
            want_weight,
            input_grad,
            padded,
            patches,
            grad_weight,
            grad_bias,
            grad_x.reshape(grad_x.shape[0], x[0].size),
        )
        if want_weight:
            with np.errstate(all="ignore"):
                self.weight.grad += grad_weight.sum(axis=0).reshape(self.weight.grad.shape)
                self.bias.grad += grad_bias.sum(axis=0).astype(self.dtype)
        return grad_x if input_grad else None
