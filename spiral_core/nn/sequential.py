"""A chain of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError, DtypeError, ShapeError, StateError
from spiral_core.nn import fusion
from spiral_core.nn.fusion import Stage
from spiral_core.nn.module import Module, Parameter, StateEntry
from spiral_core.nn.workspace import Workspace


class _Trace(NamedTuple):
    """Input of the chain and output of each stage, from the last forward pass."""

    x: Float
    stages: list[Stage]
    outputs: list[Float]

    def input_of(self, index: int) -> Float:
        return self.x if index == 0 else self.outputs[index - 1]


class Sequential(Module):
    """Run layers one after the other.

    Parameters
    ----------
    name : str
    layers : sequence of Module    at least one; their names differ, their dtypes agree

    Raises
    ------
    ArgumentError
        No layers, two of one name, or two dtypes.
    """

    def __init__(self, name: str, layers: Sequence[Module]) -> None:
        if not layers:
            raise ArgumentError(f"{name}: a chain needs at least one layer")
        super().__init__(name, layers[0].dtype)
        names = [layer.name for layer in layers]
        twice = next((one for one in names if names.count(one) > 1), None)
        if twice is not None:
            raise ArgumentError(f"{name}: two layers are called {twice!r}; give each its own name")
        other = next((layer for layer in layers if layer.dtype != self.dtype), None)
        if other is not None:
            raise ArgumentError(f"{name}: {other.name} is {other.dtype}, the others are {self.dtype}")
        self.layers = list(layers)
        self._alone = [Stage(position, position, layer) for position, layer in enumerate(self.layers)]
        self._plans: dict[tuple[int, ...], list[Stage]] = {}

    def layer(self, name: str) -> Module:
        """Return the layer of this name.

        Raises
        ------
        ArgumentError
            There is none; the message lists those there are.
        """
        return self.layers[self._position(name)]

    def _position(self, name: str) -> int:
        for position, layer in enumerate(self.layers):
            if layer.name == name:
                return position
        raise ArgumentError(f"{self.name} has no layer {name!r}; it has {', '.join(one.name for one in self.layers)}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the last layer's output."""
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def parameters(self) -> list[Parameter]:
        """Return every layer's parameters, in order."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def buffers(self) -> dict[str, AnyArray]:
        """Return every layer's running statistics."""
        return {name: array for layer in self.layers for name, array in layer.buffers().items()}

    def state_entries(self) -> list[StateEntry]:
        """Return every layer's entries, in order."""
        return [entry for layer in self.layers for entry in layer.state_entries()]

    def set_training(self, training: bool) -> None:
        """Choose between batch and running statistics in every layer."""
        super().set_training(training)
        for layer in self.layers:
            layer.set_training(training)

    def kernels(self) -> tuple[str, ...]:
        """Return the kernels of all layers, alone and run as one, without repeats."""
        alone = [kernel for layer in self.layers for kernel in layer.kernels()]
        return tuple(dict.fromkeys([*alone, *fusion.kernels_of(self.layers)]))

    def fused_kernels(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Return the kernels that training with a fusing workspace runs for an input of this shape, without repeats."""
        stages = fusion.plan(self.layers, shape)
        return tuple(dict.fromkeys(kernel for stage in stages for kernel in stage.module.kernels()))

    def _stages(self, shape: tuple[int, ...], workspace: Workspace) -> list[Stage]:
        """Return what to run for an input of this shape; only the number of images may differ from the plan's."""
        if not workspace.fuse:
            return self._alone
        key = shape[1:]
        if key not in self._plans:
            self._plans = {key: fusion.plan(self.layers, shape)}
        return self._plans[key]

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        stages = self._stages(x.shape, workspace)
        outputs: list[Float] = []
        y = x
        for stage in stages:
            module = stage.module
            y = self._fitting(module.forward_checked(y, workspace), module.shape_behind(y.shape), module)
            outputs.append(y)
        workspace.keep(self, _Trace(x, stages, outputs))
        return y

    def _fitting(self, array: Float, shape: tuple[int, ...], module: Module) -> Float:
        """Let through what a layer gave, if the next one can take it: kernels trust the shapes that they are told."""
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
            kind = getattr(array, "dtype", type(array).__name__)
            raise DtypeError(f"{self.name}: {module.name} gave {kind}, the chain is {self.dtype}")
        if array.shape != shape:
            raise ShapeError(f"{self.name}: {module.name} gave shape {array.shape}, which was to be {shape}")
        return array

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        return self._descend(x, grad, workspace, down_to=0, input_grad=input_grad)

    def _descend(self, x: Float, grad: Float, workspace: Workspace, *, down_to: int, input_grad: bool) -> Float | None:
        trace = workspace.kept(self, _Trace)
        if trace.x.shape != x.shape:
            raise StateError(f"{self.name}: backward for input {x.shape} after a forward of {trace.x.shape}")
        upstream = grad
        for index in range(len(trace.stages) - 1, -1, -1):
            stage = trace.stages[index]
            if stage.first < down_to:
                break
            # Only the last stage visited may be asked for no gradient.
            wanted = stage.first > down_to or input_grad
            before = trace.input_of(index)
            below = stage.module.backward_checked(before, upstream, workspace, input_grad=wanted)
            if not wanted:
                return None
            upstream = self._fitting(cast("Float", below), before.shape, stage.module)
        return upstream

    def outputs(self, workspace: Workspace | None = None) -> dict[str, Float]:
        """Return the output of each layer in the last forward pass, by layer name; they live in the workspace.

        In a workspace that fuses, layers that ran as one with the next are missing.

        Raises
        ------
        StateError
            There was no forward pass.
        """
        place = workspace if workspace is not None else self.workspace()
        trace = place.kept(self, _Trace)
        return {self.layers[stage.last].name: output for stage, output in zip(trace.stages, trace.outputs, strict=True)}

    def backward_to(self, layer_name: str, x: Float, grad: Float, workspace: Workspace) -> Float:
        """Return the gradient with respect to the *output* of a layer.

        Parameters
        ----------
        layer_name : str
        x : (N, ...)           the input of the last forward pass through ``workspace``
        grad : (N, ...)        gradient with respect to the chain's output
        workspace : Workspace  with ``accumulate=False`` no parameter's gradient is touched

        Raises
        ------
        ArgumentError
            No such layer.
        ShapeError, DtypeError, StateError
            An array does not fit the last forward pass, or there was none. No gradient was touched.
        """
        position = self._position(layer_name)
        # The layers check what they are handed, but for the last layer none is visited.
        self._check(x, "input")
        self._check(grad, "grad")
        expected = self.output_shape(x.shape)
        if grad.shape != expected:
            raise ShapeError(f"{self.name}: grad must have the output's shape {expected}, got {grad.shape}")
        if layer_name not in self.outputs(workspace):
            raise StateError(f"{self.name}: {layer_name} ran as one with the next layer: use a workspace without fuse")
        return cast("Float", self._descend(x, grad, workspace, down_to=position + 1, input_grad=True))
