"""The fully connected layer, and the reshape that comes before it."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.nn import precision
from spiral_core.nn.initial import HE_OR_RAMP, check_init, climbing, generator_for, he_normal
from spiral_core.nn.module import Module, Parameter, check_size
from spiral_core.nn.workspace import Workspace


class Linear(Module):
    r"""Multiply rows by a matrix.

    .. math:: y = x W + b

    Parameters
    ----------
    name : str
    in_features, out_features : int   I and O, at least 1
    init : "he_normal" or "ramp"      first weights, see Notes
    generator : numpy Generator       draws the first weights; without one, seeded by the name
    dtype : float32 or float64

    Attributes
    ----------
    weight : (I, O)   W; note that this is the transpose of PyTorch's
    bias : (O,)       b, zero at first

    Notes
    -----
    ``"he_normal"`` draws values of variance 2 / I. ``"ramp"`` is the fixed pattern of the reference: 0.01, 0.02, 0.03
    and so on along the rows; it is there for comparison, and grows without bound.

    The products run on one thread in single-threaded BLAS: the largest product of the built-in models takes 0.1 ms.
    """

    def __init__(
        self,
        name: str,
        in_features: int,
        out_features: int,
        *,
        init: Literal["he_normal", "ramp"] = "he_normal",
        generator: np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, dtype)
        self.in_features = check_size(name, "in_features", in_features)
        self.out_features = check_size(name, "out_features", out_features)
        shape = (self.in_features, self.out_features)
        if check_init(name, init, HE_OR_RAMP) == "ramp":
            weight: Float = climbing(prod(shape)).reshape(shape).astype(self.dtype)
        else:
            weight = he_normal(shape, self.in_features, generator_for(name, generator), self.dtype)
        self.weight = Parameter(f"{name}.weight", weight)
        self.bias = Parameter(f"{name}.bias", np.zeros(self.out_features, self.dtype))

    def parameters(self) -> list[Parameter]:
        """Return weight and bias."""
        return [self.weight, self.bias]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, O) for (N, I)."""
        if len(shape) != 2 or shape[1] != self.in_features:
            raise ShapeError(f"{self.name}: input must have shape (N, {self.in_features}), got {shape}")
        return shape[0], self.out_features

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        x, weight = precision.operands(self, x, (self.weight,), workspace)
        out = workspace.array(self, "out", (x.shape[0], self.out_features), self.dtype)
        # A diverged run must go on to show its NaN, so overflow is no warning here.
        with np.errstate(all="ignore"):
            np.matmul(x, weight, out=out)
            out += self.bias.value
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        x, grad, weight = precision.operands_backward(self, x, grad, (self.weight,), workspace)
        with np.errstate(all="ignore"):
            if workspace.accumulate:
                product = workspace.array(self, "grad weight", self.weight.value.shape, self.dtype)
                self.weight.grad += np.matmul(x.T, grad, out=product)
                self.bias.grad += grad.sum(axis=0)
            if not input_grad:
                return None
            grad_x = workspace.array(self, "grad x", x.shape, self.dtype)
            return np.matmul(grad, weight.T, out=grad_x)


class Flatten(Module):
    """Turn (N, ...) into (N, F) without moving anything; F is the product of the other axes."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, F)."""
        if len(shape) < 2:
            raise ShapeError(f"{self.name}: input must have at least two axes, got {shape}")
        return shape[0], prod(shape[1:])

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        return x.reshape(self.output_shape(x.shape))

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        return grad.reshape(x.shape) if input_grad else None
