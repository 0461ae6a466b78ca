"""Batch and layer norms against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import pytorch
from oracles.pytorch import Pair, channels_first, channels_last, same
from spiral_core import nn

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)
# With two rows the whitened values are +1 and -1, and the gradient of the input cancels to nearly nothing.
ROWS = st.integers(3, 12)
EPSILONS = st.sampled_from([1e-5, 1e-2])
KINDS = ("rows", "images", "z rows", "z images")


def batch_norms(kind: str, features: int, momentum: float, epsilon: float) -> tuple[Any, Any]:
    """Build a batch norm of either program; those of Z-space at gain 0, where the projector is the identity."""
    images = kind.endswith("images")
    theirs = (torch.nn.BatchNorm2d if images else torch.nn.BatchNorm1d)(
        features, epsilon, momentum, dtype=torch.float64
    )
    if kind.startswith("z"):
        curved = nn.ZSpaceBatchNorm2d if images else nn.ZSpaceBatchNorm1d
        return curved("b", features, -2.5, momentum, epsilon, projector_gain=0.0, dtype=np.float64), theirs
    plain = nn.BatchNorm2d if images else nn.BatchNorm1d
    return plain("b", features, momentum, epsilon, dtype=np.float64), theirs


def pairs_of(layer: Any, module: Any) -> list[Pair]:
    return [(layer.gamma, module.weight, same), (layer.beta, module.bias, same)]


def shape_of(kind: str, rows: int, features: int) -> tuple[int, ...]:
    return (rows, 2, 3, features) if kind.endswith("images") else (rows, features)


def compare(kind: str, layer: Any, module: Any, rows: int, seed: int) -> None:
    # Far from zero mean and unit variance, so that both statistics matter.
    x = 3 * pytorch.normal(shape_of(kind, rows, layer.features), seed) + np.arange(layer.features)
    layer.zero_grad()
    module.zero_grad()
    turns = (channels_first, channels_last) if kind.endswith("images") else (same, same)
    pytorch.assert_same_passes(layer, module, x, seed + 1, pairs_of(layer, module), *turns)


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(ROWS, st.integers(1, 6), st.floats(0, 1), EPSILONS, SEEDS)
def test_batch_norm_is_that_of_pytorch_in_training_and_evaluation(
    kind: str, rows: int, features: int, momentum: float, epsilon: float, seed: int
) -> None:
    layer, module = batch_norms(kind, features, momentum, epsilon)
    pytorch.draw_parameters(pairs_of(layer, module), seed)
    for step in range(3):
        compare(kind, layer, module, rows, seed + 10 * step)
    pytorch.assert_equal(layer.running_mean, module.running_mean, "running mean")
    # PyTorch follows the unbiased variance of the batch, we the biased one that the pass itself divides by.
    count = rows * (6 if kind.endswith("images") else 1)
    first = (1 - momentum) ** 3
    unbiased = first + (layer.running_var - first) * count / (count - 1)
    pytorch.assert_equal(unbiased, module.running_var, "running variance")
    layer.running_var[:] = pytorch.array(module.running_var)
    layer.eval()
    module.eval()
    before = {name: buffer.copy() for name, buffer in layer.buffers().items()}
    # A single row too, which has no variance of its own.
    for count in (rows, 1):
        compare(kind, layer, module, count, seed + 50)
    for name, buffer in layer.buffers().items():
        np.testing.assert_array_equal(buffer, before[name])


@pytest.mark.parametrize("kind", ["plain", "z"])
@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=2), st.integers(3, 9), st.floats(-6, -0.01), EPSILONS, SEEDS)
def test_layer_norm_is_that_of_pytorch_with_the_epsilon_that_its_curvature_makes(
    kind: str, rows: list[int], features: int, curvature: float, epsilon: float, seed: int
) -> None:
    layer: nn.LayerNorm | nn.ZSpaceLayerNorm
    if kind == "plain":
        layer = nn.LayerNorm("l", features, curvature, epsilon, dtype=np.float64)
    else:
        layer = nn.ZSpaceLayerNorm("l", features, curvature, epsilon, projector_gain=0.0, dtype=np.float64)
    wide = epsilon * (1 + 0.1 * np.sqrt(-curvature))
    module = torch.nn.LayerNorm(features, wide, dtype=torch.float64)
    pytorch.draw_parameters(pairs_of(layer, module), seed)
    x = 3 * pytorch.normal((*rows, features), seed) + 2
    pytorch.assert_same_passes(layer, module, x, seed + 1, pairs_of(layer, module))


def test_with_a_gain_the_norms_are_not_those_of_pytorch() -> None:
    layer, module = batch_norms("z rows", 4, 0.1, 1e-5)
    layer.set_projector_gain(1e-6)
    pytorch.draw_parameters(pairs_of(layer, module), 0)
    with pytest.raises(AssertionError, match="output"):
        compare("z rows", layer, module, 5, 0)
