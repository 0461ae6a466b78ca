r"""Passes of the layer norms where the features are a multiple of `spiral_core.kernels.vector.PAIR`.

What they compute is what the loops of `spiral_core.kernels.rownorm` compute, in half of the time: a row is read again
while it lies in the first-level cache, n is not written but computed again from x, and sums stay in registers. Letters,
chunks and order of sums are those of that module; a sum of at most `BLOCK` features of a row, or of the rows of one
chunk, is taken in the dtype of the data, and longer ones in float64.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.rownorm import ROWS
from spiral_core.kernels.vector import (
    PAIR,
    absolute,
    choose,
    greater,
    load_pair,
    spread_pair,
    store,
    tanh_of_size,
    total,
    with_sign,
)
from spiral_core.kernels.znorm import SATURATED

BLOCK = 1024
"""Features between two additions to float64, 32 to each of a pair's numbers: the rounding of a sum grows with its
length."""

GROUP = 4
"""Rows whose statistics are taken at once: one need not wait for the sum of the other, and all stay in cache."""


@kernel("void(int64, int64, int64, {f}[:,::1], float64, float64[:,::1])")
def rowwise_statistics(start: int, stop: int, slot: int, x: Float, epsilon: float, statistics: F64) -> None:
    r"""Write mean and :math:`1 / \sqrt{v + \epsilon}` of rows ``start`` to ``stop``, in two passes.

    .. math:: \mu = \hat\mu + \overline{d}, \quad v = \overline{d^2} - \overline{d}^2, \quad d = x - \hat\mu

    where the hat rounds the mean of the first pass to the dtype of ``x``.

    Parameters
    ----------
    x : (R, F)
    epsilon : float
    statistics : (2, R)   written

    Notes
    -----
    Source: Chan, Golub and LeVeque 1983, equation 1.7, the corrected two-pass algorithm. What is taken off is never
    more than there is: where all d are nearly equal they are small multiples of one rounding, and their squares exact.
    """
    number = x.dtype.type
    features = x.shape[1]
    flat = x.reshape(-1)
    zero = spread_pair(number(0))
    for r in range(start, stop):
        sum_x = 0.0
        for begin in range(r * features, (r + 1) * features, BLOCK):
            block = zero
            for at in range(begin, min(begin + BLOCK, (r + 1) * features), PAIR):
                block = block + load_pair(flat, at)
            sum_x += total(block)
        statistics[0, r] = sum_x / features
    for r in range(start, stop):
        near = number(statistics[0, r])
        center = spread_pair(near)
        sum_d, sum_dd = 0.0, 0.0
        for begin in range(r * features, (r + 1) * features, BLOCK):
            block_d, block_dd = zero, zero
            for at in range(begin, min(begin + BLOCK, (r + 1) * features), PAIR):
                d = load_pair(flat, at) - center
                block_d = block_d + d
                block_dd = block_dd + d * d
            sum_d += total(block_d)
            sum_dd += total(block_dd)
        off = sum_d / features
        variance = sum_dd / features - off * off
        statistics[0, r] = near + off
        statistics[1, r] = 1.0 / np.sqrt(variance + epsilon)


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[:,::1], float64, {f}, {f}, "
    "float64[:,::1], {f}[::1], {f}[::1], float64[:,::1], {f}[:,::1])"
)
def rowwise_norm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    affine: Float,
    epsilon: float,
    s: float,
    g: float,
    statistics: F64,
    tangent: Float,
    out: Float,
    row_sums: F64,
    feature_sums: Float,
) -> None:
    r"""Whiten each row, project into the ball, scale and shift; and sum up what telemetry says about it.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad
              p = (1-g) n + g t / s, \quad y = \gamma p + \beta

    Parameters
    ----------
    x : (R, F)
    affine : (2, F)               gamma, beta
    epsilon : float               added to the variance
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    statistics : (2, R)           mean and :math:`\sigma^{-1}`, written
    tangent, out : (E,)           t and y, written
    row_sums : (4, R)             written: sums over features of \|t\|, of \|n\|, of t^2, and the count of \|t\| > 0.99
    feature_sums : (chunks, F)    written: sums over the chunk's rows of \|t\|

    Notes
    -----
    The mean is subtracted in two parts, its rounding to the dtype of ``x`` and what that has lost: a row far from zero
    loses nothing but what its own rounding has lost.
    """
    number = x.dtype.type
    rows, features = x.shape
    flat, weights, down = x.reshape(-1), affine.reshape(-1), feature_sums.reshape(-1)
    zero, one, edge = spread_pair(number(0)), spread_pair(number(1)), spread_pair(number(SATURATED))
    curve, rest, reach = spread_pair(s), spread_pair(number(1) - g), spread_pair(g / s)
    for chunk in range(start, stop):
        feature_sums[chunk] = 0
        last = min((chunk + 1) * ROWS, rows)
        for r in range(chunk * ROWS, last):
            if r % GROUP == 0:
                rowwise_statistics(r, min(r + GROUP, last), slot, x, epsilon, statistics)
            near = number(statistics[0, r])
            center, scale = spread_pair(near), spread_pair(number(statistics[1, r]))
            lost = spread_pair(number((statistics[0, r] - near) * statistics[1, r]))
            sum_t, sum_n, sum_tt, count = 0.0, 0.0, 0.0, 0.0
            for begin in range(0, features, BLOCK):
                block_t, block_n, block_tt, block_count = zero, zero, zero, zero
                for j in range(begin, min(begin + BLOCK, features), PAIR):
                    at, to = r * features + j, chunk * features + j
                    n = (load_pair(flat, at) - center) * scale - lost
                    size = absolute(n)
                    ball = tanh_of_size(curve * size)
                    t = with_sign(ball, n)
                    store(tangent, at, t)
                    store(out, at, load_pair(weights, j) * (rest * n + reach * t) + load_pair(weights, features + j))
                    block_t = block_t + ball
                    block_n = block_n + size
                    block_tt = block_tt + ball * ball
                    block_count = choose(greater(ball, edge), block_count + one, block_count)
                    store(down, to, load_pair(down, to) + ball)
                sum_t += total(block_t)
                sum_n += total(block_n)
                sum_tt += total(block_tt)
                count += total(block_count)
            row_sums[0, r] = sum_t
            row_sums[1, r] = sum_n
            row_sums[2, r] = sum_tt
            row_sums[3, r] = count


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], float64[:,::1], {f}[::1], {f}, {f}, "
    "{f}[::1], {f}[:,:,::1])"
)
def rowwise_norm_backward(
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
    grad_x: Float,
    sums: Float,
) -> None:
    r"""Write the gradient of the input, and sum up those of gamma and beta.

    .. math:: \partial x = \sigma^{-1} \big( d - \overline{d} - n \, \overline{d n} \big), \quad d = \gamma G J, \quad
              J = (1-g) + g (1-t^2)

    Parameters
    ----------
    x : (R, F)
    tangent : (E,)             t, from `rowwise_norm`
    grad : (E,)                G, the gradient of y
    statistics : (2, R)        from `rowwise_norm`
    gamma : (F,)
    s, g                       as given to `rowwise_norm`
    grad_x : (E,)              written; holds d for a moment
    sums : (chunks, 2, F)      written: sums over the chunk's rows of G p and of G
    """
    number = x.dtype.type
    rows, features = x.shape
    flat, down = x.reshape(-1), sums.reshape(-1)
    zero, one = spread_pair(number(0)), spread_pair(number(1))
    gain, rest, reach = spread_pair(g), spread_pair(number(1) - g), spread_pair(g / s)
    for chunk in range(start, stop):
        sums[chunk] = 0
        for r in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            near = number(statistics[0, r])
            center, scale = spread_pair(near), spread_pair(number(statistics[1, r]))
            lost = spread_pair(number((statistics[0, r] - near) * statistics[1, r]))
            sum_d, sum_dn = 0.0, 0.0
            for begin in range(0, features, BLOCK):
                block_d, block_dn = zero, zero
                for j in range(begin, min(begin + BLOCK, features), PAIR):
                    at, to = r * features + j, 2 * chunk * features + j
                    n = (load_pair(flat, at) - center) * scale - lost
                    t = load_pair(tangent, at)
                    upstream = load_pair(grad, at)
                    d = load_pair(gamma, j) * upstream * (rest + gain * (one - t * t))
                    store(grad_x, at, d)
                    store(down, to, load_pair(down, to) + upstream * (rest * n + reach * t))
                    store(down, to + features, load_pair(down, to + features) + upstream)
                    block_d = block_d + d
                    block_dn = block_dn + d * n
                sum_d += total(block_d)
                sum_dn += total(block_dn)
            shift, slope = spread_pair(number(sum_d / features)), spread_pair(number(sum_dn / features))
            for at in range(r * features, (r + 1) * features, PAIR):
                n = (load_pair(flat, at) - center) * scale - lost
                store(grad_x, at, scale * (load_pair(grad_x, at) - shift - n * slope))


@kernel("void({f}[:,:,::1], {f}[::1], {f}[::1])")
def add_parameter_sums(sums: Float, grad_gamma: Float, grad_beta: Float) -> None:
    """Add the sums of `rowwise_norm_backward` to the gradients of gamma and beta, over chunks in their order.

    Parameters
    ----------
    sums : (chunks, 2, F)
    grad_gamma, grad_beta : (F,)   added to
    """
    number = sums.dtype.type
    for j in range(grad_gamma.size):
        sum_gp, sum_g = 0.0, 0.0
        for chunk in range(sums.shape[0]):
            sum_gp += sums[chunk, 0, j]
            sum_g += sums[chunk, 1, j]
        grad_gamma[j] += number(sum_gp)
        grad_beta[j] += number(sum_g)
