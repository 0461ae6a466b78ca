"""Cross-correlation of images of one channel with 3 x 3 taps: what the first layer of a network on gray images does.

Nine products a pixel are too few for the blocks of `spiral_core.kernels.tile`, which would spend more time on loading
and storing their sums than on adding to them. Here the nine weights, or the nine sums of their gradient, stay in
registers for a whole image, sixteen filters at a time. Sums run in the order of the blocks, so that either way gives
the same bits. Letters and ``geometry`` are those of `spiral_core.kernels.convolution`, with A = B = 3, C = 1 and D a
multiple of 16.
"""

from __future__ import annotations

from spiral_core.arrays import F64, Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.vector import LANES, add_wide, load, load_spread, spread, store

GEOMETRY = "UniTuple(int64, 14)"


@kernel("boolean(" + GEOMETRY + ", int64)")
def is_plane(geometry: tuple[int, ...], filters: int) -> bool:
    """Tell whether these loops do a correlation of this geometry with so many filters."""
    return geometry[2] == 1 and geometry[3] == 3 and geometry[4] == 3 and filters % LANES == 0


@kernel("void({f}[::1], {f}[::1], {f}[::1], " + GEOMETRY + ", {f}[::1])")
def correlate_plane(image: Float, weight: Float, bias: Float, geometry: tuple[int, ...], out: Float) -> None:
    """Cross-correlate one padded image.

    Parameters
    ----------
    image : (padded size,)    with its border
    weight : (9*D,)           a weight (3, 3, 1, D), flat
    bias : (D,)
    geometry                  see the module
    out : (P*D,)              written
    """
    _, w, _, _, _, stride_h, stride_w, _, pad_w, dilation_h, right, out_h, out_w, _ = geometry
    wide = w + 2 * pad_w
    down, d = dilation_h * wide, bias.size
    for c in range(0, d, LANES):
        first = load(bias, c)
        w0, w1, w2 = load(weight, c), load(weight, d + c), load(weight, 2 * d + c)
        w3, w4, w5 = load(weight, 3 * d + c), load(weight, 4 * d + c), load(weight, 5 * d + c)
        w6, w7, w8 = load(weight, 6 * d + c), load(weight, 7 * d + c), load(weight, 8 * d + c)
        for i in range(out_h):
            for j in range(out_w):
                top = i * stride_h * wide + j * stride_w
                middle, bottom = top + down, top + 2 * down
                total = first + load_spread(image, top) * w0
                total = total + load_spread(image, top + right) * w1
                total = total + load_spread(image, top + 2 * right) * w2
                total = total + load_spread(image, middle) * w3
                total = total + load_spread(image, middle + right) * w4
                total = total + load_spread(image, middle + 2 * right) * w5
                total = total + load_spread(image, bottom) * w6
                total = total + load_spread(image, bottom + right) * w7
                total = total + load_spread(image, bottom + 2 * right) * w8
                store(out, (i * out_w + j) * d + c, total)


@kernel("void({f}[::1], {f}[::1], " + GEOMETRY + ", {f}[::1], float64[::1])")
def correlate_plane_backward(
    image: Float, grad: Float, geometry: tuple[int, ...], grad_weight: Float, grad_bias: F64
) -> None:
    r"""Differentiate `correlate_plane` by weight and bias, and add.

    Parameters
    ----------
    image : (padded size,)    with its border
    grad : (P*D,)             gradient of the output
    geometry                  see the module
    grad_weight : (9*D,)      added to
    grad_bias : (D,)          added to, once for each row of pixels
    """
    _, w, _, _, _, stride_h, stride_w, _, pad_w, dilation_h, right, out_h, out_w, _ = geometry
    wide = w + 2 * pad_w
    down, d = dilation_h * wide, grad_bias.size
    zero = spread(image.dtype.type(0))
    for c in range(0, d, LANES):
        s0, s1, s2 = load(grad_weight, c), load(grad_weight, d + c), load(grad_weight, 2 * d + c)
        s3, s4, s5 = load(grad_weight, 3 * d + c), load(grad_weight, 4 * d + c), load(grad_weight, 5 * d + c)
        s6, s7, s8 = load(grad_weight, 6 * d + c), load(grad_weight, 7 * d + c), load(grad_weight, 8 * d + c)
        for i in range(out_h):
            total = zero
            for j in range(out_w):
                top = i * stride_h * wide + j * stride_w
                middle, bottom = top + down, top + 2 * down
                g = load(grad, (i * out_w + j) * d + c)
                total = total + g
                s0 = s0 + load_spread(image, top) * g
                s1 = s1 + load_spread(image, top + right) * g
                s2 = s2 + load_spread(image, top + 2 * right) * g
                s3 = s3 + load_spread(image, middle) * g
                s4 = s4 + load_spread(image, middle + right) * g
                s5 = s5 + load_spread(image, middle + 2 * right) * g
                s6 = s6 + load_spread(image, bottom) * g
                s7 = s7 + load_spread(image, bottom + right) * g
                s8 = s8 + load_spread(image, bottom + 2 * right) * g
            add_wide(grad_bias, c, total)
        store(grad_weight, c, s0)
        store(grad_weight, d + c, s1)
        store(grad_weight, 2 * d + c, s2)
        store(grad_weight, 3 * d + c, s3)
        store(grad_weight, 4 * d + c, s4)
        store(grad_weight, 5 * d + c, s5)
        store(grad_weight, 6 * d + c, s6)
        store(grad_weight, 7 * d + c, s7)
        store(grad_weight, 8 * d + c, s8)
