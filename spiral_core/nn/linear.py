"""The fully connected layer, and the reshape that comes before it."""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import ShapeError
from spiral_core.kernels.thin import INPUTS, ROWS
from spiral_core.kernels.vector import LANES
from spiral_core.nn import precision
from spiral_core.nn.initial import HE_OR_RAMP, check_init, climbing, generator_for, he_normal
from spiral_core.nn.module import Module, Parameter, check_size
from spiral_core.nn.workspace import Workspace

_THIN = ("product", "multiply_thin", "multiply_thin_backward_weight", "multiply_thin_backward_input")


class _Thin(NamedTuple):
    """What a thin layer writes; a part is the array without the room behind it that the kernels ask for."""

    weight: Float
    weight_part: Float
    bias: Float
    bias_part: Float
    grad: Float
    grad_part: Float
    wide: Float
    wide_grad: Float
    out: Float
    turned: Float
    zeros: Float
    grad_x: Float


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

    With at most 16 outputs, as behind a classifier, the products are kernels that threads share. Others run on one
    thread in single-threaded BLAS: the largest of the built-in models takes 0.1 ms.
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
        self._thin = self.out_features <= LANES
        self._valid = (np.arange(LANES) < self.out_features).astype(self.dtype)

    def parameters(self) -> list[Parameter]:
        """Return weight and bias."""
        return [self.weight, self.bias]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, O) for (N, I)."""
        if len(shape) != 2 or shape[1] != self.in_features:
            raise ShapeError(f"{self.name}: input must have shape (N, {self.in_features}), got {shape}")
        return shape[0], self.out_features

    def kernels(self) -> tuple[str, ...]:
        """Return the kernels of a thin layer, or that which adds the bias of another."""
        return _THIN if self._thin else ("add_row",)

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        x, weight = precision.operands(self, x, (self.weight,), workspace)
        if self._thin:
            return self._forward_thin(x, weight, workspace)
        out = workspace.array(self, "out", (x.shape[0], self.out_features), self.dtype)
        # A diverged run must go on to show its NaN, so overflow is no warning here.
        with np.errstate(all="ignore"):
            np.matmul(x, weight, out=out)
        kernels.add_row(out, self.bias.value)
        return out

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        x, grad, weight = precision.operands_backward(self, x, grad, (self.weight,), workspace)
        if self._thin:
            return self._backward_thin(x, grad, weight, workspace, input_grad)
        with np.errstate(all="ignore"):
            if workspace.accumulate:
                self.bias.grad += grad.sum(axis=0)
                product = workspace.array(self, "grad weight", self.weight.value.shape, self.dtype)
                self.weight.grad += np.matmul(x.T, grad, out=product)
            grad_x = workspace.array(self, "grad x", x.shape, self.dtype) if input_grad else None
            return None if grad_x is None else np.matmul(grad, weight.T, out=grad_x)

    def _thin_arrays(self, rows: int, workspace: Workspace) -> _Thin:
        """Return what the passes of a thin layer over so many rows write."""

        def array(role: str, *shape: int) -> Float:
            return workspace.array(self, role, shape, self.dtype)

        def make() -> _Thin:
            room, out_room, grad_room = (
                workspace.array(self, f"{role} with room", (size + LANES,), self.dtype, zero=True)
                for role, size in (
                    ("weight", self.weight.value.size),
                    ("bias", self.out_features),
                    ("grad", rows * self.out_features),
                )
            )
            return _Thin(
                weight=room,
                weight_part=room[:-LANES].reshape(self.weight.value.shape),
                bias=out_room,
                bias_part=out_room[:-LANES],
                grad=grad_room,
                grad_part=grad_room[:-LANES].reshape(rows, self.out_features),
                wide=array("wide", rows * LANES),
                wide_grad=array("wide grad", self.in_features * LANES),
                out=array("out", rows, self.out_features),
                turned=array("weight turned", self.out_features, self.in_features),
                zeros=workspace.array(self, "zeros", (self.in_features,), self.dtype, zero=True),
                grad_x=array("grad x", rows, self.in_features),
            )

        return workspace.cached(self, "thin", rows, make)

    def _forward_thin(self, x: Float, weight: Float, workspace: Workspace) -> Float:
        own = self._thin_arrays(len(x), workspace)
        np.copyto(own.weight_part, weight)
        np.copyto(own.bias_part, self.bias.value)
        kernels.run(kernels.multiply_thin, -(-len(x) // ROWS), x, own.weight, own.bias, own.wide, own.out)
        return own.out

    def _backward_thin(
        self, x: Float, grad: Float, weight: Float, workspace: Workspace, input_grad: bool
    ) -> Float | None:
        own = self._thin_arrays(len(x), workspace)
        if workspace.accumulate:
            np.copyto(own.grad_part, grad)
            kernels.run(
                kernels.multiply_thin_backward_weight, -(-self.in_features // INPUTS), x, own.grad, self._valid,
                own.wide_grad, self.weight.grad, self.bias.grad,
            )  # fmt: skip
        if not input_grad:
            return None
        np.copyto(own.turned, weight.T)
        kernels.run(kernels.multiply_thin_backward_input, -(-len(x) // ROWS), grad, own.turned, own.zeros, own.grad_x)
        return own.grad_x


class Flatten(Module):
    """Turn (N, ...) into (N, F) without moving anything; F is the product of the other axes."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, F)."""
        if len(shape) < 2:
            raise ShapeError(f"{self.name}: input must have at least two axes, got {shape}")
        return shape[0], prod(shape[1:])

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        return x.reshape(self.shape_behind(x.shape))

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        return grad.reshape(x.shape) if input_grad else None
