r"""Loops of the Z-space batch norm over flat arrays whose last axis is the channel.

Letters: R rows, C channels, E = R*C elements, L = width of one wide row (the smallest multiple of C of at least
`WIDE`), T threads. Element e belongs to channel e % C, and so does lane e % L of a wide row: walking the array in wide
rows keeps every inner loop long enough to vectorise however few the channels. A chunk is ``span`` elements, a multiple
of L. Sums run down the lanes of one chunk in the dtype of the data (at most `CHUNK` / L terms each), are folded into
channels in float64, and are added over chunks by the caller in chunk order.
"""

from __future__ import annotations

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.moments import span_moments
from spiral_core.kernels.real import tanh
from spiral_core.kernels.vector import LANES

WIDE = 256
"""Least number of elements in a wide row: 16 vectors of 16 float32."""

CHUNK = 32768
"""Elements in one chunk, about: 128 KiB of float32."""

SATURATED = 0.99
"""Relative radius s*r above which an element counts as saturated: there the projector passes under 2 % of a gradient
at gain 1."""


def wide_row(channels: int) -> int:
    """Return L, the width of one wide row."""
    return channels * -(-WIDE // channels)


def chunk_span(channels: int) -> int:
    """Return the number of elements of one chunk; it depends on the channels alone."""
    width = wide_row(channels)
    return width * max(1, CHUNK // width)


@kernel("void({f}[:,::1], float64[:,::1])")
def fold_lanes(lanes: Float, sums: F64) -> None:
    """Fold lane sums into channel sums, in lane order.

    Parameters
    ----------
    lanes : (Q, L)  Q kinds of sum
    sums : (Q, C)   written
    """
    channels = sums.shape[1]
    for q in range(sums.shape[0]):
        row = sums[q]
        row[:] = 0
        for first in range(0, lanes.shape[1], channels):
            part = lanes[q, first : first + channels]
            for c in range(channels):
                row[c] += part[c]


@kernel("void(int64, int64, int64, {f}[::1], int64, {f}[:,:,::1], float64[:,:,::1])")
def channel_moments(start: int, stop: int, slot: int, x: Float, span: int, lanes: Float, moments: F64) -> None:
    r"""Take mean and sum of squared deviations of each channel over the rows of one chunk, in two passes over it.

    .. math:: m_c = \frac{1}{R} \sum_r x_{rc}, \quad
              q_c = \sum_r (x_{rc} - \hat m_c)^2 - R (m_c - \hat m_c)^2

    where the hat rounds the mean to the dtype of ``x``.

    Parameters
    ----------
    x : (E,)
    span : int                   elements in one chunk; it should stay in cache between the passes
    lanes : (T, 2, L)            scratch
    moments : (chunks, 2, C)     m and q of each chunk, written; `spiral_core.kernels.moments.merge_moments` joins them
    """
    width = lanes.shape[2]
    channels = moments.shape[2]
    acc, centre = lanes[slot, 0], lanes[slot, 1]
    for chunk in range(start, stop):
        begin, end = chunk * span, min((chunk + 1) * span, x.size)
        rows = (end - begin) // channels
        found = moments[chunk]
        if channels % LANES == 0:
            span_moments(x, begin, end, centre[:channels], found)
            continue
        for squares in range(2):
            acc[:] = 0
            for first in range(begin, end, width):
                v = x[first : min(first + width, end)]
                if squares:
                    for j in range(v.size):
                        d = v[j] - centre[j]
                        acc[j] += d * d
                else:
                    for j in range(v.size):
                        acc[j] += v[j]
            # Row 0 of the result is needed until the squares are in, so they are folded into row 1.
            fold_lanes(lanes[slot, :1], found[squares : squares + 1])
            if not squares:
                for c in range(channels):
                    found[0, c] /= rows
                for j in range(width):
                    centre[j] = found[0, j % channels]
        for c in range(channels):
            off = found[0, c] - centre[c]
            found[1, c] -= rows * off * off


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[:,::1], {f}, {f}, int64, {f}[:,:,::1], "
    "{f}[::1], {f}[::1], {f}[::1], float64[:,:,::1])"
)
def znorm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    affine: Float,
    s: float,
    g: float,
    span: int,
    lanes: Float,
    normed: Float,
    tangent: Float,
    out: Float,
    sums: F64,
) -> None:
    r"""Whiten, project into the ball, scale and shift; and sum up what telemetry says about it.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad
              p = (1-g) n + g t / s, \quad y = \gamma p + \beta

    Parameters
    ----------
    x : (E,)
    affine : (4, L)               mean, inv_std, gamma, beta, each repeated along the wide row
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    span : int                    elements in one chunk
    lanes : (T, 4, L)             scratch
    normed, tangent : (E,)        n and t, written; the backward pass and telemetry need them
    out : (E,)                    y, written
    sums : (chunks, 4, C)         written: sums of \|t\|, of \|n\|, of t^2, and the count of \|t\| > 0.99

    Notes
    -----
    The sums are always taken, so that watching a run cannot change its compiled code. Mean radius, mean \|p\| and mean
    Jacobian follow exactly: n and t have the same sign, so \|p\| = (1-g) \|n\| + g \|t\| / s, and J = 1 - g t^2.
    """
    one = x.dtype.type(1)
    zero = x.dtype.type(0)
    edge = x.dtype.type(SATURATED)
    width = affine.shape[1]
    mean, inv_std, gamma, beta = affine[0], affine[1], affine[2], affine[3]
    sum_t, sum_n, sum_tt, count = lanes[slot, 0], lanes[slot, 1], lanes[slot, 2], lanes[slot, 3]
    rest = one - g
    reach = g / s
    for chunk in range(start, stop):
        lanes[slot] = 0
        for first in range(chunk * span, min((chunk + 1) * span, x.size), width):
            last = min(first + width, x.size)
            v, normed_row, tangent_row, out_row = (
                x[first:last],
                normed[first:last],
                tangent[first:last],
                out[first:last],
            )
            for j in range(v.size):
                n = (v[j] - mean[j]) * inv_std[j]
                t = tanh(s * n)
                normed_row[j] = n
                tangent_row[j] = t
                out_row[j] = gamma[j] * (rest * n + reach * t) + beta[j]
            for j in range(v.size):
                n = normed_row[j]
                t = tangent_row[j]
                r = abs(t)
                sum_t[j] += r
                sum_n[j] += abs(n)
                sum_tt[j] += t * t
                count[j] += one if r > edge else zero
        fold_lanes(lanes[slot], sums[chunk])


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1], {f}, {f}, int64, {f}[:,:,::1], float64[:,:,::1])")
def znorm_backward_sums(
    start: int,
    stop: int,
    slot: int,
    normed: Float,
    tangent: Float,
    grad: Float,
    s: float,
    g: float,
    span: int,
    lanes: Float,
    sums: F64,
) -> None:
    r"""Sum over rows, per channel, what the gradients of gamma, beta and the statistics need.

    With :math:`J = \partial p / \partial n = (1-g) + g (1-t^2)`.

    Parameters
    ----------
    normed, tangent : (E,)     n and t, from `znorm`
    grad : (E,)                G, the gradient of y
    s, g                       as given to `znorm`
    span : int                 elements in one chunk
    lanes : (T, 4, L)          scratch
    sums : (chunks, 4, C)      written: sums of G, G p, G J, G J n
    """
    one = normed.dtype.type(1)
    width = lanes.shape[2]
    sum_g, sum_gp, sum_gj, sum_gjn = lanes[slot, 0], lanes[slot, 1], lanes[slot, 2], lanes[slot, 3]
    rest = one - g
    reach = g / s
    for chunk in range(start, stop):
        lanes[slot] = 0
        for first in range(chunk * span, min((chunk + 1) * span, grad.size), width):
            last = min(first + width, grad.size)
            normed_row, tangent_row, grad_row = normed[first:last], tangent[first:last], grad[first:last]
            for j in range(grad_row.size):
                n = normed_row[j]
                t = tangent_row[j]
                upstream = grad_row[j]
                d = upstream * (rest + g * (one - t * t))
                sum_g[j] += upstream
                sum_gp[j] += upstream * (rest * n + reach * t)
                sum_gj[j] += d
                sum_gjn[j] += d * n
        fold_lanes(lanes[slot], sums[chunk])


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1], {f}[:,::1], {f}, int64, {f}[::1])")
def znorm_backward_input(
    start: int,
    stop: int,
    slot: int,
    normed: Float,
    tangent: Float,
    grad: Float,
    affine: Float,
    g: float,
    span: int,
    grad_x: Float,
) -> None:
    r"""Write the gradient of the input.

    .. math:: \partial x = \sigma^{-1} \big( \gamma G J - \overline{d} - n \, \overline{d n} \big), \quad d = \gamma G J

    Parameters
    ----------
    normed, tangent, grad : (E,)   as in `znorm_backward_sums`
    affine : (3, L)                inv_std*mean(d), inv_std*mean(d n), inv_std*gamma, each repeated along the wide
                                   row; the first two are zero where the statistics are constants
    g                              projector gain
    span : int                     elements in one chunk
    grad_x : (E,)                  written
    """
    one = normed.dtype.type(1)
    width = affine.shape[1]
    shift, slope, scale = affine[0], affine[1], affine[2]
    rest = one - g
    for chunk in range(start, stop):
        for first in range(chunk * span, min((chunk + 1) * span, grad.size), width):
            last = min(first + width, grad.size)
            normed_row, tangent_row = normed[first:last], tangent[first:last]
            grad_row, target = grad[first:last], grad_x[first:last]
            for j in range(grad_row.size):
                t = tangent_row[j]
                slope_of_p = rest + g * (one - t * t)
                target[j] = scale[j] * (grad_row[j] * slope_of_p) - shift[j] - normed_row[j] * slope[j]
