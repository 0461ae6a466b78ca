"""Activations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ArgumentError
from spiral_core.kernels.elementwise import CHUNK
from spiral_core.nn.module import Module
from spiral_core.nn.workspace import Workspace


class _Elementwise(Module):
    """Apply a function to each element; a subclass names the two kernels, which walk over flat arrays in chunks."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself."""
        return shape

    @abstractmethod
    def _apply(self, chunks: int, x: Float, out: Float) -> None:
        """Write the function of each element of x."""

    @abstractmethod
    def _differentiate(self, chunks: int, x: Float, grad: Float, grad_x: Float) -> None:
        """Write the gradient with respect to each element of x."""

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        out = workspace.array(self, "out", x.shape, self.dtype)
        self._apply(-(-x.size // CHUNK), x.reshape(-1), out.reshape(-1))
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        if not input_grad:
            return None
        grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
        self._differentiate(-(-x.size // CHUNK), x.reshape(-1), grad.reshape(-1), grad_x.reshape(-1))
        return grad_x


class ReLU(_Elementwise):
    r"""Rectify: :math:`y = \max(x, 0)`, for any shape. NaN stays NaN, and its gradient passes."""

    KERNELS = ("rectify", "rectify_backward")

    def _apply(self, chunks: int, x: Float, out: Float) -> None:
        kernels.run(kernels.rectify, chunks, x, out)

    def _differentiate(self, chunks: int, x: Float, grad: Float, grad_x: Float) -> None:
        kernels.run(kernels.rectify_backward, chunks, x, grad, grad_x)


class Tanh(_Elementwise):
    r"""Squash: :math:`y = \tanh x`, for any shape. NaN stays NaN.

    Notes
    -----
    float32 uses the rational form of `spiral_core.kernels.real`, with a relative error below 5e-7.
    """

    KERNELS = ("squash", "squash_backward")

    def _apply(self, chunks: int, x: Float, out: Float) -> None:
        kernels.run(kernels.squash, chunks, x, out)

    def _differentiate(self, chunks: int, x: Float, grad: Float, grad_x: Float) -> None:
        kernels.run(kernels.squash_backward, chunks, x, grad, grad_x)


class GELU(_Elementwise):
    r"""Gaussian error linear unit: :math:`y = x \, \Phi(x)`, for any shape.

    Parameters
    ----------
    name : str
    dtype : float32 or float64
    approximate : "none" or "tanh"
        ``"none"`` is exact, :math:`\Phi(x) = \mathrm{erfc}(-x/\sqrt 2)/2`, computed in float64 and rounded once; the
        default, as in PyTorch. ``"tanh"`` is
        :math:`\Phi(x) \approx (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715 x^3)))/2`, at most 5e-4 away and several
        times as fast, because it becomes vector code.

    Notes
    -----
    The gradient is that of the form chosen. NaN stays NaN. Source: Hendrycks and Gimpel 2016.
    """

    KERNELS = ("gaussian_gate", "gaussian_gate_backward")

    def __init__(
        self, name: str, dtype: DTypeLike = np.float32, *, approximate: Literal["none", "tanh"] = "none"
    ) -> None:
        super().__init__(name, dtype)
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f'{name}: approximate must be "none" or "tanh", got {approximate!r}')
        self.approximate = approximate

    def _apply(self, chunks: int, x: Float, out: Float) -> None:
        kernels.run(kernels.gaussian_gate, chunks, x, self.approximate == "none", out)

    def _differentiate(self, chunks: int, x: Float, grad: Float, grad_x: Float) -> None:
        kernels.run(kernels.gaussian_gate_backward, chunks, x, grad, self.approximate == "none", grad_x)
