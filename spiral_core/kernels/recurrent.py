"""The long short-term memory layer over time, for a few sequences at once.

Letters: T time steps, N sequences, I input features, H hidden units, M sequences in a chunk. The four gates
stand side by side in blocks of H: input i, forget f, candidate g, output o. One chunk is M sequences over all time
steps, so that threads meet only at the end; the cut depends on N alone. The chunks of one call walk through time
together, and so read the weights once a time step; no sequence depends on which others are beside it.
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.matrix import DEPTH, PANEL, add_block, add_column_sums, multiply_rows, pack
from spiral_core.kernels.real import tanh
from spiral_core.kernels.vector import LANES, load, spread, store, tanh_of

SEQUENCES = 8
"""Sequences in one chunk: the height of a block of a product, and few enough that a usual batch feeds several
threads."""


@kernel("void({f}[::1], {f}[::1], {f}[::1], {f}[::1], int64, int64, int64, int64)")
def lstm_cell(
    gates: Float, hidden: Float, cell: Float, squashed: Float, place: int, following: int, rows: int, units: int
) -> None:
    """Open the gates of some sequences at one time step and move their cells on; see `lstm_forward`.

    Parameters
    ----------
    gates, hidden, cell, squashed : flat
    place, following : int   rows at which these sequences are found at this time step and at the next one
    rows, units : int        sequences, and H
    """
    half = gates.dtype.type(0.5)
    halves = spread(half)
    whole = units - units % LANES
    for r in range(rows):
        i = (place + r) * 4 * units
        f, g, o = i + units, i + 2 * units, i + 3 * units
        before, after = (place + r) * units, (following + r) * units
        for j in range(0, whole, LANES):
            into = halves + halves * tanh_of(halves * load(gates, i + j))
            kept = halves + halves * tanh_of(halves * load(gates, f + j))
            fresh = tanh_of(load(gates, g + j))
            shown = halves + halves * tanh_of(halves * load(gates, o + j))
            state = kept * load(cell, before + j) + into * fresh
            q = tanh_of(state)
            store(gates, i + j, into)
            store(gates, f + j, kept)
            store(gates, g + j, fresh)
            store(gates, o + j, shown)
            store(cell, after + j, state)
            store(squashed, before + j, q)
            store(hidden, after + j, shown * q)
        for j in range(whole, units):
            gates[i + j] = half + half * tanh(half * gates[i + j])
            gates[f + j] = half + half * tanh(half * gates[f + j])
            gates[g + j] = tanh(gates[g + j])
            gates[o + j] = half + half * tanh(half * gates[o + j])
            cell[after + j] = gates[f + j] * cell[before + j] + gates[i + j] * gates[g + j]
            squashed[before + j] = tanh(cell[after + j])
            hidden[after + j] = gates[o + j] * squashed[before + j]


@kernel(
    "void(int64, int64, int64, {f}[:,:,::1], {f}[::1], {f}[::1], {f}[::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], "
    "{f}[:,:,::1], int64)"
)
def lstm_forward(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    weight_ih: Float,
    weight_hh: Float,
    bias: Float,
    gates: Float,
    hidden: Float,
    cell: Float,
    squashed: Float,
    sequences: int,
) -> None:
    r"""Run chunks ``start`` to ``stop`` through time.

    .. math:: z_t = b + x_t U + h_{t-1} W, \quad (i, f, g, o) = (\sigma, \sigma, \tanh, \sigma)(z_t), \quad
              c_t = f c_{t-1} + i g, \quad h_t = o \tanh c_t

    with :math:`\sigma(z) = (1 + \tanh(z/2)) / 2`.

    Parameters
    ----------
    x : (T, N, I)
    weight_ih : (I*4H,)    U, from `spiral_core.kernels.matrix.pack`
    weight_hh : (H*4H,)    W, likewise
    bias : (4H,)           b
    gates : (T, N, 4H)     written: i, f, g, o
    hidden : (T+1, N, H)   h; [0] is given, the rest is written
    cell : (T+1, N, H)     c; [0] is given, the rest is written
    squashed : (T, N, H)   written: tanh of c
    sequences : int        M
    """
    steps, batch, inputs = x.shape
    units = hidden.shape[2]
    width = 4 * units
    first = start * sequences
    rows = min(stop * sequences, batch) - first
    xs, zs, hs, cs, qs = x.reshape(-1), gates.reshape(-1), hidden.reshape(-1), cell.reshape(-1), squashed.reshape(-1)
    for t in range(steps):
        place = t * batch + first
        z = place * width
        multiply_rows(xs, place * inputs, rows, inputs, weight_ih, bias, 0, 0, zs, z, width)
        multiply_rows(hs, place * units, rows, units, weight_hh, zs, z, width, zs, z, width)
        lstm_cell(zs, hs, cs, qs, place, place + batch, rows, units)


@kernel("void({f}[::1], {f}[::1], {f}[::1], {f}[::1], {f}[::1], {f}[::1], int64, int64, int64, int64)")
def lstm_cell_backward(
    grad: Float,
    gates: Float,
    cell: Float,
    squashed: Float,
    grad_hidden: Float,
    grad_cell: Float,
    place: int,
    first: int,
    rows: int,
    units: int,
) -> None:
    """Differentiate `lstm_cell`; see `lstm_backward`.

    Parameters
    ----------
    grad, gates, cell, squashed, grad_hidden, grad_cell : flat
    place, first : int   rows at which these sequences are found at this time step, and in the gradients of the state
    rows, units : int    sequences, and H
    """
    one = grad.dtype.type(1)
    ones = spread(one)
    whole = units - units % LANES
    for r in range(rows):
        i = (place + r) * 4 * units
        f, g, o = i + units, i + 2 * units, i + 3 * units
        here, carried = (place + r) * units, (first + r) * units
        for j in range(0, whole, LANES):
            into, kept, fresh, shown = load(gates, i + j), load(gates, f + j), load(gates, g + j), load(gates, o + j)
            q = load(squashed, here + j)
            d = load(grad, here + j) + load(grad_hidden, carried + j)
            e = d * shown * (ones - q * q) + load(grad_cell, carried + j)
            store(gates, o + j, d * q * shown * (ones - shown))
            store(grad_cell, carried + j, e * kept)
            store(gates, f + j, e * load(cell, here + j) * kept * (ones - kept))
            e = e * into
            store(gates, i + j, e * fresh * (ones - into))
            store(gates, g + j, e * (ones - fresh * fresh))
        for j in range(whole, units):
            q = squashed[here + j]
            d = grad[here + j] + grad_hidden[carried + j]
            e = d * gates[o + j] * (one - q * q) + grad_cell[carried + j]
            gates[o + j] = d * q * gates[o + j] * (one - gates[o + j])
            grad_cell[carried + j] = e * gates[f + j]
            gates[f + j] = e * cell[here + j] * gates[f + j] * (one - gates[f + j])
            e *= gates[i + j]
            gates[i + j] = e * gates[g + j] * (one - gates[i + j])
            gates[g + j] = e * (one - gates[g + j] * gates[g + j])


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], "
    "{f}[:,::1], {f}[:,::1], {f}[:,:,::1], int64)"
)
def lstm_backward(
    start: int,
    stop: int,
    slot: int,
    weight_ih_t: Float,
    weight_hh_t: Float,
    zeros: Float,
    grad: Float,
    gates: Float,
    cell: Float,
    squashed: Float,
    grad_hidden: Float,
    grad_cell: Float,
    grad_x: Float,
    sequences: int,
) -> None:
    r"""Differentiate `lstm_forward`, from the last time step to the first.

    .. math::
        \delta h_t &= G_t + D_{t+1} W^T, \quad
        \delta c_t = \delta h_t \, o (1 - \tanh^2 c_t) + f_{t+1} \, \delta c_{t+1}, \quad \delta x_t = D_t U^T \\
        D_t &= (\delta c_t \, g \, i(1-i),\; \delta c_t \, c_{t-1} f(1-f),\; \delta c_t \, i (1-g^2),\;
               \delta h_t \tanh(c_t) \, o(1-o))

    Parameters
    ----------
    weight_ih_t : (4H*I,)              U, from `spiral_core.kernels.matrix.pack_transposed`
    weight_hh_t : (4H*H,)              W, likewise
    zeros : (max(I, H),)
    grad : (T, N, H)                   G, gradient of h_1..h_T
    gates : (T, N, 4H)                 from `lstm_forward`; D on return
    cell : (T+1, N, H)                 from `lstm_forward`
    squashed : (T, N, H)               from `lstm_forward`
    grad_hidden, grad_cell : (N, H)    on entry the gradients of h_T and c_T from later, on return those of h_0 and c_0
    grad_x : (T, N, I)                 written: gradient of x; of no time steps where nobody needs it
    sequences : int                    M
    """
    steps, batch, units = grad.shape
    wanted, _, inputs = grad_x.shape
    width = 4 * units
    first = start * sequences
    rows = min(stop * sequences, batch) - first
    gs, zs, cs, qs = grad.reshape(-1), gates.reshape(-1), cell.reshape(-1), squashed.reshape(-1)
    dh, dc, dx = grad_hidden.reshape(-1), grad_cell.reshape(-1), grad_x.reshape(-1)
    for t in range(steps - 1, -1, -1):
        place = t * batch + first
        lstm_cell_backward(gs, zs, cs, qs, dh, dc, place, first, rows, units)
        z = place * width
        multiply_rows(zs, z, rows, width, weight_hh_t, zeros, 0, 0, dh, first * units, units)
        if wanted:
            multiply_rows(zs, z, rows, width, weight_ih_t, zeros, 0, 0, dx, place * inputs, inputs)


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,::1], "
    "{f}[:,::1], {f}[:,::1], {f}[::1])"
)
def lstm_backward_weights(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    before: Float,
    slopes: Float,
    left: Float,
    right: Float,
    grad_ih: Float,
    grad_hh: Float,
    grad_bias: Float,
) -> None:
    r"""Add to the gradients of the parameters, in panels ``start`` to ``stop`` of `PANEL` columns.

    .. math:: \delta U = \sum_t x_t^T D_t, \quad \delta W = \sum_t h_{t-1}^T D_t, \quad \delta b = \sum_t 1^T D_t

    Parameters
    ----------
    x : (T*N, I)
    before : (T*N, H)                   h_0..h_{T-1}
    slopes : (T*N, 4H)                  D, from `lstm_backward`
    left : (threads, DEPTH*max(I, H))   scratch
    right : (threads, DEPTH*4H)         scratch
    grad_ih : (I, 4H)                   added to, as are
    grad_hh : (H, 4H)
    grad_bias : (4H,)
    """
    first, last = start * PANEL, min(stop * PANEL, slopes.shape[1])
    tall, flat = left[slot], right[slot]
    # The panels of one call share the packed rows of the left operands; no sum depends on which panels these are.
    for top in range(0, slopes.shape[0], DEPTH):
        high = min(DEPTH, slopes.shape[0] - top)
        pack(slopes, top, high, first, last, PANEL, flat)
        pack(x, top, high, 0, x.shape[1], LANES, tall)
        for d in range(first, last, PANEL):
            wide = min(PANEL, last - d)
            add_column_sums(flat, (d - first) * high, high, wide, grad_bias, d)
            add_block(tall, x.shape[1], high, flat, (d - first) * high, wide, grad_ih, d)
        pack(before, top, high, 0, before.shape[1], LANES, tall)
        for d in range(first, last, PANEL):
            wide = min(PANEL, last - d)
            add_block(tall, before.shape[1], high, flat, (d - first) * high, wide, grad_hh, d)
