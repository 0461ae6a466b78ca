"""Losses, forward and backward in one."""

from __future__ import annotations

from typing import Final

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import I64, Float
from spiral_core.errors import ArgumentError, DtypeError, ShapeError

LOSS_KERNELS: Final = ("cross_entropy",)
"""What the losses need compiled besides the layers' kernels."""


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
    classes = logits.shape[1]
    target = grad if grad.flags.c_contiguous else np.empty_like(grad, order="C")
    loss, correct = kernels.cross_entropy(np.ascontiguousarray(logits), np.ascontiguousarray(labels), target)
    if correct < 0 or labels.size == 0:
        raise ArgumentError(f"labels must lie in 0..{classes - 1} and there must be at least one")
    if target is not grad:
        grad[...] = target
    return loss, correct


def mse_loss(pred: Float, target: Float, grad: Float) -> float:
    r"""Return the mean squared error, and write its gradient.

    .. math:: L = \frac{1}{E} \sum_e (p_e - t_e)^2, \quad \partial L / \partial p_e = 2 (p_e - t_e) / E

    Parameters
    ----------
    pred, target : (...)   p and t, of one shape and dtype with E >= 1 elements
    grad : (...)           written; the shape and dtype of ``pred``

    Returns
    -------
    float
        NaN where an element is NaN: the curve must show it.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        Arrays that do not fit each other, or are empty. Nothing was written.

    Notes
    -----
    Computed in float64.
    """
    if target.shape != pred.shape or grad.shape != pred.shape:
        raise ShapeError(f"pred, target and grad must have one shape, got {pred.shape}, {target.shape}, {grad.shape}")
    if target.dtype != pred.dtype or grad.dtype != pred.dtype:
        raise DtypeError(f"pred, target and grad must have one dtype, got {pred.dtype}, {target.dtype}, {grad.dtype}")
    if pred.size == 0:
        raise ArgumentError(f"pred must have at least one element, got shape {pred.shape}")
    with np.errstate(all="ignore"):
        difference = np.subtract(pred, target, dtype=np.float64)
        loss = float(np.mean(difference**2))
        grad[...] = difference * (2.0 / pred.size)
    return loss
