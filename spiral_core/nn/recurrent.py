"""The long short-term memory layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final, Literal

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import DtypeError, NonFiniteError, ShapeError, StateError
from spiral_core.kernels.matrix import DEPTH, PANEL
from spiral_core.kernels.recurrent import SEQUENCES
from spiral_core.nn import precision
from spiral_core.nn.initial import check_init, generator_for, glorot_normal, orthogonal, ramp
from spiral_core.nn.module import Module, Parameter, check_size
from spiral_core.nn.workspace import Workspace

INITS: Final = ("orthogonal", "ramp")

CACHE_LINE: Final = 64
"""Bytes."""


@dataclass(frozen=True)
class _State:
    """Hidden and cell state, (N, H) each."""

    hidden: Float
    cell: Float


@dataclass(frozen=True)
class _InitialGrad(_State):
    """Gradients of the state that a pass started from."""


@dataclass(frozen=True)
class _Passage:
    """What a forward pass leaves for the one backward pass that may follow."""

    shape: tuple[int, ...]
    gates: Float
    hidden: Float
    cell: Float
    squashed: Float


class Lstm(Module):
    r"""Long short-term memory over time-major sequences, one layer, one direction.

    .. math::
        z_t &= x_t W_{ih} + b_{ih} + b_{hh} + h_{t-1} W_{hh}, \quad (i, f, g, o) = (\sigma,\sigma,\tanh,\sigma)(z_t) \\
        c_t &= f c_{t-1} + i g, \quad y_t = h_t = o \tanh c_t

    Parameters
    ----------
    name : str
    in_features, hidden : int      I and H, at least 1
    stateful : bool                carry the state over between calls; False starts every call from zeros
    init : "orthogonal" or "ramp"  first weights, see Notes
    generator : numpy Generator    draws the first weights; without one, seeded by the name
    dtype : float32 or float64

    Attributes
    ----------
    weight_ih : (I, 4H)        the blocks of the gates i, f, g, o side by side; the transpose of PyTorch's
    weight_hh : (H, 4H)
    bias_ih, bias_hh : (4H,)

    Notes
    -----
    (T, I) becomes (T, H), and (T, N, I) becomes (T, N, H); a single sequence is a batch of one.

    Like every pass, the state belongs to a workspace: a probe does not move the state of the training run. It is not
    part of the state dict. A batch of another size than the state's is refused; call `reset_state` between data that
    do not continue each other, or choose ``stateful=False``.

    ``backward`` is the gradient through all time steps of one call, and stops at its beginning; `initial_state_grad`
    tells the gradient that arrived there. It uses up the pass: another ``backward`` needs another ``forward``.

    ``"orthogonal"`` draws each gate's block of ``weight_ih`` as Glorot normal values and of ``weight_hh`` as an
    orthogonal matrix; ``bias_ih`` is 1 at the forget gate, so that the cell remembers at first (Jozefowicz et al.
    2015), and 0 elsewhere. ``"ramp"`` is the fixed pattern of the reference implementation, with all biases 0.

    The walk through time is spread over threads by chunks of sequences, and the gradients of the weights by columns.
    """

    KERNELS = (
        *("product", "pack", "pack_transposed", "multiply_rows", "add_block", "add_column_sums"),
        *("lstm_cell", "lstm_forward", "lstm_cell_backward", "lstm_backward", "lstm_backward_weights"),
    )

    def __init__(
        self,
        name: str,
        in_features: int,
        hidden: int,
        *,
        stateful: bool = True,
        init: Literal["orthogonal", "ramp"] = "orthogonal",
        generator: np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(name, dtype)
        self.in_features = check_size(name, "in_features", in_features)
        self.hidden = check_size(name, "hidden", hidden)
        check_init(name, init, INITS)
        self.stateful = bool(stateful)
        draws = generator_for(name, generator)
        weight_ih, weight_hh = self._ramps() if init == "ramp" else self._drawn(draws)
        self.weight_ih = Parameter(f"{name}.weight_ih", weight_ih)
        self.weight_hh = Parameter(f"{name}.weight_hh", weight_hh)
        self.bias_ih = Parameter(f"{name}.bias_ih", np.zeros(4 * self.hidden, self.dtype))
        self.bias_hh = Parameter(f"{name}.bias_hh", np.zeros(4 * self.hidden, self.dtype))
        if init == "orthogonal":
            self.bias_ih.value[self.hidden : 2 * self.hidden] = 1

    def _drawn(self, draws: np.random.Generator) -> tuple[Float, Float]:
        inputs = [glorot_normal(self.in_features, self.hidden, draws, self.dtype) for _ in range(4)]
        recurrent = [orthogonal(self.hidden, draws, self.dtype) for _ in range(4)]
        return np.concatenate(inputs, axis=1), np.concatenate(recurrent, axis=1)

    def _ramps(self) -> tuple[Float, Float]:
        width = 4 * self.hidden
        return (
            ramp((self.in_features, width), (13, 7), 17, self.dtype),
            ramp((self.hidden, width), (11, 5), 23, self.dtype),
        )

    def parameters(self) -> list[Parameter]:
        """Return weight_ih, weight_hh, bias_ih and bias_hh."""
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (T, H) for (T, I), and (T, N, H) for (T, N, I)."""
        if len(shape) not in (2, 3) or shape[-1] != self.in_features or 0 in shape:
            want = f"(T, {self.in_features}) or (T, N, {self.in_features})"
            raise ShapeError(f"{self.name}: input must have shape {want}, with T and N at least 1, got {shape}")
        return *shape[:-1], self.hidden

    # The state between calls.

    def set_state(self, h: Float, c: Float, workspace: Workspace | None = None) -> None:
        """Start the next forward pass from a given state.

        Parameters
        ----------
        h, c : (H,) or (N, H)
            Hidden and cell state, one row per sequence; copied.
        workspace : Workspace, optional
            Whose state; the layer's own without one.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, StateError
            An array does not fit or is not finite, or the layer is not stateful. Nothing has changed.
        """
        if not self.stateful:
            raise StateError(f"{self.name}: starts every call from zeros; build it with stateful=True to set a state")
        for what, array in (("h", h), ("c", c)):
            if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
                got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise DtypeError(f"{self.name}: {what} must be an array of {self.dtype}, got {got}")
            if array.ndim not in (1, 2) or array.shape[-1] != self.hidden or array.size == 0:
                want = f"({self.hidden},) or (N, {self.hidden})"
                raise ShapeError(f"{self.name}: {what} must have shape {want}, got {array.shape}")
            if not np.isfinite(array).all():
                raise NonFiniteError(f"{self.name}: {what} has a value that is not finite; reset_state() gives zeros")
        if h.size != c.size:
            raise ShapeError(f"{self.name}: h and c must have one shape, got {h.shape} and {c.shape}")
        place = workspace if workspace is not None else self.workspace()
        place.keep((self, "state"), _State(h.reshape(-1, self.hidden).copy(), c.reshape(-1, self.hidden).copy()))

    def reset_state(self, workspace: Workspace | None = None) -> None:
        """Start the next forward pass from zeros; a backward pass that is due is not touched."""
        place = workspace if workspace is not None else self.workspace()
        place.forget((self, "state"))

    def state(self, workspace: Workspace | None = None) -> tuple[Float, Float] | None:
        """Return copies of the state (h, c), each (N, H), that the next pass starts from; None means zeros."""
        place = workspace if workspace is not None else self.workspace()
        kept = place.recall((self, "state"), _State)
        return None if kept is None else (kept.hidden.copy(), kept.cell.copy())

    def initial_state_grad(self, workspace: Workspace | None = None) -> tuple[Float, Float]:
        """Return the gradients of the state (h, c), each (N, H), from which the pass of the last backward started.

        Raises
        ------
        StateError
            There was no backward pass.
        """
        place = workspace if workspace is not None else self.workspace()
        kept = place.recall((self, "initial grad"), _InitialGrad)
        if kept is None:
            raise StateError(f"{self.name}: no gradient of a state: run forward and backward in this workspace first")
        return kept.hidden.copy(), kept.cell.copy()

    # Passes.

    def _forward(self, x: Float, workspace: Workspace) -> Float:
        steps, units = x.shape[0], self.hidden
        rows = x.size // (steps * self.in_features)
        state = workspace.recall((self, "state"), _State) if self.stateful else None
        if state is not None and len(state.hidden) != rows:
            raise ShapeError(
                f"{self.name}: input has {rows} sequences, the state carried over has {len(state.hidden)}; "
                "call reset_state() between batches of different sizes"
            )
        workspace.forget(self)
        x, weight_ih, weight_hh = precision.operands(self, x, (self.weight_ih, self.weight_hh), workspace)
        gates = workspace.array(self, "gates", (steps, rows, 4 * units), self.dtype)
        hidden = workspace.array(self, "hidden", (steps + 1, rows, units), self.dtype)
        cell = workspace.array(self, "cell", (steps + 1, rows, units), self.dtype)
        squashed = workspace.array(self, "squashed", (steps, rows, units), self.dtype)
        hidden[0] = 0 if state is None else state.hidden
        cell[0] = 0 if state is None else state.cell
        inputs = x.reshape(steps, rows, self.in_features)
        packed_ih = self._packed("ih", weight_ih, workspace)
        packed_hh = self._packed("hh", weight_hh, workspace)
        bias = self.bias_ih.value + self.bias_hh.value
        kind = precision.kind_of(self, workspace)
        # What the next product reads is rounded between time steps, so the kernel then walks one at a time.
        stride = 1 if kind else steps
        for t in range(0, steps, stride):
            here, states = slice(t, t + stride), slice(t, t + stride + 1)
            if kind:
                precision.narrow_to(kind, hidden[t], hidden[t])
            weights = packed_ih, packed_hh, bias
            walked = gates[here], hidden[states], cell[states], squashed[here]
            kernels.run(kernels.lstm_forward, -(-rows // SEQUENCES), inputs[here], *weights, *walked, SEQUENCES)
        if kind:
            precision.narrow_to(kind, hidden[-1], hidden[-1])
        workspace.keep(self, _Passage(x.shape, gates, hidden, cell, squashed))
        if self.stateful:
            self._carry(hidden[-1], cell[-1], workspace)
        return hidden[1:].reshape(self.output_shape(x.shape))

    def _carry(self, h: Float, c: Float, workspace: Workspace) -> None:
        kept_h = workspace.array(self, "state h", h.shape, self.dtype)
        kept_c = workspace.array(self, "state c", c.shape, self.dtype)
        kept_h[...], kept_c[...] = h, c
        workspace.keep((self, "state"), _State(kept_h, kept_c))

    def _backward(self, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        passage = workspace.recall(self, _Passage)
        if passage is None:
            raise StateError(
                f"{self.name}: a forward pass serves one backward pass: run forward in this workspace before each"
            )
        if passage.shape != x.shape:
            raise StateError(f"{self.name}: forward saw shape {passage.shape}, backward got {x.shape}")
        workspace.forget(self)
        weights = (self.weight_ih, self.weight_hh)
        x, grad, weight_ih, weight_hh = precision.operands_backward(self, x, grad, weights, workspace)
        steps, rows, width = passage.gates.shape
        units = self.hidden
        packed_ih = self._turned("ih", weight_ih, workspace)
        packed_hh = self._turned("hh", weight_hh, workspace)
        zeros = np.zeros(max(units, self.in_features), self.dtype)
        grad_hidden = workspace.array(self, "grad h", (rows, units), self.dtype)
        grad_cell = workspace.array(self, "grad c", (rows, units), self.dtype)
        grad_hidden.fill(0)
        grad_cell.fill(0)
        upstream = grad.reshape(steps, rows, units)
        grad_x = workspace.array(self, "grad x", (steps if input_grad else 0, rows, self.in_features), self.dtype)
        kind = precision.kind_of(self, workspace)
        stride = 1 if kind else steps
        for t in reversed(range(0, steps, stride)):
            here, states = slice(t, t + stride), slice(t, t + stride + 1)
            walked = upstream[here], passage.gates[here], passage.cell[states], passage.squashed[here]
            grads = grad_hidden, grad_cell, grad_x[here]
            chunks = -(-rows // SEQUENCES)
            kernels.run(kernels.lstm_backward, chunks, packed_ih, packed_hh, zeros, *walked, *grads, SEQUENCES)
            if kind:
                # The kernel has multiplied the gradient of z as it was; this takes the place of those products.
                slopes = precision.narrow_to(kind, passage.gates[t], passage.gates[t])
                with np.errstate(all="ignore"):
                    np.matmul(slopes, weight_hh.T, out=grad_hidden)
                    if input_grad:
                        np.matmul(slopes, weight_ih.T, out=grad_x[t])
        workspace.keep((self, "initial grad"), _InitialGrad(grad_hidden, grad_cell))
        if workspace.accumulate:
            # The kernel has left the gradient of z in the place of the gates.
            slopes = passage.gates.reshape(-1, width)
            before = passage.hidden[:-1].reshape(-1, units)
            self._accumulate(x.reshape(-1, self.in_features), before, slopes, workspace)
        return grad_x.reshape(x.shape) if input_grad else None

    def _packed(self, role: str, weight: Float, workspace: Workspace) -> Float:
        """Return a weight as the kernels read it."""
        packed = self._panels(f"packed {role}", (weight.size,), workspace)
        kernels.pack(weight, 0, len(weight), 0, weight.shape[1], PANEL, packed)
        return packed

    def _turned(self, role: str, weight: Float, workspace: Workspace) -> Float:
        """Return the transpose of a weight as the kernels read it."""
        packed = self._panels(f"packed {role} transposed", (weight.size,), workspace)
        kernels.pack_transposed(weight, packed)
        return packed

    def _panels(self, role: str, shape: tuple[int, ...], workspace: Workspace) -> Float:
        """Return room for packed operands, beginning at a cache line: else each of their vectors would lie on two."""
        size = prod(shape)
        buffer = workspace.array(self, role, (size + CACHE_LINE // self.dtype.itemsize,), self.dtype)
        skipped = -buffer.ctypes.data % CACHE_LINE // self.dtype.itemsize
        return buffer[skipped : skipped + size].reshape(shape)

    def _accumulate(self, x: Float, before: Float, slopes: Float, workspace: Workspace) -> None:
        """Add the gradients of the parameters: sums over all time steps and sequences."""
        width, threads = slopes.shape[1], kernels.get_num_threads()
        left = self._panels("left", (threads, DEPTH * max(self.in_features, self.hidden)), workspace)
        right = self._panels("right", (threads, DEPTH * width), workspace)
        bias = workspace.array(self, "grad bias", (width,), self.dtype)
        bias.fill(0)
        grads = self.weight_ih.grad, self.weight_hh.grad, bias
        kernels.run(kernels.lstm_backward_weights, -(-width // PANEL), x, before, slopes, left, right, *grads)
        with np.errstate(all="ignore"):
            self.bias_ih.grad += bias
            self.bias_hh.grad += bias
