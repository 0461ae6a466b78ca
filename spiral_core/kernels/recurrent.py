"""The long short-term memory cell over time, for a few sequences at once.

Letters: T time steps, N sequences, I input features, H hidden units, M sequences in a chunk. The four gates
stand side by side in blocks of H: input i, forget f, candidate g, output o. One chunk is M sequences over all time
steps, so that threads meet only at the end; the cut depends on N alone.
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.matrix import multiply_rows
from spiral_core.kernels.real import tanh

SEQUENCES = 8
"""Sequences in one chunk: few enough that the gates of one time step stay in the first-level cache and that a usual
batch feeds several threads."""


@kernel("void(int64, int64, int64, {f}[::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], int64)")
def lstm_forward(
    start: int,
    stop: int,
    slot: int,
    weight: Float,
    gates: Float,
    hidden: Float,
    cell: Float,
    squashed: Float,
    sequences: int,
) -> None:
    r"""Run chunks ``start`` to ``stop`` through time.

    .. math:: z_t = \bar z_t + h_{t-1} W, \quad (i, f, g, o) = (\sigma, \sigma, \tanh, \sigma)(z_t), \quad
              c_t = f c_{t-1} + i g, \quad h_t = o \tanh c_t

    with :math:`\sigma(z) = (1 + \tanh(z/2)) / 2`.

    Parameters
    ----------
    weight : (H*4H,)       W, of the recurrent connections, from `spiral_core.kernels.matrix.pack`
    gates : (T, N, 4H)     on entry what the inputs and biases contribute to z; on return i, f, g, o
    hidden : (T+1, N, H)   h; [0] is given, the rest is written
    cell : (T+1, N, H)     c; [0] is given, the rest is written
    squashed : (T, N, H)   written: tanh of c
    sequences : int        M
    """
    units = hidden.shape[2]
    half = weight.dtype.type(0.5)
    flat_hidden, flat_gates = hidden.reshape(-1), gates.reshape(-1)
    for chunk in range(start, stop):
        first = chunk * sequences
        last = min(first + sequences, hidden.shape[1])
        for t in range(gates.shape[0]):
            spot = (t * hidden.shape[1] + first) * 4 * units
            multiply_rows(
                flat_hidden, (t * hidden.shape[1] + first) * units, last - first, units, weight,
                flat_gates, spot, 4 * units, flat_gates, spot, 4 * units,
            )  # fmt: skip
            for n in range(first, last):
                z = gates[t, n]
                # Short loops over few arrays: each of them becomes vector code.
                for j in range(2 * units):
                    z[j] = half + half * tanh(half * z[j])
                for j in range(2 * units, 3 * units):
                    z[j] = tanh(z[j])
                for j in range(3 * units, 4 * units):
                    z[j] = half + half * tanh(half * z[j])
                before = cell[t, n]
                after = cell[t + 1, n]
                q = squashed[t, n]
                h = hidden[t + 1, n]
                for j in range(units):
                    after[j] = z[units + j] * before[j] + z[j] * z[2 * units + j]
                for j in range(units):
                    q[j] = tanh(after[j])
                for j in range(units):
                    h[j] = z[3 * units + j] * q[j]


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], "
    "{f}[:,::1], {f}[:,::1], int64)"
)
def lstm_backward(
    start: int,
    stop: int,
    slot: int,
    weight_t: Float,
    zeros: Float,
    grad: Float,
    gates: Float,
    cell: Float,
    squashed: Float,
    grad_hidden: Float,
    grad_cell: Float,
    sequences: int,
) -> None:
    r"""Differentiate `lstm_forward`, from the last time step to the first.

    .. math::
        \delta h_t &= G_t + D_{t+1} W^T, \quad
        \delta c_t = \delta h_t \, o (1 - \tanh^2 c_t) + f_{t+1} \, \delta c_{t+1} \\
        D_t &= (\delta c_t \, g \, i(1-i),\; \delta c_t \, c_{t-1} f(1-f),\; \delta c_t \, i (1-g^2),\;
               \delta h_t \tanh(c_t) \, o(1-o))

    Parameters
    ----------
    weight_t : (4H*H,)                 W, transposed, from `spiral_core.kernels.matrix.pack`
    zeros : (H,)
    grad : (T, N, H)                   G, gradient of h_1..h_T
    gates : (T, N, 4H)                 from `lstm_forward`; D on return
    cell : (T+1, N, H)                 from `lstm_forward`
    squashed : (T, N, H)               from `lstm_forward`
    grad_hidden, grad_cell : (N, H)    on entry the gradients of h_T and c_T from later, on return those of h_0 and c_0
    sequences : int                    M
    """
    units = grad.shape[2]
    one = weight_t.dtype.type(1)
    flat_gates, flat_carried = gates.reshape(-1), grad_hidden.reshape(-1)
    for chunk in range(start, stop):
        first = chunk * sequences
        last = min(first + sequences, grad.shape[1])
        carried = grad_hidden[first:last]
        for t in range(grad.shape[0] - 1, -1, -1):
            for n in range(first, last):
                i = gates[t, n, :units]
                f = gates[t, n, units : 2 * units]
                g = gates[t, n, 2 * units : 3 * units]
                o = gates[t, n, 3 * units :]
                q = squashed[t, n]
                before = cell[t, n]
                upstream = grad[t, n]
                dh = carried[n - first]
                dc = grad_cell[n]
                for j in range(units):
                    d = upstream[j] + dh[j]
                    e = d * o[j] * (one - q[j] * q[j]) + dc[j]
                    o[j] = d * q[j] * o[j] * (one - o[j])
                    dc[j] = e * f[j]
                    f[j] = e * before[j] * f[j] * (one - f[j])
                    e *= i[j]
                    i[j] = e * g[j] * (one - i[j])
                    g[j] = e * (one - g[j] * g[j])
            multiply_rows(
                flat_gates, (t * grad.shape[1] + first) * 4 * units, last - first, 4 * units, weight_t,
                zeros, 0, 0, flat_carried, first * units, units,
            )  # fmt: skip
