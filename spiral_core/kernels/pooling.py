"""Maximum and average over windows of channels-last images.

Letters: N images, H x W pixels, C channels, OH x OW windows of A x B taps. ``geometry`` is
``(A, B, stride_h, stride_w, pad_h, pad_w)``. One chunk is one image.
"""

from __future__ import annotations

from spiral_core.arrays import U8, Float
from spiral_core.kernels.accelerate import kernel


@kernel("void(int64, int64, int64, {f}[:,:,:,::1], UniTuple(int64, 6), {f}[:,:,:,::1], uint8[:,:,:,::1])")
def max_pool(start: int, stop: int, slot: int, x: Float, geometry: tuple[int, ...], out: Float, taps: U8) -> None:
    """Take the maximum of each window; padding never wins, a NaN always does.

    Parameters
    ----------
    x : (N, H, W, C)
    geometry              see the module; pad <= taps / 2, so that no window is all padding
    out : (N, OH, OW, C)  written
    taps : (N, OH, OW, C) written: the winner as ``a*B + b``; the first of equals wins
    """
    a_taps, b_taps, stride_h, stride_w, pad_h, pad_w = geometry
    h, w = x.shape[1], x.shape[2]
    for n in range(start, stop):
        for i in range(out.shape[1]):
            top = i * stride_h - pad_h
            a_first = max(0, -top)
            for j in range(out.shape[2]):
                left = j * stride_w - pad_w
                b_first = max(0, -left)
                best = out[n, i, j]
                winner = taps[n, i, j]
                source = x[n, top + a_first, left + b_first]
                for c in range(best.size):
                    best[c] = source[c]
                    winner[c] = a_first * b_taps + b_first
                for a in range(a_first, min(a_taps, h - top)):
                    # The first tap is there already.
                    for b in range(b_first + (a == a_first), min(b_taps, w - left)):
                        source = x[n, top + a, left + b]
                        tap = a * b_taps + b
                        for c in range(best.size):
                            v = source[c]
                            # v != v is true for NaN alone.
                            wins = (v > best[c]) | (v != v)
                            best[c] = v if wins else best[c]
                            winner[c] = tap if wins else winner[c]


@kernel("void(int64, int64, int64, {f}[:,:,:,::1], uint8[:,:,:,::1], UniTuple(int64, 6), {f}[:,:,:,::1])")
def max_pool_backward(
    start: int, stop: int, slot: int, grad: Float, taps: U8, geometry: tuple[int, ...], grad_x: Float
) -> None:
    """Give each window's gradient to the pixel that won it.

    Parameters
    ----------
    grad : (N, OH, OW, C)  gradient of the output
    taps : (N, OH, OW, C)  winners, from `max_pool`
    geometry               see the module
    grad_x : (N, H, W, C)  written; windows that overlap add up
    """
    a_taps, b_taps, stride_h, stride_w, pad_h, pad_w = geometry
    h, w = grad_x.shape[1], grad_x.shape[2]
    for n in range(start, stop):
        grad_x[n] = 0
        for i in range(grad.shape[1]):
            top = i * stride_h - pad_h
            for j in range(grad.shape[2]):
                left = j * stride_w - pad_w
                g = grad[n, i, j]
                winner = taps[n, i, j]
                for a in range(max(0, -top), min(a_taps, h - top)):
                    for b in range(max(0, -left), min(b_taps, w - left)):
                        target = grad_x[n, top + a, left + b]
                        tap = a * b_taps + b
                        for c in range(g.size):
                            if winner[c] == tap:
                                target[c] += g[c]


@kernel("void(int64, int64, int64, {f}[:,:,:,::1], UniTuple(int64, 6), {f}[:,:,:,::1])")
def average_pool(start: int, stop: int, slot: int, x: Float, geometry: tuple[int, ...], out: Float) -> None:
    """Average each window over all its A*B taps; padding counts as zeros.

    Parameters
    ----------
    x : (N, H, W, C)
    geometry              see the module
    out : (N, OH, OW, C)  written; taps are added in scan order
    """
    a_taps, b_taps, stride_h, stride_w, pad_h, pad_w = geometry
    h, w = x.shape[1], x.shape[2]
    share = x.dtype.type(1.0 / (a_taps * b_taps))
    for n in range(start, stop):
        for i in range(out.shape[1]):
            top = i * stride_h - pad_h
            for j in range(out.shape[2]):
                left = j * stride_w - pad_w
                total = out[n, i, j]
                total[:] = 0
                for a in range(max(0, -top), min(a_taps, h - top)):
                    for b in range(max(0, -left), min(b_taps, w - left)):
                        source = x[n, top + a, left + b]
                        for c in range(total.size):
                            total[c] += source[c]
                for c in range(total.size):
                    total[c] *= share


@kernel("void(int64, int64, int64, {f}[:,:,:,::1], UniTuple(int64, 6), {f}[:,:,:,::1])")
def average_pool_backward(
    start: int, stop: int, slot: int, grad: Float, geometry: tuple[int, ...], grad_x: Float
) -> None:
    """Spread each window's gradient evenly over its pixels; the share of the padding is lost.

    Parameters
    ----------
    grad : (N, OH, OW, C)  gradient of the output
    geometry               see the module
    grad_x : (N, H, W, C)  written; windows that overlap add up
    """
    a_taps, b_taps, stride_h, stride_w, pad_h, pad_w = geometry
    h, w = grad_x.shape[1], grad_x.shape[2]
    share = grad.dtype.type(1.0 / (a_taps * b_taps))
    for n in range(start, stop):
        grad_x[n] = 0
        for i in range(grad.shape[1]):
            top = i * stride_h - pad_h
            for j in range(grad.shape[2]):
                left = j * stride_w - pad_w
                g = grad[n, i, j]
                for a in range(max(0, -top), min(a_taps, h - top)):
                    for b in range(max(0, -left), min(b_taps, w - left)):
                        target = grad_x[n, top + a, left + b]
                        for c in range(g.size):
                            target[c] += share * g[c]
