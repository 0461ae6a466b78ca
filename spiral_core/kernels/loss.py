"""Losses with their gradients."""

from __future__ import annotations

import math

import numpy as np

from spiral_core.arrays import I64, Float
from spiral_core.kernels.accelerate import kernel


@kernel("Tuple((float64, int64))({f}[:,::1], int64[::1], {f}[:,::1])")
def cross_entropy(logits: Float, labels: I64, grad: Float) -> tuple[float, int]:
    r"""Return the mean cross-entropy and how many rows are right; write the gradient.

    .. math:: L = -\frac{1}{N} \sum_i \log p_{i, y_i}, \quad p = \mathrm{softmax}(z), \quad
              \partial L / \partial z_{ic} = (p_{ic} - [c = y_i]) / N

    Parameters
    ----------
    logits : (N, K)    z
    labels : (N,)      y
    grad : (N, K)      written

    Returns
    -------
    loss : float       NaN where a logit is
    correct : int      rows whose largest logit, a NaN before all others, is at the label; -1 where a label is not in
                       0..K-1: then nothing was written

    Notes
    -----
    Computed in float64, with the largest logit taken off first, so that no exponential overflows.
    """
    rows, classes = logits.shape
    for i in range(rows):
        if labels[i] < 0 or labels[i] >= classes:
            return math.nan, -1
    loss, correct = 0.0, 0
    for i in range(rows):
        z, label = logits[i], labels[i]
        best, top = 0, np.float64(z[0])
        for c in range(1, classes):
            v = np.float64(z[c])
            if v > top or (math.isnan(v) and not math.isnan(top)):
                best, top = c, v
        total = 0.0
        for c in range(classes):
            total += math.exp(np.float64(z[c]) - top)
        loss += math.log(total) - (np.float64(z[label]) - top)
        for c in range(classes):
            p = math.exp(np.float64(z[c]) - top) / total
            grad[i, c] = ((p - 1.0) if c == label else p) / rows
        correct += best == label
    return loss / rows, correct
