"""Pooling of channels-last images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import U8, Float
from spiral_core.errors import ArgumentError, ShapeError, StateError
from spiral_core.nn.module import Module, check_pair
from spiral_core.nn.workspace import Workspace

MAX_TAPS = 256
"""A winner is stored in one byte."""


@dataclass(frozen=True)
class _Winners:
    shape: tuple[int, ...]
    taps: U8


class _WindowPool2d(Module):
    """What pooling over windows has in common: their geometry."""

    def __init__(
        self,
        name: str,
        kernel_size: tuple[int, int] = (2, 2),
        *,
        stride: tuple[int, int] | None = None,
        padding: tuple[int, int] = (0, 0),
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, dtype)
        self.kernel_size = check_pair(name, "kernel_size", kernel_size, 1)
        self.stride = check_pair(name, "stride", kernel_size if stride is None else stride, 1)
        self.padding = check_pair(name, "padding", padding, 0)
        if any(2 * pad > taps for pad, taps in zip(self.padding, self.kernel_size, strict=True)):
            raise ArgumentError(f"{name}: padding must be at most half of kernel_size, got {padding!r}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, OH, OW, C) for (N, H, W, C)."""
        if len(shape) != 4:
            raise ShapeError(f"{self.name}: input must have shape (N, H, W, C), got {shape}")
        out = [
            (size + 2 * pad - taps) // stride + 1
            for size, pad, taps, stride in zip(shape[1:3], self.padding, self.kernel_size, self.stride, strict=True)
        ]
        if min(out) < 1:
            raise ShapeError(f"{self.name}: the window {self.kernel_size} is larger than the image of shape {shape}")
        return shape[0], out[0], out[1], shape[3]

    def _geometry(self) -> tuple[int, ...]:
        return (*self.kernel_size, *self.stride, *self.padding)


class MaxPool2d(_WindowPool2d):
    """Take the maximum over windows of each channel.

    Parameters
    ----------
    name : str
    kernel_size : (A, B)        window, at most 256 pixels
    stride : pair, optional     the window itself by default
    padding : pair              at most half the window; padding never wins
    dtype : float32 or float64

    Notes
    -----
    (N, H, W, C) becomes (N, OH, OW, C) with OH = (H + 2 p_h - A) // s_h + 1. Of equal values the first in the
    window wins; a NaN always does.
    """

    KERNELS = ("max_pool", "max_pool_backward")

    def __init__(
        self,
        name: str,
        kernel_size: tuple[int, int] = (2, 2),
        *,
        stride: tuple[int, int] | None = None,
        padding: tuple[int, int] = (0, 0),
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, kernel_size, stride=stride, padding=padding, dtype=dtype)
        if self.kernel_size[0] * self.kernel_size[1] > MAX_TAPS:
            raise ArgumentError(f"{name}: kernel_size must span at most {MAX_TAPS} pixels, got {kernel_size!r}")

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        shape = self.output_shape(x.shape)
        out = workspace.array(self, "out", shape, self.dtype)
        taps = workspace.array(self, "taps", shape, np.uint8)
        kernels.run(kernels.max_pool, shape[0], x, self._geometry(), out, taps)
        workspace.keep(self, _Winners(x.shape, taps))
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        winners = workspace.kept(self, _Winners)
        if winners.shape != x.shape:
            raise StateError(f"{self.name}: forward saw shape {winners.shape}, backward got {x.shape}")
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        kernels.run(kernels.max_pool_backward, x.shape[0], grad, winners.taps, self._geometry(), grad_x)
        return grad_x


class AvgPool2d(_WindowPool2d):
    r"""Average over windows of each channel.

    .. math:: y_{nijc} = \frac{1}{AB} \sum_{ab} x_{n,\; i s_h + a - p_h,\; j s_w + b - p_w,\; c}

    Parameters
    ----------
    name : str
    kernel_size : (A, B)        window
    stride : pair, optional     the window itself by default
    padding : pair              zeros around the image, at most half the window
    dtype : float32 or float64

    Notes
    -----
    (N, H, W, C) becomes (N, OH, OW, C) with OH = (H + 2 p_h - A) // s_h + 1. Padding counts: the divisor is always
    A*B (PyTorch's ``count_include_pad=True``).
    """

    KERNELS = ("average_pool", "average_pool_backward")

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        out = workspace.array(self, "out", self.output_shape(x.shape), self.dtype)
        kernels.run(kernels.average_pool, x.shape[0], x, self._geometry(), out)
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        kernels.run(kernels.average_pool_backward, x.shape[0], grad, self._geometry(), grad_x)
        return grad_x


class GlobalAveragePool2d(Module):
    r"""Average each channel over the image: :math:`y_{nc} = \frac{1}{HW} \sum_{hw} x_{nhwc}`."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, C) for (N, H, W, C)."""
        if len(shape) != 4:
            raise ShapeError(f"{self.name}: input must have shape (N, H, W, C), got {shape}")
        return shape[0], shape[3]

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        images, h, w, channels = x.shape
        out = workspace.array(self, "out", (images, channels), self.dtype)
        ones = np.ones((1, h * w), self.dtype)
        # As a product with a row of ones, the sum over pixels is one call into BLAS per image.
        with np.errstate(all="ignore"):
            np.matmul(ones, x.reshape(images, h * w, channels), out=out.reshape(images, 1, channels))
            out /= self.dtype.type(h * w)
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        share = workspace.array(self, "share", grad.shape, self.dtype)
        with np.errstate(all="ignore"):
            np.divide(grad, self.dtype.type(x.shape[1] * x.shape[2]), out=share)
        grad_x[...] = share[:, None, None, :]
        return grad_x
