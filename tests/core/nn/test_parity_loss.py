"""Losses against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import pytorch
from spiral_core import nn

SOME = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)
SCALES = st.sampled_from([1e-3, 1.0, 1e3])


@SOME
@given(st.integers(1, 12), st.integers(1, 9), SCALES, SEEDS)
def test_the_cross_entropy_and_its_gradient_are_those_of_pytorch(
    rows: int, classes: int, scale: float, seed: int
) -> None:
    logits = scale * pytorch.normal((rows, classes), seed)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    grad = np.empty_like(logits)
    loss, correct = nn.softmax_cross_entropy(logits, labels, grad)
    fed = torch.from_numpy(logits).requires_grad_()
    theirs = torch.nn.functional.cross_entropy(fed, torch.from_numpy(labels))
    theirs.backward()
    assert fed.grad is not None
    pytorch.assert_equal(loss, theirs, "loss")
    pytorch.assert_equal(grad, fed.grad, "gradient")
    assert correct == int((fed.argmax(dim=1) == torch.from_numpy(labels)).sum())


@SOME
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), SCALES, SEEDS)
def test_the_squared_error_and_its_gradient_are_those_of_pytorch(shape: list[int], scale: float, seed: int) -> None:
    pred, target = scale * pytorch.normal(shape, seed), pytorch.normal(shape, seed + 1)
    grad = np.empty_like(pred)
    loss = nn.mse_loss(pred, target, grad)
    fed = torch.from_numpy(pred).requires_grad_()
    theirs = torch.nn.functional.mse_loss(fed, torch.from_numpy(target))
    theirs.backward()
    assert fed.grad is not None
    pytorch.assert_equal(loss, theirs, "loss")
    pytorch.assert_equal(grad, fed.grad, "gradient")
