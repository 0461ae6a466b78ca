r"""Loops of the layer norms, whose statistics are those of each row.

Letters: R rows, F features, chunks = ceil(R / `ROWS`). A chunk is `ROWS` rows, whatever the number of threads. Sums
along a row are taken in float64 and end in that row's own place; sums down the rows are taken per chunk in float64 and
are added over chunks by the caller in chunk order.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.real import tanh
from spiral_core.kernels.znorm import SATURATED

ROWS = 32
"""Rows in one chunk: a batch of 64 keeps two threads busy, and sums per chunk take an eighth of its room."""


@kernel("void(int64, int64, int64, {f}[:,::1], float64, float64[::1], float64[::1])")
def row_statistics(start: int, stop: int, slot: int, x: Float, epsilon: float, mean: F64, inv_std: F64) -> None:
    r"""Write mean and :math:`1 / \sqrt{v + \epsilon}` of each row, v the population variance, in two passes.

    Parameters
    ----------
    x : (R, F)
    epsilon : float
    mean, inv_std : (R,)   written
    """
    rows, features = x.shape
    for r in range(start * ROWS, min(stop * ROWS, rows)):
        row = x[r]
        total = 0.0
        for j in range(features):
            total += np.float64(row[j])
        center = total / features
        squares = 0.0
        for j in range(features):
            d = np.float64(row[j]) - center
            squares += d * d
        mean[r] = center
        inv_std[r] = 1.0 / np.sqrt(squares / features + epsilon)


@kernel(
    "void(int64, int64, int64, {f}[:,::1], float64[::1], float64[::1], {f}[:,::1], {f}, {f}, "
    "{f}[:,::1], {f}[:,::1], {f}[:,::1], float64[:,::1], float64[:,::1])"
)
def row_norm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    mean: F64,
    inv_std: F64,
    affine: Float,
    s: float,
    g: float,
    normed: Float,
    tangent: Float,
    out: Float,
    row_sums: F64,
    feature_sums: F64,
) -> None:
    r"""Whiten each row, project into the ball, scale and shift; and sum up what telemetry says about it.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad
              p = (1-g) n + g t / s, \quad y = \gamma p + \beta

    Parameters
    ----------
    x : (R, F)
    mean, inv_std : (R,)
    affine : (2, F)               gamma, beta
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    normed, tangent : (R, F)      n and t, written; the backward pass and telemetry need them
    out : (R, F)                  y, written
    row_sums : (4, R)             written: sums over features of \|t\|, of \|n\|, of t^2, and the count of \|t\| > 0.99
    feature_sums : (chunks, F)    written: sums over the chunk's rows of \|t\|

    Notes
    -----
    n is taken in float64 and rounded once: a row far from zero loses nothing but what its own rounding has lost.
    """
    one = x.dtype.type(1)
    edge = x.dtype.type(SATURATED)
    rows, features = x.shape
    gamma, beta = affine[0], affine[1]
    rest = one - g
    reach = g / s
    for chunk in range(start, stop):
        down = feature_sums[chunk]
        down[:] = 0
        for r in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            v, normed_row, tangent_row, out_row = x[r], normed[r], tangent[r], out[r]
            center, scale = mean[r], inv_std[r]
            for j in range(features):
                normed_row[j] = (np.float64(v[j]) - center) * scale
            for j in range(features):
                n = normed_row[j]
                t = tanh(s * n)
                tangent_row[j] = t
                out_row[j] = gamma[j] * (rest * n + reach * t) + beta[j]
            sum_t, sum_n, sum_tt, count = 0.0, 0.0, 0.0, 0.0
            for j in range(features):
                ball = np.float64(abs(tangent_row[j]))
                sum_t += ball
                sum_n += np.float64(abs(normed_row[j]))
                sum_tt += ball * ball
                count += 1.0 if abs(tangent_row[j]) > edge else 0.0
                down[j] += ball
            row_sums[0, r] = sum_t
            row_sums[1, r] = sum_n
            row_sums[2, r] = sum_tt
            row_sums[3, r] = count


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[:,::1], float64[::1], {f}[::1], {f}, {f}, "
    "{f}[:,::1], float64[:,:,::1])"
)
def row_norm_backward(
    start: int,
    stop: int,
    slot: int,
    normed: Float,
    tangent: Float,
    grad: Float,
    inv_std: F64,
    gamma: Float,
    s: float,
    g: float,
    grad_x: Float,
    sums: F64,
) -> None:
    r"""Write the gradient of the input, and sum up those of gamma and beta.

    .. math:: \partial x = \sigma^{-1} \big( d - \overline{d} - n \, \overline{d n} \big), \quad d = \gamma G J, \quad
              J = (1-g) + g (1-t^2)

    Parameters
    ----------
    normed, tangent : (R, F)   n and t, from `row_norm`
    grad : (R, F)              G, the gradient of y
    inv_std : (R,)
    gamma : (F,)
    s, g                       as given to `row_norm`
    grad_x : (R, F)            written; holds d for a moment
    sums : (chunks, 2, F)      written: sums over the chunk's rows of G p and of G
    """
    one = normed.dtype.type(1)
    rows, features = grad.shape
    rest = one - g
    reach = g / s
    for chunk in range(start, stop):
        down_gamma, down_beta = sums[chunk, 0], sums[chunk, 1]
        down_gamma[:] = 0
        down_beta[:] = 0
        for r in range(chunk * ROWS, min((chunk + 1) * ROWS, rows)):
            normed_row, tangent_row, grad_row, target = normed[r], tangent[r], grad[r], grad_x[r]
            sum_d, sum_dn = 0.0, 0.0
            for j in range(features):
                n = normed_row[j]
                t = tangent_row[j]
                upstream = grad_row[j]
                d = gamma[j] * upstream * (rest + g * (one - t * t))
                target[j] = d
                down_gamma[j] += np.float64(upstream) * np.float64(rest * n + reach * t)
                down_beta[j] += np.float64(upstream)
                sum_d += np.float64(d)
                sum_dn += np.float64(d) * np.float64(n)
            shift, slope, scale = sum_d / features, sum_dn / features, inv_std[r]
            for j in range(features):
                target[j] = scale * (np.float64(target[j]) - shift - np.float64(normed_row[j]) * slope)
