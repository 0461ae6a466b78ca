r"""A norm, the ReLU behind it and the 2 x 2 maximum behind that, in one pass over memory.

Letters: E = R*C elements of R rows and C channels, C a multiple of 16; y = gamma p + beta is the norm's output and
z = max(y, 0). Only what the backward pass needs is written: z and t = tanh(s n), and with a maximum the input x and t
of each winner. n is computed again from x, which costs two operations and saves a walk through memory.

Sixteen channels are done at a time, with their constants and sums in registers; sums go to float64 after `BLOCK` rows.
"""

from __future__ import annotations

from spiral_core.arrays import F64, U8, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.vector import (
    LANES,
    absolute,
    add_wide,
    choose,
    greater,
    load,
    load_bytes,
    outranks,
    same,
    spread,
    store,
    store_bytes,
    tanh_of_size,
    with_sign,
)
from spiral_core.kernels.znorm import SATURATED

BLOCK = 128
"""Rows between two additions to float64: the rounding of a float32 sum grows with its length."""


@kernel("void(int64, int64, int64, {f}[::1], {f}[:,::1], {f}, {f}, int64, {f}[::1], {f}[::1], float64[:,:,::1])")
def rectified_norm(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    affine: Float,
    s: float,
    g: float,
    span: int,
    tangent: Float,
    out: Float,
    sums: F64,
) -> None:
    r"""Whiten, project into the ball, scale, shift and rectify.

    .. math:: n = (x - \mu) \sigma^{-1}, \quad t = \tanh(s n), \quad z = \max(\gamma ((1-g) n + g t / s) + \beta, 0)

    Parameters
    ----------
    x : (E,)
    affine : (4, C)               mean, inv_std, gamma, beta
    s, g                          sqrt(-curvature) and projector gain, in the dtype of ``x``
    span : int                    elements in one chunk, a multiple of C
    tangent, out : (E,)           t and z, written
    sums : (chunks, 4, C)         written, as `spiral_core.kernels.znorm.znorm` does
    """
    number = x.dtype.type
    channels = affine.shape[1]
    flat = sums.reshape(-1)
    zero, one, edge = spread(number(0)), spread(number(1)), spread(number(SATURATED))
    curve, rest, reach = spread(s), spread(number(1) - g), spread(g / s)
    for chunk in range(start, stop):
        sums[chunk] = 0
        end = min((chunk + 1) * span, x.size)
        for c in range(0, channels, LANES):
            mean, inv_std, gamma, beta = load(affine[0], c), load(affine[1], c), load(affine[2], c), load(affine[3], c)
            to = chunk * 4 * channels + c
            for first in range(chunk * span, end, BLOCK * channels):
                sum_t, sum_n, sum_tt, count = zero, zero, zero, zero
                for at in range(first + c, min(first + BLOCK * channels, end), channels):
                    n = (load(x, at) - mean) * inv_std
                    size = absolute(n)
                    r = tanh_of_size(curve * size)
                    t = with_sign(r, n)
                    y = gamma * (rest * n + reach * t) + beta
                    store(tangent, at, t)
                    # The comparison is false for a NaN, which stays.
                    store(out, at, choose(greater(zero, y), zero, y))
                    sum_t = sum_t + r
                    sum_n = sum_n + size
                    sum_tt = sum_tt + r * r
                    count = choose(greater(r, edge), count + one, count)
                add_wide(flat, to, sum_t)
                add_wide(flat, to + channels, sum_n)
                add_wide(flat, to + 2 * channels, sum_tt)
                add_wide(flat, to + 3 * channels, count)


@kernel(
    "void(int64, int64, int64, {f}[::1], UniTuple(int64, 2), {f}[:,::1], {f}, {f}, "
    "{f}[::1], {f}[::1], {f}[::1], uint8[::1], float64[:,:,::1])"
)
def rectified_norm_pool(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    size: tuple[int, int],
    affine: Float,
    s: float,
    g: float,
    out: Float,
    winner_x: Float,
    winner_tangent: Float,
    taps: U8,
    sums: F64,
) -> None:
    r"""As `rectified_norm`, and take the maximum of each 2 x 2 window of images ``start`` to ``stop``.

    The projector never falls as n grows, for g is in [0, 1]. So the winner is the largest n where gamma is above zero
    and the least where it is below, and y is computed of the winner alone. That is the largest z up to a rounding, and
    of z that roundings make equal not always the first.

    Parameters
    ----------
    x : (N*H*W*C,)                           images
    size : (H, W)                            both even
    affine : (4, C)                          mean, inv_std, gamma, beta
    s, g                                     sqrt(-curvature) and projector gain, in the dtype of ``x``
    out : (N*H/2*W/2*C,)                     maximum of z, written; a NaN in x always wins
    winner_x, winner_tangent : as ``out``    x and t of the winner, written
    taps : as ``out``                        the winner as 2 a + b, written; the first of equal n wins
    sums : (N, 4, C)                         written, as `spiral_core.kernels.znorm.znorm` does
    """
    number = x.dtype.type
    channels = affine.shape[1]
    wide, rows, columns = size[1] * channels, size[0] // 2, size[1] // 2
    flat = sums.reshape(-1)
    zero, one, edge = spread(number(0)), spread(number(1)), spread(number(SATURATED))
    curve, rest, reach = spread(s), spread(number(1) - g), spread(g / s)
    for image in range(start, stop):
        sums[image] = 0
        for c in range(0, channels, LANES):
            mean, inv_std, gamma, beta = load(affine[0], c), load(affine[1], c), load(affine[2], c), load(affine[3], c)
            # Of gamma zero all finite n are equals; of NaN all y are NaN anyway.
            slope = choose(greater(gamma, zero), one, choose(greater(zero, gamma), zero - one, gamma))
            to = image * 4 * channels + c
            for i in range(rows):
                sum_t, sum_n, sum_tt, count = zero, zero, zero, zero
                for j in range(columns):
                    best, best_x, best_r, tap = zero, zero, zero, zero
                    for k in range(4):
                        at = (image * size[0] + 2 * i + k // 2) * wide + (2 * j + k % 2) * channels + c
                        v = load(x, at)
                        n = (v - mean) * inv_std
                        length = absolute(n)
                        r = tanh_of_size(curve * length)
                        rank = slope * n
                        if k == 0:
                            best, best_x, best_r = rank, v, r
                        else:
                            wins = outranks(rank, best)
                            best, best_x = choose(wins, rank, best), choose(wins, v, best_x)
                            best_r, tap = choose(wins, r, best_r), choose(wins, spread(number(k)), tap)
                        sum_t, sum_n = sum_t + r, sum_n + length
                        sum_tt = sum_tt + r * r
                        count = choose(greater(r, edge), count + one, count)
                    n = (best_x - mean) * inv_std
                    t = with_sign(best_r, n)
                    y = gamma * (rest * n + reach * t) + beta
                    window = ((image * rows + i) * columns + j) * channels + c
                    store(out, window, choose(greater(zero, y), zero, y))
                    store(winner_x, window, best_x)
                    store(winner_tangent, window, t)
                    store_bytes(taps, window, tap)
                add_wide(flat, to, sum_t)
                add_wide(flat, to + channels, sum_n)
                add_wide(flat, to + 2 * channels, sum_tt)
                add_wide(flat, to + 3 * channels, count)


@kernel(
    "void(int64, int64, int64, {f}[::1], {f}[::1], {f}[::1], {f}[::1], {f}[:,::1], {f}, {f}, int64, "
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
    through: Float,
    sums: F64,
) -> None:
    r"""Pass the gradient through ReLU and projector; sum what gamma, beta and the statistics need.

    With :math:`J = \partial p / \partial n = (1-g) + g (1-t^2)` and G the gradient where z is not at zero.

    Parameters
    ----------
    x, tangent, out : (E,)    x, t and z, of all elements or of the winners alone
    grad : (E,)               gradient of z
    affine : (2, C)           mean and inv_std
    s, g                      as given to the forward pass
    span : int                elements in one chunk, a multiple of C
    through : (E,)            G J, written
    sums : (chunks, 4, C)     written: sums of G, G p, G J, G J n
    """
    number = x.dtype.type
    channels = affine.shape[1]
    flat = sums.reshape(-1)
    zero, one = spread(number(0)), spread(number(1))
    gain, rest, reach = spread(g), spread(number(1) - g), spread(g / s)
    for chunk in range(start, stop):
        sums[chunk] = 0
        end = min((chunk + 1) * span, x.size)
        for c in range(0, channels, LANES):
            mean, inv_std = load(affine[0], c), load(affine[1], c)
            to = chunk * 4 * channels + c
            for first in range(chunk * span, end, BLOCK * channels):
                sum_g, sum_gp, sum_gj, sum_gjn = zero, zero, zero, zero
                for at in range(first + c, min(first + BLOCK * channels, end), channels):
                    n, t = (load(x, at) - mean) * inv_std, load(tangent, at)
                    upstream = choose(same(load(out, at), zero), zero, load(grad, at))
                    d = upstream * (rest + gain * (one - t * t))
                    store(through, at, d)
                    sum_g = sum_g + upstream
                    sum_gp = sum_gp + upstream * (rest * n + reach * t)
                    sum_gj = sum_gj + d
                    sum_gjn = sum_gjn + d * n
                add_wide(flat, to, sum_g)
                add_wide(flat, to + channels, sum_gp)
                add_wide(flat, to + 2 * channels, sum_gj)
                add_wide(flat, to + 3 * channels, sum_gjn)


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
    affine : (5, C)     mean, inv_std, inv_std*mean(d), inv_std*mean(d n), inv_std*gamma; the third and fourth are zero
                        where the statistics are constants
    span : int          elements in one chunk, a multiple of C
    grad_x : (E,)       written
    """
    channels = affine.shape[1]
    for chunk in range(start, stop):
        end = min((chunk + 1) * span, x.size)
        for c in range(0, channels, LANES):
            mean, inv_std = load(affine[0], c), load(affine[1], c)
            shift, slope, scale = load(affine[2], c), load(affine[3], c), load(affine[4], c)
            for at in range(chunk * span + c, end, channels):
                n = (load(x, at) - mean) * inv_std
                store(grad_x, at, scale * load(through, at) - shift - n * slope)


@kernel("void(int64, int64, int64, {f}[::1], {f}[::1], uint8[::1], UniTuple(int64, 2), {f}[:,::1], {f}[::1])")
def rectified_norm_pool_backward_input(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    through: Float,
    taps: U8,
    size: tuple[int, int],
    affine: Float,
    grad_x: Float,
) -> None:
    """As `rectified_norm_backward_input`, with the gradient at the winners, for images ``start`` to ``stop``.

    Parameters
    ----------
    x : (N*H*W*C,)
    through, taps : (N*H/2*W/2*C,)  G J at the winners, and which they are
    size : (H, W)                   both even
    affine : (5, C)                 as there
    grad_x : (N*H*W*C,)             written
    """
    number = x.dtype.type
    channels = affine.shape[1]
    wide, rows, columns = size[1] * channels, size[0] // 2, size[1] // 2
    zero = spread(number(0))
    for image in range(start, stop):
        for c in range(0, channels, LANES):
            mean, inv_std = load(affine[0], c), load(affine[1], c)
            shift, slope, scale = load(affine[2], c), load(affine[3], c), load(affine[4], c)
            for i in range(rows):
                for j in range(columns):
                    window = ((image * rows + i) * columns + j) * channels + c
                    d = scale * load(through, window)
                    tap = load_bytes(taps, window, d)
                    for k in range(4):
                        at = (image * size[0] + 2 * i + k // 2) * wide + (2 * j + k % 2) * channels + c
                        n = (load(x, at) - mean) * inv_std
                        won = choose(same(tap, spread(number(k))), d, zero)
                        store(grad_x, at, won - shift - n * slope)
