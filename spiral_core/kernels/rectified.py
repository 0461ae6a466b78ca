r"""A norm, the ReLU behind it and the 2 x 2 maximum behind that, in one pass over memory.

Letters and wide rows are those of `spiral_core.kernels.znorm`: y = gamma p + beta is the norm's output, z = max(y, 0).
Only what the backward pass needs is written: z and t = tanh(s n), and with a maximum the input x and t of each winner.
n is computed again from x, which costs two operations and saves a walk through memory.

The kernels with a maximum take images (N, H, W*C) with H and W even, one chunk each; their wide row is one row of
pixels, W*C elements.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F64, U8, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.real import tanh
from spiral_core.kernels.znorm import SATURATED, fold_lanes


@kernel("void({f}[::1], {f}[:,::1], {f}, {f}, {f}[:,::1], {f}[::1], {f}[::1])")
def rectified_row(x: Float, affine: Float, s: float, g: float, lanes: Float, tangent: Float, out: Float) -> None:
    r"""Whiten, project, scale, shift and rectify one wide row; add to the sums of telemetry.

    Parameters
    ----------
    x : (l,)                  at most L elements
    affine : (4, L)           mean, inv_std, gamma, beta
    s, g                      sqrt(-curvature) and projector gain, in the dtype of ``x``
    lanes : (4, L)            \|t\|, \|n\|, t^2 and the count of \|t\| > 0.99 are added
    tangent, out : (l,)       t and z, written
    """
    one = x.dtype.type(1)
    zero = x.dtype.type(0)
    edge = x.dtype.type(SATURATED)
    mean, inv_std, gamma, beta = affine[0], affine[1], affine[2], affine[3]
    sum_t, sum_n, sum_tt, count = lanes[0], lanes[1], lanes[2], lanes[3]
    rest = one - g
    reach = g / s
    for j in range(x.size):
        n = (x[j] - mean[j]) * inv_std[j]
        t = tanh(s * n)
        y = gamma[j] * (rest * n + reach * t) + beta[j]
        tangent[j] = t
        # The comparison is false for a NaN, which stays.
        out[j] = zero if y <= zero else y
    for j in range(x.size):
        t = tangent[j]
        r = abs(t)
        sum_t[j] += r
        sum_n[j] += abs((x[j] - mean[j]) * inv_std[j])
        sum_tt[j] += t * t
        count[j] += one if r > edge else zero


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[:,::1], {f}, {f}, int64, {f}[:,:,::1], {f}[::1], {f}[::1], "
    "float64[:,:,::1])"
)
def rectified_norm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    affine: Float,
    s: float,
    g: float,
    span: int,
    lanes: Float,
    tangent: Float,
    out: Float,
    sums: F64,
) -> None:
    r"""Whiten, project into the ball, scale, shift and rectify.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad z = \max(\gamma ((1-g) n + g t / s) + \beta, 0)

    Parameters
    ----------
    x : (E,)
    affine : (4, L)               mean, inv_std, gamma, beta, each repeated along the wide row
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    span : int                    elements in one chunk
    lanes : (T, 4, L)             scratch
    tangent, out : (E,)           t and z, written
    sums : (chunks, 4, C)         written, as `spiral_core.kernels.znorm.znorm` does
    """
    width = affine.shape[1]
    for chunk in range(start, stop):
        lanes[slot] = 0
        for first in range(chunk * span, min((chunk + 1) * span, x.size), width):
            last = min(first + width, x.size)
            rectified_row(x[first:last], affine, s, g, lanes[slot], tangent[first:last], out[first:last])
        fold_lanes(lanes[slot], sums[chunk])


@kernel("void({f}[:,::1], int64, int64, {f}[:,::1])")
def split_windows(pair: Float, channels: int, pixels: int, taps: Float) -> None:
    """Sort two rows of pixels by their place in the 2 x 2 window.

    Parameters
    ----------
    pair : (2, 2*pixels*channels)     two rows of an image
    taps : (4, pixels*channels)       written: row 2 a + b holds column b of row a
    """
    for a in range(2):
        source = pair[a]
        for b in range(2):
            target = taps[2 * a + b]
            for j in range(pixels):
                part = target[j * channels : (j + 1) * channels]
                pixel = source[(2 * j + b) * channels : (2 * j + b + 1) * channels]
                for c in range(part.size):
                    part[c] = pixel[c]


@kernel("void({f}[:,::1], int64, int64, {f}[:,::1])")
def join_windows(taps: Float, channels: int, pixels: int, pair: Float) -> None:
    """Undo `split_windows`.

    Parameters
    ----------
    taps : (4, pixels*channels)
    pair : (2, 2*pixels*channels)     written
    """
    for a in range(2):
        target = pair[a]
        for b in range(2):
            source = taps[2 * a + b]
            for j in range(pixels):
                part = source[j * channels : (j + 1) * channels]
                pixel = target[(2 * j + b) * channels : (2 * j + b + 1) * channels]
                for c in range(part.size):
                    pixel[c] = part[c]


@kernel("void({f}[::1], {f}[::1], {f}[::1], uint8, {f}[::1], {f}[::1], {f}[::1], uint8[::1])")
def challenge(
    x: Float, tangent: Float, z: Float, tap: np.uint8, best_x: Float, best_tangent: Float, best: Float, taps: U8
) -> None:
    """Let one tap of each window win where z is larger; a NaN always wins.

    Parameters
    ----------
    x, tangent, z : (l,)                       of this tap
    tap : int
    best_x, best_tangent, best, taps : (l,)    of the winner so far, and which it is; updated
    """
    for j in range(z.size):
        v = z[j]
        # v != v is true for NaN alone. One branch over all four becomes one masked store each.
        if (v > best[j]) | (v != v):
            best[j] = v
            best_x[j] = x[j]
            best_tangent[j] = tangent[j]
            taps[j] = tap


@kernel(
    "void(int64, int64, int64, {f}[:,:,::1], {f}[:,::1], {f}, {f}, {f}[:,:,::1], {f}[:,:,::1], "
    "{f}[:,:,::1], {f}[:,:,::1], {f}[:,:,::1], uint8[:,:,::1], float64[:,:,::1])"
)
def rectified_norm_pool(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    affine: Float,
    s: float,
    g: float,
    lanes: Float,
    rows: Float,
    out: Float,
    winner_x: Float,
    winner_tangent: Float,
    taps: U8,
    sums: F64,
) -> None:
    r"""As `rectified_norm`, and take the maximum of each 2 x 2 window.

    Parameters
    ----------
    x : (N, H, W*C)
    affine : (4, L)                          mean, inv_std, gamma, beta, each repeated; L = W/2*C
    s, g                                     sqrt(-curvature) and projector gain, in the dtype of ``x``
    lanes : (T, 4, L)                        scratch
    rows : (T, 6, L)                         scratch
    out : (N, H/2, L)                        maximum of z, written; a NaN always wins
    winner_x, winner_tangent : as ``out``    x and t of the winner, written
    taps : as ``out``                        the winner as 2 a + b, written; the first of equals wins
    sums : (N, 4, C)                         written, as `spiral_core.kernels.znorm.znorm` does
    """
    width = out.shape[2]
    channels = sums.shape[2]
    windows, tangent, z = rows[slot, :4], rows[slot, 4], rows[slot, 5]
    for n in range(start, stop):
        lanes[slot] = 0
        for i in range(out.shape[1]):
            best, best_x, best_t, tap = out[n, i], winner_x[n, i], winner_tangent[n, i], taps[n, i]
            split_windows(x[n, 2 * i : 2 * i + 2], channels, width // channels, windows)
            rectified_row(windows[0], affine, s, g, lanes[slot], best_t, best)
            for j in range(width):
                best_x[j] = windows[0, j]
                tap[j] = 0
            for k in range(1, 4):
                rectified_row(windows[k], affine, s, g, lanes[slot], tangent, z)
                challenge(windows[k], tangent, z, np.uint8(k), best_x, best_t, best, tap)
        fold_lanes(lanes[slot], sums[n])


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1], {f}[::1], {f}[:,::1], {f}, {f}, int64, {f}[:,:,::1], "
    "{f}[::1], float64[:,:,::1])"
)
def rectified_norm_backward_sums(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    tangent: Float,
    out: Float,
    grad: Float,
    affine: Float,
    s: float,
    g: float,
    span: int,
    lanes: Float,
    through: Float,
    sums: F64,
) -> None:
    r"""Pass the gradient through ReLU and projector; sum what gamma, beta and the statistics need.

    With :math:`J = \partial p / \partial n = (1-g) + g (1-t^2)` and G the gradient where z is not at zero.

    Parameters
    ----------
    x, tangent, out : (E,)    x, t and z, of all elements or of the winners alone
    grad : (E,)               gradient of z
    affine : (2, L)           mean and inv_std, repeated along the wide row
    s, g                      as given to the forward pass
    span : int                elements in one chunk
    lanes : (T, 4, L)         scratch
    through : (E,)            G J, written
    sums : (chunks, 4, C)     written: sums of G, G p, G J, G J n
    """
    one = x.dtype.type(1)
    zero = x.dtype.type(0)
    width = affine.shape[1]
    mean, inv_std = affine[0], affine[1]
    sum_g, sum_gp, sum_gj, sum_gjn = lanes[slot, 0], lanes[slot, 1], lanes[slot, 2], lanes[slot, 3]
    rest = one - g
    reach = g / s
    for chunk in range(start, stop):
        lanes[slot] = 0
        for first in range(chunk * span, min((chunk + 1) * span, grad.size), width):
            last = min(first + width, grad.size)
            v, t_row, z, grad_row, d = (
                x[first:last],
                tangent[first:last],
                out[first:last],
                grad[first:last],
                through[first:last],
            )
            for j in range(d.size):
                upstream = grad_row[j]
                d[j] = zero if z[j] <= zero else upstream
            for j in range(d.size):
                n = (v[j] - mean[j]) * inv_std[j]
                sum_g[j] += d[j]
                sum_gp[j] += d[j] * (rest * n + reach * t_row[j])
            for j in range(d.size):
                n = (v[j] - mean[j]) * inv_std[j]
                t = t_row[j]
                d[j] *= rest + g * (one - t * t)
                sum_gj[j] += d[j]
                sum_gjn[j] += d[j] * n
        fold_lanes(lanes[slot], sums[chunk])


@kernel("void({f}[::1], {f}[:,::1], {f}[::1])")
def statistics_gradient(x: Float, affine: Float, grad_x: Float) -> None:
    """Write the part of a row's gradient that flows through the statistics: ``-(shift + n slope)``.

    Parameters
    ----------
    x : (l,)
    affine : (4, L)     mean, inv_std, shift, slope
    grad_x : (l,)       written
    """
    mean, inv_std, shift, slope = affine[0], affine[1], affine[2], affine[3]
    for j in range(x.size):
        n = (x[j] - mean[j]) * inv_std[j]
        grad_x[j] = -(shift[j] + n * slope[j])


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], {f}[:,::1], int64, {f}[::1])")
def rectified_norm_backward_input(
    start: int, stop: int, slot: int, x: Float, through: Float, affine: Float, span: int, grad_x: Float
) -> None:
    r"""Write the gradient of the input.

    .. math:: \partial x = \sigma^{-1} \big( \gamma G J - \overline{d} - n \, \overline{d n} \big), \quad d = \gamma G J

    Parameters
    ----------
    x : (E,)
    through : (E,)      G J, from `rectified_norm_backward_sums`
    affine : (5, L)     mean, inv_std, inv_std*mean(d), inv_std*mean(d n), inv_std*gamma, each repeated; the third and
                        fourth are zero where the statistics are constants
    span : int          elements in one chunk
    grad_x : (E,)       written
    """
    width = affine.shape[1]
    scale = affine[4]
    for chunk in range(start, stop):
        for first in range(chunk * span, min((chunk + 1) * span, x.size), width):
            last = min(first + width, x.size)
            target, d = grad_x[first:last], through[first:last]
            statistics_gradient(x[first:last], affine[:4], target)
            for j in range(target.size):
                target[j] += scale[j] * d[j]


@kernel("void({f}[::1], uint8, uint8[::1], {f}[::1])")
def add_where(values: Float, tap: np.uint8, taps: U8, target: Float) -> None:
    """Add values where this tap won the window.

    Parameters
    ----------
    values, taps : (l,)
    target : (l,)        updated
    """
    for j in range(values.size):
        if taps[j] == tap:
            target[j] += values[j]


@kernel(
    "void(int64, int64, int64, {f}[:,:,::1], {f}[:,:,::1], uint8[:,:,::1], {f}[:,::1], int64, {f}[:,:,::1], "
    "{f}[:,:,::1])"
)
def rectified_norm_pool_backward_input(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    through: Float,
    taps: U8,
    affine: Float,
    channels: int,
    rows: Float,
    grad_x: Float,
) -> None:
    """As `rectified_norm_backward_input`, with the gradient at the winners.

    Parameters
    ----------
    x : (N, H, W*C)
    through, taps : (N, H/2, L)     G J at the winners, and which they are
    affine : (5, L)                 as there
    channels : int
    rows : (T, 9, L)                scratch
    grad_x : (N, H, W*C)            written
    """
    width = through.shape[2]
    pixels = width // channels
    windows, targets, d = rows[slot, :4], rows[slot, 4:8], rows[slot, 8]
    scale = affine[4]
    for n in range(start, stop):
        for i in range(through.shape[1]):
            upstream, tap = through[n, i], taps[n, i]
            split_windows(x[n, 2 * i : 2 * i + 2], channels, pixels, windows)
            for j in range(width):
                d[j] = scale[j] * upstream[j]
            for k in range(4):
                statistics_gradient(windows[k], affine[:4], targets[k])
                add_where(d, np.uint8(k), tap, targets[k])
            join_windows(targets, channels, pixels, grad_x[n, 2 * i : 2 * i + 2])
