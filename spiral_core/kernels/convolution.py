"""Cross-correlation of channels-last images, as one matrix product per chunk of images.

Letters: N images, H x W pixels, C input channels, D output channels, A x B kernel taps, K = A*B*C,
P = OH*OW output pixels, M images in a chunk, T threads. ``geometry`` is
``(H, W, C, A, B, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW, M)``.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel
from spiral_core.kernels.patches import GEOMETRY, gather_patches, gather_taps, scatter_patches


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[::1], " + GEOMETRY + ", "
    "{f}[:,::1], {f}[:,:,::1], {f}[:,::1])"
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
    patches: Float,
    out: Float,
) -> None:
    r"""Cross-correlate chunks ``start`` to ``stop`` of M images each.

    .. math:: y_{pd} = b_d + \sum_k X_{pk} W_{kd}

    Parameters
    ----------
    x : (N, H*W*C)            images
    weight : (K, D)           a weight (A, B, C, D) seen as a matrix
    bias : (D,)
    geometry                  see the module
    padded : (T, padded size) scratch, zero at first
    patches : (T, M*P, K)     scratch
    out : (N*P, D)            written
    """
    p = geometry[11] * geometry[12]
    m = geometry[13]
    for chunk in range(start, stop):
        first = chunk * m
        last = min(first + m, x.shape[0])
        y = out[first * p : last * p]
        columns = patches[slot][: (last - first) * p]
        if geometry[2] == 1:
            taps = columns.reshape((columns.shape[1], columns.shape[0]))
            for n in range(first, last):
                gather_taps(x[n], padded[slot], taps, (n - first) * p, geometry)
            np.dot(taps.T, weight, y)
        else:
            for n in range(first, last):
                gather_patches(x[n], padded[slot], columns[(n - first) * p : (n - first + 1) * p], geometry)
            np.dot(columns, weight, y)
        for i in range(y.shape[0]):
            row = y[i]
            for d in range(row.size):
                row[d] += bias[d]


@kernel(
    "void(int64, int64, int64, {f}[:,::1], {f}[:,::1], {f}[:,::1], " + GEOMETRY + ", boolean, boolean, "
    "{f}[:,::1], {f}[:,:,::1], {f}[:,:,::1], float64[:,::1], {f}[:,::1])"
)
def convolve_backward(
    start: int,
    stop: int,
    slot: int,
    x: Float,
    weight_t: Float,
    grad: Float,
    geometry: tuple[int, ...],
    want_weight: bool,
    want_input: bool,
    padded: Float,
    patches: Float,
    grad_weight: Float,
    grad_bias: Float,
    grad_x: Float,
) -> None:
    r"""Differentiate `convolve` on chunks ``start`` to ``stop`` of M images each.

    .. math:: \partial W_{kd} = \sum_p X_{pk} G_{pd}, \quad \partial b_d = \sum_p G_{pd}, \quad
              \partial X_{pk} = \sum_d G_{pd} W_{kd}

    Parameters
    ----------
    x : (N, H*W*C)                    the images given to `convolve`
    weight_t : (D, K)                 the weight matrix, transposed
    grad : (N*P, D)                   gradient of the output
    geometry                          see the module
    want_weight, want_input : bool    which gradients to write
    padded : (2*T, padded size)       scratch; rows below T must have a zero border and keep it
    patches : (T, M*P, K)             scratch
    grad_weight : (chunks, K, D)      one partial sum per chunk
    grad_bias : (chunks, D)           one partial sum per chunk
    grad_x : (N, H*W*C)               written
    """
    p = geometry[11] * geometry[12]
    m = geometry[13]
    threads = patches.shape[0]
    for chunk in range(start, stop):
        first = chunk * m
        last = min(first + m, x.shape[0])
        g = grad[first * p : last * p]
        columns = patches[slot][: (last - first) * p]
        if want_weight:
            if geometry[2] == 1:
                taps = columns.reshape((columns.shape[1], columns.shape[0]))
                for n in range(first, last):
                    gather_taps(x[n], padded[slot], taps, (n - first) * p, geometry)
                np.dot(taps, g, grad_weight[chunk])
            else:
                for n in range(first, last):
                    gather_patches(x[n], padded[slot], columns[(n - first) * p : (n - first + 1) * p], geometry)
                np.dot(columns.T, g, grad_weight[chunk])
            sums = grad_bias[chunk]
            sums[:] = 0
            for i in range(g.shape[0]):
                row = g[i]
                for d in range(row.size):
                    sums[d] += row[d]
        if want_input:
            np.dot(g, weight_t, columns)
            for n in range(first, last):
                part = patches[slot][(n - first) * p : (n - first + 1) * p]
                scatter_patches(part, padded[threads + slot], grad_x[n], geometry)
