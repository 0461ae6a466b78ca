"""Activations."""

from __future__ import annotations

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.kernels.elementwise import CHUNK
from spiral_core.nn.module import Module
from spiral_core.nn.workspace import Workspace


class ReLU(Module):
    r"""Rectify: :math:`y = \max(x, 0)`, for any shape. NaN stays NaN, and its gradient passes."""

    KERNELS = ("rectify", "rectify_backward")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        return shape

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        out = workspace.array(self, "out", x.shape, self.dtype)
        kernels.run(kernels.rectify, -(-x.size // CHUNK), x.reshape(-1), out.reshape(-1))
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        chunks = -(-x.size // CHUNK)
        kernels.run(kernels.rectify_backward, chunks, x.reshape(-1), grad.reshape(-1), grad_x.reshape(-1))
        return grad_x
