"""Linear, convolution, pooling and activations against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import pytorch
from oracles.pytorch import channels_first, channels_last, same, taps_first, transposed
from spiral_core import nn
from spiral_core.arrays import F64

SOME = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
TAPS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@SOME
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), SEEDS)
def test_linear_is_that_of_pytorch(rows: int, inputs: int, outputs: int, seed: int) -> None:
    layer = nn.Linear("l", inputs, outputs, dtype=np.float64)
    module = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
    pairs = [(layer.weight, module.weight, transposed), (layer.bias, module.bias, same)]
    pytorch.draw_parameters(pairs, seed)
    pytorch.assert_same_passes(layer, module, pytorch.normal((rows, inputs), seed), seed + 1, pairs)


@SOME
@given(TAPS, PAIRS, st.tuples(st.integers(0, 3), st.integers(0, 3)), PAIRS, st.data(), SEEDS)
def test_convolution_is_that_of_pytorch(
    taps: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    data: st.DataObject,
    seed: int,
) -> None:
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(taps, padding, dilation, strict=True)]
    size = [data.draw(st.integers(n, n + 5)) for n in least]
    rows, channels, filters = (data.draw(st.integers(1, most)) for most in (5, 4, 5))
    layer = nn.Conv2d("c", channels, filters, taps, stride=stride, padding=padding, dilation=dilation, dtype=np.float64)
    module = torch.nn.Conv2d(channels, filters, taps, stride, padding, dilation, dtype=torch.float64)
    pairs = [(layer.weight, module.weight, taps_first), (layer.bias, module.bias, same)]
    pytorch.draw_parameters(pairs, seed)
    x = pytorch.normal((rows, *size, channels), seed)
    pytorch.assert_same_passes(layer, module, x, seed + 1, pairs, channels_first, channels_last)


@SOME
@given(TAPS, PAIRS, st.data(), st.sampled_from(["max", "average"]), st.booleans(), SEEDS)
def test_pooling_is_that_of_pytorch(
    taps: tuple[int, int], stride: tuple[int, int], data: st.DataObject, kind: str, ties: bool, seed: int
) -> None:
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in taps)
    size = [data.draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(taps, padding, strict=True)]
    x = pytorch.normal((data.draw(st.integers(1, 4)), *size, data.draw(st.integers(1, 6))), seed)
    layer: nn.Module
    module: torch.nn.Module
    if kind == "max":
        layer = nn.MaxPool2d("p", taps, stride=stride, padding=padding, dtype=np.float64)
        module = torch.nn.MaxPool2d(taps, stride, padding)
        # Whole numbers hit many ties, of which the first has to win.
        x = np.round(x) if ties else x
    else:
        layer = nn.AvgPool2d("p", taps, stride=stride, padding=padding, dtype=np.float64)
        module = torch.nn.AvgPool2d(taps, stride, padding)
    pytorch.assert_same_passes(layer, module, x, seed + 1, (), channels_first, channels_last)


@SOME
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), SEEDS)
def test_the_average_over_space_is_that_of_pytorch(n: int, h: int, w: int, c: int, seed: int) -> None:
    layer = nn.GlobalAveragePool2d("g", np.float64)
    pytorch.assert_same_passes(
        layer, lambda x: x.mean(dim=(2, 3)), pytorch.normal((n, h, w, c), seed), seed + 1, (), channels_first
    )


ACTIVATIONS: dict[str, tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": (nn.ReLU("a", np.float64), torch.nn.ReLU()),
    "tanh": (nn.Tanh("a", np.float64), torch.nn.Tanh()),
    "gelu": (nn.GELU("a", np.float64), torch.nn.GELU()),
    "gelu tanh": (nn.GELU("a", np.float64, approximate="tanh"), torch.nn.GELU(approximate="tanh")),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@SOME
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from([1e-6, 1.0, 30.0]), SEEDS)
def test_an_activation_is_that_of_pytorch(kind: str, shape: list[int], scale: float, seed: int) -> None:
    layer, module = ACTIVATIONS[kind]
    x: F64 = scale * pytorch.normal(shape, seed)
    # The kink of the rectifier.
    x.reshape(-1)[0] = 0.0
    pytorch.assert_same_passes(layer, module, x, seed + 1)
