"""Slow twins of kernels, layers and optimizers: plain NumPy in float64, one window or element at a time.

Written from the formulas; they share no code with the engine. Images are (N, H, W, C), weights (A, B, C, D).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spiral_core.arrays import F64, I64, U8

Pair = tuple[int, int]


def _windows(
    height: int, width: int, taps: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[int, int, list[tuple[int, int, int, int]]]]:
    """Give for each output pixel the taps (a, b) that fall on a pixel (row, column) of the image, in scan order."""
    out_h = (height + 2 * padding[0] - dilation[0] * (taps[0] - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (taps[1] - 1) - 1) // stride[1] + 1
    for i in range(out_h):
        for j in range(out_w):
            inside = []
            for a in range(taps[0]):
                for b in range(taps[1]):
                    row = i * stride[0] + a * dilation[0] - padding[0]
                    column = j * stride[1] + b * dilation[1] - padding[1]
                    if 0 <= row < height and 0 <= column < width:
                        inside.append((a, b, row, column))
            yield i, j, inside


def output_size(size: Pair, taps: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """Count the windows of each axis by trying every position."""
    counts = []
    for n, k, s, p, d in zip(size, taps, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        counts.append(sum(1 for start in range(-p, n + p, s) if start + reach <= n + p))
    return counts[0], counts[1]


def convolve(x: F64, weight: F64, bias: F64, stride: Pair, padding: Pair, dilation: Pair) -> F64:
    """Cross-correlate."""
    taps = (weight.shape[0], weight.shape[1])
    out_h, out_w = output_size(x.shape[1:3], taps, stride, padding, dilation)
    out = np.zeros((x.shape[0], out_h, out_w, weight.shape[3])) + bias
    for i, j, inside in _windows(*x.shape[1:3], taps, stride, padding, dilation):
        for a, b, row, column in inside:
            out[:, i, j] += x[:, row, column] @ weight[a, b]
    return out


def convolve_backward(
    x: F64, weight: F64, grad: F64, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[F64, F64, F64]:
    """Return the gradients of input, weight and bias."""
    grad_x, grad_weight = np.zeros_like(x), np.zeros_like(weight)
    for i, j, inside in _windows(*x.shape[1:3], (weight.shape[0], weight.shape[1]), stride, padding, dilation):
        for a, b, row, column in inside:
            grad_x[:, row, column] += grad[:, i, j] @ weight[a, b].T
            grad_weight[a, b] += x[:, row, column].T @ grad[:, i, j]
    return grad_x, grad_weight, grad.sum(axis=(0, 1, 2))


def patches(image: F64, taps: Pair, stride: Pair, padding: Pair, dilation: Pair) -> F64:
    """Write each window of one image (H, W, C) as one row, zeros where it leaves the image."""
    rows = []
    for _, _, inside in _windows(*image.shape[:2], taps, stride, padding, dilation):
        window = np.zeros((*taps, image.shape[2]))
        for a, b, row, column in inside:
            window[a, b] = image[row, column]
        rows.append(window.reshape(-1))
    return np.array(rows)


def max_pool(x: F64, taps: Pair, stride: Pair, padding: Pair) -> tuple[F64, U8]:
    """Return maxima and winners (a*B + b): the first of equals; a NaN beats every number."""
    out_h, out_w = output_size(x.shape[1:3], taps, stride, padding)
    out = np.empty((x.shape[0], out_h, out_w, x.shape[3]))
    winners = np.empty(out.shape, np.uint8)
    for i, j, inside in _windows(*x.shape[1:3], taps, stride, padding, (1, 1)):
        for n, c in np.ndindex(x.shape[0], x.shape[3]):
            values = [x[n, row, column, c] for _, _, row, column in inside]
            best = int(np.argmax(values))
            out[n, i, j, c] = values[best]
            winners[n, i, j, c] = inside[best][0] * taps[1] + inside[best][1]
    return out, winners


def max_pool_backward(shape: tuple[int, ...], grad: F64, winners: U8, taps: Pair, stride: Pair, padding: Pair) -> F64:
    """Give each gradient to the pixel that won."""
    grad_x = np.zeros(shape)
    for n, i, j, c in np.ndindex(grad.shape):
        a, b = divmod(int(winners[n, i, j, c]), taps[1])
        grad_x[n, i * stride[0] + a - padding[0], j * stride[1] + b - padding[1], c] += grad[n, i, j, c]
    return grad_x


class Normed(NamedTuple):
    """What a Z-space batch norm computes over rows (R, F), in the order of the formulas."""

    mean: F64
    variance: F64
    normed: F64
    tangent: F64
    projected: F64
    jacobian: F64
    y: F64


def znorm(
    x: F64,
    gamma: F64,
    beta: F64,
    curvature: float,
    gain: float,
    epsilon: float,
    statistics: tuple[F64, F64] | None = None,
) -> Normed:
    """Whiten over rows (or with the statistics given), project, scale and shift."""
    mean, variance = (x.mean(axis=0), x.var(axis=0)) if statistics is None else statistics
    s = np.sqrt(-curvature)
    n = (x - mean) / np.sqrt(variance + epsilon)
    t = np.tanh(s * n)
    p = (1 - gain) * n + gain * t / s
    return Normed(mean, variance, n, t, p, (1 - gain) + gain * (1 - t**2), gamma * p + beta)


def znorm_backward(one: Normed, grad: F64, gamma: F64, epsilon: float, training: bool) -> tuple[F64, F64, F64]:
    """Return the gradients of input, gamma and beta."""
    d = grad * gamma * one.jacobian
    through = d.mean(axis=0) + one.normed * (d * one.normed).mean(axis=0) if training else 0.0
    return (d - through) / np.sqrt(one.variance + epsilon), (grad * one.projected).sum(axis=0), grad.sum(axis=0)


def cross_entropy(logits: F64, labels: I64) -> float:
    """Mean negative log of the softmax at the label."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += np.logaddexp.reduce(row) - row[label]
    return float(total / len(labels))


def layer_norm(x: F64, gamma: F64, beta: F64, curvature: float, gain: float, epsilon: float) -> list[Normed]:
    """Whiten each row on its own, project, scale and shift."""
    s = (-curvature) ** 0.5
    rows = []
    for row in x:
        mean, variance = row.mean(), ((row - row.mean()) ** 2).mean()
        n = (row - mean) / (variance + epsilon * (1 + 0.1 * s)) ** 0.5
        t = np.tanh(s * n)
        p = (1 - gain) * n + gain * t / s
        rows.append(Normed(mean, variance, n, t, p, (1 - gain) + gain * (1 - t * t), gamma * p + beta))
    return rows


def layer_norm_backward(
    rows: list[Normed], grad: F64, gamma: F64, curvature: float, epsilon: float
) -> tuple[F64, F64, F64]:
    """Return the gradients of input, gamma and beta, through the whole Jacobian matrix of each row's whitening."""
    grad_x, grad_gamma, grad_beta = np.zeros_like(grad), np.zeros(len(gamma)), np.zeros(len(gamma))
    wide = epsilon * (1 + 0.1 * (-curvature) ** 0.5)
    for r, (one, upstream) in enumerate(zip(rows, grad, strict=True)):
        grad_gamma += upstream * one.projected
        grad_beta += upstream
        features = len(gamma)
        centering = np.eye(features) - 1 / features
        whitening = (centering - np.outer(one.normed, one.normed) / features) / np.sqrt(one.variance + wide)
        grad_x[r] = whitening @ (upstream * gamma * one.jacobian)
    return grad_x, grad_gamma, grad_beta


def sgd(value: F64, grads: list[F64], lr: float, momentum: float, weight_decay: float) -> F64:
    """Return the value after one step for each gradient."""
    w, v = value.copy(), np.zeros_like(value)
    for g in grads:
        v = momentum * v + (g + weight_decay * w)
        w = w - lr * v
    return w


def adam(value: F64, grads: list[F64], lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> F64:
    """Return the value after one step for each gradient."""
    w, m, v = value.copy(), np.zeros_like(value), np.zeros_like(value)
    for t, grad in enumerate(grads, start=1):
        g = grad + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return w


def average_pool(x: F64, taps: Pair, stride: Pair, padding: Pair) -> F64:
    """Average windows over all their taps, padding included."""
    size = output_size((x.shape[1], x.shape[2]), taps, stride, padding)
    out = np.zeros((x.shape[0], *size, x.shape[3]))
    for i, j, inside in _windows(x.shape[1], x.shape[2], taps, stride, padding, (1, 1)):
        for _, _, row, column in inside:
            out[:, i, j] += x[:, row, column]
    return out / (taps[0] * taps[1])


def average_pool_backward(shape: tuple[int, ...], grad: F64, taps: Pair, stride: Pair, padding: Pair) -> F64:
    """Spread gradients over the windows."""
    grad_x = np.zeros(shape)
    for i, j, inside in _windows(shape[1], shape[2], taps, stride, padding, (1, 1)):
        for _, _, row, column in inside:
            grad_x[:, row, column] += grad[:, i, j]
    return grad_x / (taps[0] * taps[1])
