"""Losses, forward and backward in one."""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import I64, Float
from spiral_core.errors import ArgumentError, DtypeError, ShapeError


def softmax_cross_entropy(logits: Float, labels: I64, grad: Float) -> tuple[float, int]:
    r"""Return the mean cross-entropy of a batch, and write its gradient.

    .. math:: L = -\frac{1}{N} \sum_i \log p_{i, y_i}, \quad p = \mathrm{softmax}(z), \quad
              \partial L / \partial z_{ic} = (p_{ic} - [c = y_i]) / N

    Parameters
    ----------
    logits : (N, K)    z
    labels : (N,)      y, in 0..K-1
    grad : (N, K)      written; the dtype of ``logits``

    Returns
    -------
    loss : float
        In nats. NaN where a logit is NaN: the curve must show it.
    correct : int
        How many rows have their largest logit at the label.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arrays that do not fit each other, labels that are no int64, or a label out of range. Nothing was written.

    Notes
    -----
    Computed in float64, with the largest logit taken off first, so that no exponential overflows.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or grad.shape != logits.shape:
        raise ShapeError(
            f"logits (N, K), labels (N,) and grad (N, K) must fit, got {logits.shape}, {labels.shape}, {grad.shape}"
        )
    if grad.dtype != logits.dtype:
        raise DtypeError(f"grad must have the dtype of logits, {logits.dtype}, got {grad.dtype}")
    if labels.dtype != np.int64:
        raise DtypeError(f"labels must be int64, got {labels.dtype}; convert with astype(np.int64)")
    rows, classes = logits.shape
    if rows == 0 or labels.min() < 0 or labels.max() >= classes:
        raise ArgumentError(f"labels must lie in 0..{classes - 1} and there must be at least one")
    row = np.arange(rows)
    with np.errstate(all="ignore"):
        z = logits.astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        exponentials = np.exp(z)
        total = exponentials.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(total[:, 0]) - z[row, labels]))
        p = exponentials / total
        p[row, labels] -= 1.0
        grad[...] = p / rows
    correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
    return loss, correct
