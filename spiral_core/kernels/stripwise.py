r"""Passes of the batch norms over the channels of a matrix, a strip of channels at a time.

A strip is `STRIP` channels, all their rows, and one chunk: whatever is said of a channel (statistics, sums, gradients
of its gamma and beta) is found and used within one kernel, and the strip stays in cache from its first reading to its
last. The loops of `spiral_core.kernels.znorm` cut the rows instead, which suits images and whatever has few channels.

Letters: R rows, C channels, a multiple of `spiral_core.kernels.vector.PAIR`, E = R*C elements. Sums of at most `BLOCK`
rows are taken in the dtype of the data, longer ones in float64.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.vector import (
    PAIR,
    absolute,
    add_wide,
    choose,
    greater,
    load_pair,
    spread_pair,
    store,
    tanh_of_size,
    with_sign,
)
from spiral_core.kernels.znorm import SATURATED

STRIP = 128
"""Channels of one strip."""

BLOCK = 16
"""Rows between two additions to float64: the rounding of a sum grows with its length."""

LEAST_CHANNELS = 2 * STRIP
"""With fewer there is too little to share out among threads."""

MOST_ROWS = 2048
"""With more a strip and its output, 512 KiB each of float32, would leave the second-level cache before its last
reading."""


def strips(rows: int, channels: int) -> int:
    """Return how many strips a matrix has; 0 where it is better cut by rows."""
    fits = channels % PAIR == 0 and channels >= LEAST_CHANNELS and rows <= MOST_ROWS
    return -(-channels // STRIP) if fits else 0


@kernel("void(int64, int64, int64, {f}[:,::1], float64, boolean, float64[:,::1], {f}[:,::1])")
def stripwise_statistics(
    start: int, stop: int, slot: int, x: Float, epsilon: float, batch: bool, statistics: F64, affine: Float
) -> None:
    r"""Write mean, variance and :math:`1 / \sqrt{v + \epsilon}` of channels ``start`` to ``stop``, in two passes.

    .. math:: \mu = \hat\mu + \overline{d}, \quad v = \overline{d^2} - \overline{d}^2, \quad d = x - \hat\mu

    where the hat rounds the mean of the first pass to the dtype of ``x``.

    Parameters
    ----------
    x : (R, C)
    epsilon : float
    batch : bool          False: mean and variance are given
    statistics : (3, C)   mean, population variance and :math:`\sigma^{-1}`; the third is written, and of a batch all
    affine : (5, C)       rows 0 and 1 written: mean and :math:`\sigma^{-1}` in the dtype of ``x``

    Notes
    -----
    Source: Chan, Golub and LeVeque 1983, equation 1.7, the corrected two-pass algorithm. What is taken off is never
    more than there is: where all d are nearly equal they are small multiples of one rounding, and their squares exact.
    """
    number = x.dtype.type
    rows, channels = x.shape
    flat, wide, rounded = x.reshape(-1), statistics.reshape(-1), affine.reshape(-1)
    zero = spread_pair(number(0))
    if batch:
        statistics[0, start:stop] = 0
        for first in range(0, rows, BLOCK):
            for c in range(start, stop, PAIR):
                sum_x = zero
                for at in range(first * channels + c, min(first + BLOCK, rows) * channels, channels):
                    sum_x = sum_x + load_pair(flat, at)
                add_wide(wide, c, sum_x)
        for c in range(start, stop):
            affine[0, c] = statistics[0, c] / rows
        statistics[:2, start:stop] = 0
        for first in range(0, rows, BLOCK):
            for c in range(start, stop, PAIR):
                center = load_pair(rounded, c)
                sum_d, sum_dd = zero, zero
                for at in range(first * channels + c, min(first + BLOCK, rows) * channels, channels):
                    d = load_pair(flat, at) - center
                    sum_d = sum_d + d
                    sum_dd = sum_dd + d * d
                add_wide(wide, c, sum_d)
                add_wide(wide, channels + c, sum_dd)
        for c in range(start, stop):
            off = statistics[0, c] / rows
            statistics[0, c] = affine[0, c] + off
            statistics[1, c] = statistics[1, c] / rows - off * off
    for c in range(start, stop):
        inverse = 1.0 / np.sqrt(statistics[1, c] + epsilon)
        statistics[2, c] = inverse
        affine[0, c] = statistics[0, c]
        affine[1, c] = inverse


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], float64, boolean, {f}, {f}, "
    "float64[:,::1], {f}[:,::1], {f}[::1], {f}[::1], float64[:,::1])"
)
def stripwise_norm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    gamma: Float,
    beta: Float,
    epsilon: float,
    batch: bool,
    s: float,
    g: float,
    statistics: F64,
    affine: Float,
    tangent: Float,
    out: Float,
    sums: F64,
) -> None:
    r"""Whiten, project into the ball, scale and shift; and sum up what telemetry says about it.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad
              p = (1-g) n + g t / s, \quad y = \gamma p + \beta

    Parameters
    ----------
    x : (R, C)
    gamma, beta : (C,)
    epsilon, batch                as `stripwise_statistics` takes them
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    statistics, affine            as `stripwise_statistics` writes them
    tangent, out : (E,)           t and y, written
    sums : (4, C)                 written: sums of \|t\|, of \|n\|, of t^2, and the count of \|t\| > 0.99
    """
    number = x.dtype.type
    rows, channels = x.shape
    flat, rounded, wide = x.reshape(-1), affine.reshape(-1), sums.reshape(-1)
    zero, one, edge = spread_pair(number(0)), spread_pair(number(1)), spread_pair(number(SATURATED))
    curve, rest, reach = spread_pair(s), spread_pair(number(1) - g), spread_pair(g / s)
    for strip in range(start, stop):
        begin, end = strip * STRIP, min((strip + 1) * STRIP, channels)
        stripwise_statistics(begin, end, slot, x, epsilon, batch, statistics, affine)
        sums[:, begin:end] = 0
        for first in range(0, rows, BLOCK):
            for c in range(begin, end, PAIR):
                mean, inv_std = load_pair(rounded, c), load_pair(rounded, channels + c)
                weight, bias = load_pair(gamma, c), load_pair(beta, c)
                sum_t, sum_n, sum_tt, count = zero, zero, zero, zero
                for at in range(first * channels + c, min(first + BLOCK, rows) * channels, channels):
                    n = (load_pair(flat, at) - mean) * inv_std
                    size = absolute(n)
                    ball = tanh_of_size(curve * size)
                    t = with_sign(ball, n)
                    store(tangent, at, t)
                    store(out, at, weight * (rest * n + reach * t) + bias)
                    sum_t = sum_t + ball
                    sum_n = sum_n + size
                    sum_tt = sum_tt + ball * ball
                    count = choose(greater(ball, edge), count + one, count)
                add_wide(wide, c, sum_t)
                add_wide(wide, channels + c, sum_n)
                add_wide(wide, 2 * channels + c, sum_tt)
                add_wide(wide, 3 * channels + c, count)


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], float64[:,::1], {f}[::1], {f}, {f}, "
    "UniTuple(boolean, 3), {f}[:,::1], float64[:,::1], {f}[::1], {f}[::1], {f}[::1])"
)
def stripwise_norm_backward(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    tangent: Float,
    grad: Float,
    statistics: F64,
    gamma: Float,
    s: float,
    g: float,
    wanted: tuple[bool, bool, bool],
    affine: Float,
    sums: F64,
    grad_gamma: Float,
    grad_beta: Float,
    grad_x: Float,
) -> None:
    r"""Add to the gradients of gamma and beta, and write that of the input.

    .. math:: \partial x = \sigma^{-1} \big( d - \overline{d} - n \, \overline{d n} \big), \quad d = \gamma G J, \quad
              J = (1-g) + g (1-t^2)

    Parameters
    ----------
    x : (R, C)
    tangent : (E,)                t, from `stripwise_norm`
    grad : (E,)                   G, the gradient of y
    statistics : (3, C)           from `stripwise_norm`
    gamma : (C,)
    s, g                          as given to `stripwise_norm`
    wanted                        whether the statistics depend on x (else the means are left out), whether to add to
                                  the gradients of gamma and beta, and whether to write that of the input
    affine : (5, C)               from `stripwise_norm`; rows 2 to 4 written: inv_std*mean(d), inv_std*mean(d n),
                                  inv_std*gamma
    sums : (4, C)                 written: sums of G, G p, G J, G J n
    grad_gamma, grad_beta : (C,)  added to
    grad_x : (E,)                 written
    """
    number = x.dtype.type
    rows, channels = x.shape
    flat, rounded, wide = x.reshape(-1), affine.reshape(-1), sums.reshape(-1)
    zero, one = spread_pair(number(0)), spread_pair(number(1))
    gain, rest, reach = spread_pair(g), spread_pair(number(1) - g), spread_pair(g / s)
    batch, accumulate, input_grad = wanted
    for strip in range(start, stop):
        begin, end = strip * STRIP, min((strip + 1) * STRIP, channels)
        sums[:, begin:end] = 0
        for first in range(0, rows, BLOCK):
            for c in range(begin, end, PAIR):
                mean, inv_std = load_pair(rounded, c), load_pair(rounded, channels + c)
                sum_g, sum_gp, sum_gj, sum_gjn = zero, zero, zero, zero
                for at in range(first * channels + c, min(first + BLOCK, rows) * channels, channels):
                    n, t, upstream = (load_pair(flat, at) - mean) * inv_std, load_pair(tangent, at), load_pair(grad, at)
                    d = upstream * (rest + gain * (one - t * t))
                    sum_g = sum_g + upstream
                    sum_gp = sum_gp + upstream * (rest * n + reach * t)
                    sum_gj = sum_gj + d
                    sum_gjn = sum_gjn + d * n
                add_wide(wide, c, sum_g)
                add_wide(wide, channels + c, sum_gp)
                add_wide(wide, 2 * channels + c, sum_gj)
                add_wide(wide, 3 * channels + c, sum_gjn)
        for c in range(begin, end):
            if accumulate:
                grad_beta[c] += number(sums[0, c])
                grad_gamma[c] += number(sums[1, c])
            slope_of_y = statistics[2, c] * gamma[c]
            affine[2, c] = slope_of_y * sums[2, c] / rows if batch else 0.0
            affine[3, c] = slope_of_y * sums[3, c] / rows if batch else 0.0
            affine[4, c] = slope_of_y
        for first in range(0, rows if input_grad else 0, BLOCK):
            for c in range(begin, end, PAIR):
                mean, inv_std = load_pair(rounded, c), load_pair(rounded, channels + c)
                shift, slope = load_pair(rounded, 2 * channels + c), load_pair(rounded, 3 * channels + c)
                scale = load_pair(rounded, 4 * channels + c)
                for at in range(first * channels + c, min(first + BLOCK, rows) * channels, channels):
                    n, t = (load_pair(flat, at) - mean) * inv_std, load_pair(tangent, at)
                    through = load_pair(grad, at) * (rest + gain * (one - t * t))
                    store(grad_x, at, scale * through - shift - n * slope)
