"""Between images and sequences: what a layer that walks through time needs around it.

Columns of an image are its time steps, so that a sequence stored as an image of height 1 keeps its order.
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.nn.module import Module
from spiral_core.nn.workspace import Workspace


class ImageToSequence(Module):
    r"""Read images column by column, left to right: :math:`y_{w,n,\,hC+c} = x_{n,h,w,c}`.

    Notes
    -----
    (N, H, W, C) becomes the time-major (T, N, F) with T = W and F = H C, as `Lstm` takes it. A sequence of T steps and
    F features, stored as an image (1, T, F), comes out as it is. The gradient goes the same way back.
    """

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (W, N, H*C) for (N, H, W, C)."""
        if len(shape) != 4 or 0 in shape:
            raise ShapeError(f"{self.name}: input must have shape (N, H, W, C), all at least 1, got {shape}")
        return shape[2], shape[0], shape[1] * shape[3]

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        images, height, width, channels = x.shape
        out = workspace.array(self, "out", self.output_shape(x.shape), self.dtype)
        out.reshape(width, images, height, channels)[...] = x.transpose(2, 0, 1, 3)
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        images, height, width, channels = x.shape
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        grad_x[...] = grad.reshape(width, images, height, channels).transpose(1, 2, 0, 3)
        return grad_x


class SequenceToImage(Module):
    r"""Lay a batch of sequences out as images of height 1: :math:`y_{n,0,t,f} = x_{t,n,f}`.

    Notes
    -----
    The time-major (T, N, F) becomes (N, 1, T, F), so that features over time can be pooled, and looked at by Grad-CAM,
    like those of an image. The inverse of `ImageToSequence` for images of height 1.
    """

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, 1, T, F) for (T, N, F)."""
        if len(shape) != 3 or 0 in shape:
            raise ShapeError(f"{self.name}: input must have shape (T, N, F), all at least 1, got {shape}")
        return shape[1], 1, shape[0], shape[2]

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        out = workspace.array(self, "out", self.output_shape(x.shape), self.dtype)
        out[:, 0] = x.transpose(1, 0, 2)
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        grad_x[...] = grad[:, 0].transpose(1, 0, 2)
        return grad_x
