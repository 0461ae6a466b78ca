"""From the input of a batch norm to the numbers that whiten it, and from the sums of its backward pass to gradients.

Letters are those of `spiral_core.kernels.znorm`.
"""

from __future__ import annotations

import math

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.vector import LANES, add_wide, load, spread

BLOCK = 512
"""Rows between two additions to float64. Four sums share them, so that each addition need not wait for the one before
and none has more than 128 terms."""


@kernel("void({f}[::1], int64, int64, {f}[::1], float64[:,::1])")
def span_moments(x: Float, begin: int, end: int, centre: Float, moments: F64) -> None:
    r"""Take mean and sum of squared deviations of each channel over a span, in two passes over it, 16 channels at once.

    Parameters
    ----------
    x : (E,)
    begin, end : int     the span, of whole rows; it should stay in cache between the passes
    centre : (C,)        scratch; C is a multiple of 16
    moments : (2, C)     m and q as `spiral_core.kernels.znorm.channel_moments` defines them, written
    """
    channels = centre.size
    rows = (end - begin) // channels
    flat = moments.reshape(-1)
    moments[:] = 0
    zero = spread(x.dtype.type(0))
    for c in range(0, channels, LANES):
        for first in range(begin + c, end, BLOCK * channels):
            last = min(first - c + BLOCK * channels, end)
            fours = first + (last - first + c) // (4 * channels) * 4 * channels
            s0, s1, s2, s3 = zero, zero, zero, zero
            for at in range(first, fours, 4 * channels):
                s0, s1 = s0 + load(x, at), s1 + load(x, at + channels)
                s2, s3 = s2 + load(x, at + 2 * channels), s3 + load(x, at + 3 * channels)
            for at in range(fours, last, channels):
                s0 = s0 + load(x, at)
            add_wide(flat, c, (s0 + s1) + (s2 + s3))
        for j in range(c, c + LANES):
            flat[j] /= rows
            centre[j] = flat[j]
        middle = load(centre, c)
        for first in range(begin + c, end, BLOCK * channels):
            last = min(first - c + BLOCK * channels, end)
            fours = first + (last - first + c) // (4 * channels) * 4 * channels
            s0, s1, s2, s3 = zero, zero, zero, zero
            for at in range(first, fours, 4 * channels):
                d0, d1 = load(x, at) - middle, load(x, at + channels) - middle
                d2, d3 = load(x, at + 2 * channels) - middle, load(x, at + 3 * channels) - middle
                s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
            for at in range(fours, last, channels):
                d0 = load(x, at) - middle
                s0 = s0 + d0 * d0
            add_wide(flat, channels + c, (s0 + s1) + (s2 + s3))
        for j in range(c, c + LANES):
            off = flat[j] - centre[j]
            flat[channels + j] -= rows * off * off


@kernel("void(float64[:,:,::1], int64, int64, float64[:,::1])")
def merge_moments(moments: F64, rows: int, span_rows: int, merged: F64) -> None:
    r"""Join the moments of chunks, in their order, into those of all rows.

    .. math:: \mu = \frac{1}{R} \sum_k R_k m_k, \quad v = \frac{1}{R} \sum_k \big( q_k + R_k (m_k - \mu)^2 \big)

    Parameters
    ----------
    moments : (chunks, 2, C)     from `spiral_core.kernels.znorm.channel_moments`
    rows : int                   R
    span_rows : int              rows of one chunk; the last may have fewer
    merged : (2, C)              mean and population variance, written

    Notes
    -----
    Source: Chan, Golub and LeVeque 1983, equation 1.5, for many parts at once.
    """
    merged[:] = 0
    mean, variance = merged[0], merged[1]
    for k in range(moments.shape[0]):
        own, found = min(span_rows, rows - k * span_rows), moments[k, 0]
        for c in range(mean.size):
            mean[c] += own * found[c]
    for c in range(mean.size):
        mean[c] /= rows
    for k in range(moments.shape[0]):
        own, found, squares = min(span_rows, rows - k * span_rows), moments[k, 0], moments[k, 1]
        for c in range(mean.size):
            off = found[c] - mean[c]
            variance[c] += squares[c] + own * off * off
    for c in range(mean.size):
        variance[c] /= rows


@kernel("void(float64[:,::1], float64, {f}[::1], {f}[::1])")
def follow_statistics(statistics: F64, share: float, running_mean: Float, running_var: Float) -> None:
    """Move the running statistics towards those of a batch, unless one of the batch's is not finite.

    Parameters
    ----------
    statistics : (2 or more, C)      mean and variance of the batch in the first two rows
    share : float                    weight of the batch
    running_mean, running_var : (C,) moved
    """
    for c in range(running_mean.size):
        if not (math.isfinite(statistics[0, c]) and math.isfinite(statistics[1, c])):
            return
    for c in range(running_mean.size):
        running_mean[c] = share * statistics[0, c] + (1 - share) * running_mean[c]
        running_var[c] = share * statistics[1, c] + (1 - share) * running_var[c]


@kernel(
    "void(float64[:,:,::1], int64, int64, float64, float64, {f}[::1], {f}[::1], {f}[::1], {f}[::1], "
    "float64[:,::1], {f}[:,::1])"
)
def whiten(
    moments: F64,
    rows: int,
    span_rows: int,
    momentum: float,
    epsilon: float,
    running_mean: Float,
    running_var: Float,
    gamma: Float,
    beta: Float,
    statistics: F64,
    affine: Float,
) -> None:
    r"""Join moments, let the running statistics follow, and write what whitening takes.

    Parameters
    ----------
    moments, rows, span_rows         as `merge_moments` takes them; (0, 2, C): the running statistics are used
    momentum, epsilon : float        share of the batch in the running statistics; added to the variance
    running_mean, running_var : (C,) moved, unless the batch has a statistic that is not finite
    gamma, beta : (C,)
    statistics : (2, C)              mean and 1/sqrt(v + epsilon), written
    affine : (4, L)                  mean, inv_std, gamma and beta, each repeated to L, a multiple of C; written
    """
    mean, spread_out = statistics[0], statistics[1]
    if moments.shape[0] > 0:
        merge_moments(moments, rows, span_rows, statistics)
        follow_statistics(statistics, momentum, running_mean, running_var)
    else:
        for c in range(mean.size):
            mean[c], spread_out[c] = running_mean[c], running_var[c]
    for c in range(mean.size):
        spread_out[c] = 1 / math.sqrt(spread_out[c] + epsilon)
    for first in range(0, affine.shape[1], mean.size):
        for c in range(mean.size):
            affine[0, first + c], affine[1, first + c] = mean[c], spread_out[c]
            affine[2, first + c], affine[3, first + c] = gamma[c], beta[c]


@kernel("void(float64[:,:,::1], float64[:,::1])")
def add_chunks(sums: F64, totals: F64) -> None:
    """Add the sums of chunks, in their order.

    Parameters
    ----------
    sums : (chunks, Q, C)
    totals : (Q, C)         written
    """
    totals[:] = 0
    for k in range(sums.shape[0]):
        for q in range(totals.shape[0]):
            row, part = totals[q], sums[k, q]
            for c in range(row.size):
                row[c] += part[c]


@kernel(
    "void(float64[:,:,::1], float64[:,::1], float64[::1], float64[::1], float64, {f}[::1], boolean, "
    "{f}[::1], {f}[::1], {f}[:,::1])"
)
def unwhiten(
    sums: F64,
    totals: F64,
    mean: F64,
    inv_std: F64,
    members: float,
    gamma: Float,
    accumulate: bool,
    grad_gamma: Float,
    grad_beta: Float,
    affine: Float,
) -> None:
    r"""Turn the sums of a backward pass into the gradients of gamma and beta, and into what that of the input needs.

    Parameters
    ----------
    sums : (chunks, 4, C)          partial sums of G, G p, G J and G J n
    totals : (4, C)                scratch
    mean, inv_std : (C,)           of the forward pass
    members : float                rows that the statistics are of; infinite where they are constants
    gamma : (C,)
    accumulate : bool              whether the gradients of gamma and beta are wanted
    grad_gamma, grad_beta : (C,)   added to
    affine : (5, L)                mean, inv_std, inv_std gamma mean(G J), inv_std gamma mean(G J n), inv_std gamma,
                                   each repeated to L, a multiple of C; written
    """
    add_chunks(sums, totals)
    number = gamma.dtype.type
    if accumulate:
        for c in range(gamma.size):
            grad_gamma[c] += number(totals[1, c])
            grad_beta[c] += number(totals[0, c])
    for first in range(0, affine.shape[1], gamma.size):
        for c in range(gamma.size):
            scale = inv_std[c] * gamma[c]
            affine[0, first + c], affine[1, first + c] = mean[c], inv_std[c]
            affine[2, first + c] = scale * totals[2, c] / members
            affine[3, first + c] = scale * totals[3, c] / members
            affine[4, first + c] = scale
