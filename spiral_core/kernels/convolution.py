"""Cross-correlation of channels-last images.

Letters: N images, H x W pixels, C input channels, D output channels, A x B kernel taps, K = A*B*C,
P = OH*OW output pixels, M images in a chunk, T threads. ``geometry`` is
``(H, W, C, A, B, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW, M)``.

Images are copied into a scratch with a border of zeros, which removes every check of bounds; from there they are read
in place by `spiral_core.kernels.tile.product`. The taps of one kernel row are one contiguous run of B*C numbers where
dilation_w is 1; elsewhere each tap is a run of C numbers. Gray images under 3 x 3 taps have loops of their own, see
`spiral_core.kernels.plane`, and 3 x 3 taps of many channels go by way of `spiral_core.kernels.winograd`.
"""

from __future__ import annotations

from spiral_core.arrays import F64, U8, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.moments import span_moments
from spiral_core.kernels.plane import GEOMETRY, correlate_plane, correlate_plane_backward, is_plane
from spiral_core.kernels.rectified import rectified_norm_backward_input, rectified_norm_pool_backward_input
from spiral_core.kernels.tile import product
from spiral_core.kernels.winograd import correlate_tiles
from spiral_core.kernels.znorm import fold_lanes


@kernel("void({f}[::1], {f}[::1], " + GEOMETRY + ")")
def pad_image(image: Float, padded: Float, geometry: tuple[int, ...]) -> None:
    """Copy one image into the middle of its scratch.

    Parameters
    ----------
    image : (H*W*C,)                          one image, flat
    padded : ((H+2*pad_h)*(W+2*pad_w)*C,)     written, but for its border
    geometry                                  see the module
    """
    h, w, c = geometry[0], geometry[1], geometry[2]
    pad_h, pad_w = geometry[7], geometry[8]
    wide = (w + 2 * pad_w) * c
    for i in range(h):
        target = padded[(i + pad_h) * wide + pad_w * c : (i + pad_h) * wide + (pad_w + w) * c]
        line = image[i * w * c : (i + 1) * w * c]
        for j in range(w * c):
            target[j] = line[j]


@kernel("void({f}[::1], {f}[::1], " + GEOMETRY + ", int64, int64)")
def spread_image(grad: Float, spread: Float, geometry: tuple[int, ...], top: int, left: int) -> None:
    """Copy an output's gradient to where a correlation that undoes the strides finds it.

    Parameters
    ----------
    grad : (OH*OW*D,)           one gradient, flat
    spread : (rows*columns*D)   written at row ``top + i*stride_h`` and column ``left + j*stride_w`` of each (i, j);
                                rows = H + dilation_h*(A-1), columns = W + dilation_w*(B-1)
    geometry                    see the module
    top, left : int             where (0, 0) goes; what falls outside touched only padding
    """
    h, w, _, a_taps, b_taps, stride_h, stride_w, _, _, dilation_h, dilation_w, out_h, out_w, _ = geometry
    rows, columns = h + dilation_h * (a_taps - 1), w + dilation_w * (b_taps - 1)
    d = grad.size // (out_h * out_w)
    first, last = 0, out_w
    while first < out_w and left + first * stride_w < 0:
        first += 1
    while last > first and left + (last - 1) * stride_w >= columns:
        last -= 1
    # Neighbors stay neighbors at stride 1: then a whole row is one copy.
    pixels = last - first if stride_w == 1 else 1
    for i in range(out_h):
        to = top + i * stride_h
        if 0 <= to < rows:
            for j in range(first, last, max(1, pixels)):
                column = left + j * stride_w
                target = spread[(to * columns + column) * d : (to * columns + column + pixels) * d]
                source = grad[(i * out_w + j) * d : (i * out_w + j + pixels) * d]
                for k in range(target.size):
                    target[k] = source[k]


@kernel("void({f}[::1], {f}[::1], {f}[::1], " + GEOMETRY + ", {f}[::1])")
def correlate(image: Float, weight: Float, bias: Float, geometry: tuple[int, ...], out: Float) -> None:
    r"""Cross-correlate one padded image.

    .. math:: y_{pd} = b_d + \sum_k X_{pk} W_{kd}

    Parameters
    ----------
    image : (padded size,)    with its border
    weight : (K*D,)           a weight (A, B, C, D), flat
    bias : (D,)
    geometry                  see the module
    out : (P*D,)              written
    """
    _, w, c, a_taps, b_taps, stride_h, stride_w, _, pad_w, dilation_h, dilation_w, out_h, out_w, _ = geometry
    wide = (w + 2 * pad_w) * c
    d = bias.size
    if is_plane(geometry, d):
        correlate_plane(image, weight, bias, geometry, out)
        return
    # Called from one place alone: each call of a product is compiled in place.
    turns = 1 if dilation_w == 1 else a_taps
    outer, outer_step = (a_taps, dilation_h * wide) if dilation_w == 1 else (b_taps, dilation_w * c)
    inner = b_taps * c if dilation_w == 1 else c
    for i in range(out_h):
        to = i * out_w * d
        for a in range(turns):
            walk = (
                (i * stride_h + a * dilation_h) * wide, stride_w * c, outer, outer_step, inner, 1,
                a * b_taps * c * d, d, 0 if a == 0 else to, 0 if a == 0 else d, to, d,
            )  # fmt: skip
            product(image, weight, bias if a == 0 else out, out, walk, out_w, d)


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], " + GEOMETRY + ", {f}[:,::1], {f}[:,::1], "
    "{f}[:,::1], {f}[:,::1], float64[:,:,::1])"
)
def convolve(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    weight: Float,
    bias: Float,
    geometry: tuple[int, ...],
    padded: Float,
    tiles: Float,
    out: Float,
    centre: Float,
    moments: F64,
) -> None:
    """Cross-correlate images ``start`` to ``stop``; take the moments of each output while it is in cache.

    Parameters
    ----------
    x : (N, H*W*C)            images
    weight, bias, geometry    as in `correlate`
    padded : (T, padded size) scratch; its border must be zero and stays zero
    tiles : (T, S)            scratch of `correlate_tiles`, which then takes ``weight``; (T, 0): `correlate` does
    out : (N, P*D)            written
    centre : (T, D)           scratch
    moments : (N, 2, D)       of each image, as of the chunks of `spiral_core.kernels.znorm.channel_moments`, written; D
                              is then a multiple of 16. (0, 2, D): not wanted
    """
    for n in range(start, stop):
        pad_image(x[n], padded[slot], geometry)
        if tiles.shape[1] > 0:
            correlate_tiles(padded[slot], weight, bias, geometry, tiles[slot], out[n])
        else:
            correlate(padded[slot], weight, bias, geometry, out[n])
        if moments.shape[0] > 0:
            span_moments(out[n], 0, out.shape[1], centre[slot], moments[n])


@kernel("void({f}[::1], {f}[::1], " + GEOMETRY + ", {f}[::1], {f}[::1], float64[::1])")
def correlate_backward(
    image: Float, grad: Float, geometry: tuple[int, ...], grad_weight: Float, lanes: Float, grad_bias: F64
) -> None:
    r"""Differentiate `correlate` by weight and bias, and add.

    .. math:: \partial W_{kd} = \sum_p X_{pk} G_{pd}, \quad \partial b_d = \sum_p G_{pd}

    Parameters
    ----------
    image : (padded size,)    with its border
    grad : (P*D,)             gradient of the output
    geometry                  see the module
    grad_weight : (K*D,)      added to
    lanes : (L,)              added to, or ``grad_bias`` is: sums over pixels; L is a multiple of D
    grad_bias : (D,)
    """
    _, w, c, a_taps, b_taps, stride_h, stride_w, _, pad_w, dilation_h, dilation_w, out_h, out_w, _ = geometry
    wide = (w + 2 * pad_w) * c
    d = grad_bias.size
    if is_plane(geometry, d):
        correlate_plane_backward(image, grad, geometry, grad_weight, grad_bias)
        return
    runs = 1 if dilation_w == 1 else b_taps
    length = b_taps * c if dilation_w == 1 else c
    for a in range(a_taps):
        for b in range(runs):
            at = a * dilation_h * wide + b * dilation_w * c
            k = (a * runs + b) * length * d
            walk = (at, 1, out_h, stride_h * wide, out_w, stride_w * c, 0, d, k, d, k, d)
            product(image, grad, grad_weight, grad_weight, walk, length, d)
    for first in range(0, grad.size, lanes.size):
        row = grad[first : first + lanes.size]
        for j in range(row.size):
            lanes[j] += row[j]


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[::1], {f}[::1], {f}[:,::1], " + GEOMETRY + ", "
    "{f}[:,::1], uint8[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[:,:,::1], {f}[:,::1], "
    "{f}[:,::1], float64[:,:,::1], {f}[:,::1])"
)
def convolve_backward(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    weight: Float,
    zeros: Float,
    grad: Float,
    geometry: tuple[int, ...],
    y: Float,
    taps: U8,
    affine: Float,
    behind: Float,
    padded: Float,
    tiles: Float,
    lanes: Float,
    spread: Float,
    grad_weight: Float,
    grad_bias: F64,
    grad_x: Float,
) -> None:
    r"""Differentiate `convolve` on chunks ``start`` to ``stop`` of M images each, image by image.

    .. math:: \partial x_{ijc} = \sum_{abd} S_{i + a d_h, \; j + b d_w, \; d} \, W_{A-1-a, \; B-1-b, \; c, \; d}

    Parameters
    ----------
    x : (N, H*W*C)                    the images given to `convolve`
    weight : (A*B*D*C,)               the weight, turned by half a turn, as (A, B, D, C), flat
    zeros : (C,)
    grad : (N, P*D)                   gradient of the output; with ``affine`` what
                                      `spiral_core.kernels.rectified.rectified_norm_backward_sums` has written
    geometry                          see the module
    y, taps, affine                   of the norm behind, as `rectified_norm_pool_backward_input` takes them, an image a
                                      row; no taps: without a maximum; no affine: there is no norm
    behind : (T, P*D)                 scratch for the gradient of the norm's input, which is then in cache
    padded : (T, padded size)         scratch; its border must be zero and stays zero
    tiles : (T, S)                    as for `convolve`, and for ``weight`` here
    lanes : (T, 1, L)                 scratch; L is a multiple of D
    spread : (T, size of S)           scratch for S; zero at first, and zero stays where no gradient goes
    grad_weight : (chunks, K*D)       one partial sum per chunk, written; (0, ...): not wanted
    grad_bias : (chunks, 1, D)        one partial sum per chunk, written
    grad_x : (N, H*W*C)               written; (0, ...): not wanted
    """
    h, w, _, a_taps, b_taps, _, _, pad_h, pad_w, dilation_h, dilation_w, out_h, out_w, images = geometry
    # Of the correlation with the gradient: it reads S and writes H x W pixels.
    rows, columns = h + dilation_h * (a_taps - 1), w + dilation_w * (b_taps - 1)
    backward = (rows, columns, grad_bias.shape[2], a_taps, b_taps, 1, 1, 0, 0, dilation_h, dilation_w, h, w, images)
    size = (out_h, out_w)
    top, left = dilation_h * (a_taps - 1) - pad_h, dilation_w * (b_taps - 1) - pad_w
    wanted = grad_weight.shape[0] > 0
    for chunk in range(start, stop):
        if wanted:
            grad_weight[chunk] = 0
            grad_bias[chunk] = 0
            lanes[slot] = 0
        for n in range(chunk * images, min((chunk + 1) * images, x.shape[0])):
            g = grad[n]
            if affine.shape[0] > 0:
                g = behind[slot]
                if taps.shape[0] > 0:
                    rectified_norm_pool_backward_input(0, 1, slot, y[n], grad[n], taps[n], size, affine, g)
                else:
                    rectified_norm_backward_input(0, 1, slot, y[n], grad[n], affine, g.size, g)
            if wanted:
                pad_image(x[n], padded[slot], geometry)
                correlate_backward(padded[slot], g, geometry, grad_weight[chunk], lanes[slot, 0], grad_bias[chunk, 0])
            if grad_x.shape[0] > 0:
                spread_image(g, spread[slot], geometry, top, left)
                if tiles.shape[1] > 0:
                    correlate_tiles(spread[slot], weight, zeros, backward, tiles[slot], grad_x[n])
                else:
                    correlate(spread[slot], weight, zeros, backward, grad_x[n])
        if wanted and not is_plane(geometry, grad_bias.shape[2]):
            fold_lanes(lanes[slot], grad_bias[chunk])
