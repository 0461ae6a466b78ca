"""The long short-term memory against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import pytorch
from oracles.pytorch import Pair, same, transposed
from spiral_core import nn

SEEDS = st.integers(0, 10_000)


def both(inputs: int, hidden: int, seed: int) -> tuple[nn.Lstm, torch.nn.LSTM, list[Pair]]:
    layer = nn.Lstm("l", inputs, hidden, dtype=np.float64)
    module = torch.nn.LSTM(inputs, hidden, dtype=torch.float64)
    pairs = [
        (layer.weight_ih, module.weight_ih_l0, transposed),
        (layer.weight_hh, module.weight_hh_l0, transposed),
        (layer.bias_ih, module.bias_ih_l0, same),
        (layer.bias_hh, module.bias_hh_l0, same),
    ]
    pytorch.draw_parameters(pairs, seed)
    return layer, module, pairs


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(0, 20), st.integers(1, 6), st.integers(1, 8), SEEDS)
def test_the_memory_layer_is_that_of_pytorch_for_one_sequence_and_for_batches(
    steps: int, rows: int, inputs: int, hidden: int, seed: int
) -> None:
    layer, module, pairs = both(inputs, hidden, seed)
    # No rows: a single sequence without an axis for them.
    x = pytorch.normal((steps, *((rows,) if rows else ()), inputs), seed + 9)
    pytorch.assert_same_passes(layer, lambda fed: module(fed)[0], x, seed + 10, pairs)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 18), st.integers(1, 5), SEEDS)
def test_a_state_that_is_given_its_gradient_and_the_last_state_are_those_of_pytorch(
    steps: int, rows: int, hidden: int, seed: int
) -> None:
    layer, module, pairs = both(3, hidden, seed)
    x, upstream = pytorch.normal((steps, rows, 3), seed + 9), pytorch.normal((steps, rows, hidden), seed + 10)
    h, c = (torch.from_numpy(pytorch.normal((1, rows, hidden), seed + n)).requires_grad_() for n in (11, 12))
    expected, last = module(torch.from_numpy(x), (h, c))
    expected.backward(torch.from_numpy(upstream))
    layer.set_state(pytorch.array(h)[0], pytorch.array(c)[0])
    pytorch.assert_equal(layer.forward(x), expected, "output")
    state = layer.state()
    assert state is not None
    for name, ours, theirs in zip("hc", state, last, strict=True):
        pytorch.assert_equal(ours, theirs[0], f"last {name}")
    layer.backward(x, upstream)
    for name, grad, start in zip("hc", layer.initial_state_grad(), (h, c), strict=True):
        assert start.grad is not None
        pytorch.assert_equal(grad, start.grad[0], f"gradient of the first {name}")
    for parameter, counterpart, turn in pairs:
        assert counterpart.grad is not None
        pytorch.assert_equal(parameter.grad, turn(counterpart.grad), f"gradient of {parameter.name}")


def test_a_second_call_goes_on_where_pytorch_is_told_to() -> None:
    layer, module, _ = both(3, 4, 1)
    x = pytorch.normal((6, 2, 3), 2)
    middle, state = module(torch.from_numpy(x[:2]))
    end, _ = module(torch.from_numpy(x[2:]), state)
    pytorch.assert_equal(layer.forward(x[:2]), middle, "first call")
    pytorch.assert_equal(layer.forward(x[2:]), end, "second call")
