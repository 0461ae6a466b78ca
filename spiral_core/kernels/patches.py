"""Patches of channels-last images, gathered for a matrix product and scattered back.

Letters and ``geometry`` are those of `spiral_core.kernels.convolution`. Column k of a patch row is ``(a*B + b)*C + c``,
the memory order of a weight (A, B, C, D), so that runs of B*C numbers are contiguous in the image. With a single
channel such a run is three numbers long; there each tap is gathered as a row of P numbers instead (`gather_taps`).
"""

from __future__ import annotations

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel

GEOMETRY = "UniTuple(int64, 14)"


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


@kernel("void({f}[::1], {f}[::1], {f}[:,::1], int64, " + GEOMETRY + ")")
def gather_taps(image: Float, padded: Float, taps: Float, first: int, geometry: tuple[int, ...]) -> None:
    """Write each output pixel's patch of one image of a single channel as one column.

    Parameters
    ----------
    image : (H*W,)                          one image, flat
    padded : ((H+2*pad_h)*(W+2*pad_w),)     scratch; its border must be zero and stays zero
    taps : (K, M*P)                         columns ``first`` to ``first + P`` are written
    first : int
    geometry                                see the module; C is 1
    """
    _, w, _, a_taps, b_taps, stride_h, stride_w, _, pad_w, dilation_h, dilation_w, out_h, out_w, _ = geometry
    wide = w + 2 * pad_w
    pad_image(image, padded, geometry)
    for a in range(a_taps):
        for b in range(b_taps):
            row = taps[a * b_taps + b]
            for i in range(out_h):
                source = padded[(i * stride_h + a * dilation_h) * wide + b * dilation_w :]
                target = row[first + i * out_w : first + (i + 1) * out_w]
                if stride_w == 1:
                    for j in range(out_w):
                        target[j] = source[j]
                else:
                    for j in range(out_w):
                        target[j] = source[j * stride_w]


@kernel("void({f}[::1], {f}[::1], {f}[:,::1], " + GEOMETRY + ")")
def gather_patches(image: Float, padded: Float, patches: Float, geometry: tuple[int, ...]) -> None:
    """Write each output pixel's patch of one image as one row.

    Parameters
    ----------
    image : (H*W*C,)                          one image, flat
    padded : ((H+2*pad_h)*(W+2*pad_w)*C,)     scratch; its border must be zero and stays zero
    patches : (P, K)                          written
    geometry                                  see the module

    Notes
    -----
    The zero border removes every bounds check, and the B taps of one kernel row are one contiguous run when
    dilation_w is 1.
    """
    _, w, c, a_taps, b_taps, stride_h, stride_w, _, pad_w, dilation_h, dilation_w, out_h, out_w, _ = geometry
    wide = (w + 2 * pad_w) * c
    pad_image(image, padded, geometry)
    runs = 1 if dilation_w == 1 else b_taps
    length = b_taps * c if dilation_w == 1 else c
    for i in range(out_h):
        for j in range(out_w):
            row = patches[i * out_w + j]
            k = 0
            for a in range(a_taps):
                for b in range(runs):
                    at = (i * stride_h + a * dilation_h) * wide + (j * stride_w + b * dilation_w) * c
                    source = padded[at : at + length]
                    part = row[k : k + length]
                    for m in range(length):
                        part[m] = source[m]
                    k += length


@kernel("void({f}[:,::1], {f}[::1], {f}[::1], " + GEOMETRY + ")")
def scatter_patches(patches: Float, padded: Float, image: Float, geometry: tuple[int, ...]) -> None:
    """Add each patch row back to the pixels it came from: the transpose of `gather_patches`.

    Parameters
    ----------
    patches : (P, K)                          gradients of the patches
    padded : ((H+2*pad_h)*(W+2*pad_w)*C,)     scratch, overwritten
    image : (H*W*C,)                          written
    geometry                                  see the module
    """
    h, w, c, a_taps, b_taps, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, out_h, out_w, _ = geometry
    wide = (w + 2 * pad_w) * c
    padded[:] = 0
    runs = 1 if dilation_w == 1 else b_taps
    length = b_taps * c if dilation_w == 1 else c
    for i in range(out_h):
        for j in range(out_w):
            row = patches[i * out_w + j]
            k = 0
            for a in range(a_taps):
                for b in range(runs):
                    at = (i * stride_h + a * dilation_h) * wide + (j * stride_w + b * dilation_w) * c
                    target = padded[at : at + length]
                    part = row[k : k + length]
                    for m in range(length):
                        target[m] += part[m]
                    k += length
    for i in range(h):
        source = padded[(i + pad_h) * wide + pad_w * c : (i + pad_h) * wide + (pad_w + w) * c]
        line = image[i * w * c : (i + 1) * w * c]
        for j in range(w * c):
            line[j] = source[j]
