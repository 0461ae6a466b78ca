"""Comparison with PyTorch in float64: the same parameters, the same input, the same upstream gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from spiral_core import nn
from spiral_core.arrays import F64, AnyArray

TOLERANCE = 1e-10
"""Largest difference that is allowed, as a share of the largest element of PyTorch's array."""

# PyTorch's threads would spin beside those of the engine, and arrays here are small.
torch.set_num_threads(1)

Turn = Callable[[torch.Tensor], torch.Tensor]
Pair = tuple[nn.Parameter, torch.Tensor, Turn]
"""A parameter of ours, its counterpart, and how to turn the counterpart's axes into ours."""


def same(tensor: torch.Tensor) -> torch.Tensor:
    """Keep the axes."""
    return tensor


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    """Turn (O, I) into (I, O)."""
    return tensor.T


def taps_first(tensor: torch.Tensor) -> torch.Tensor:
    """Turn (O, C, A, B) into (A, B, C, O)."""
    return tensor.permute(2, 3, 1, 0)


def channels_first(tensor: torch.Tensor) -> torch.Tensor:
    """Turn (N, H, W, C) into (N, C, H, W)."""
    return tensor.permute(0, 3, 1, 2)


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Turn (N, C, H, W) into (N, H, W, C)."""
    return tensor.permute(0, 2, 3, 1)


def normal(shape: Sequence[int], seed: int) -> F64:
    """Draw standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(tuple(shape))


def array(tensor: torch.Tensor) -> AnyArray:
    """Return what a tensor holds."""
    held: AnyArray = tensor.detach().numpy()
    return held


def arrays_of(module: torch.nn.Module) -> dict[str, AnyArray]:
    """Return a state dict as the arrays that `spiral_core.nn.convert.from_torch_state_dict` takes."""
    return {name: array(tensor) for name, tensor in module.state_dict().items()}


def assert_equal(ours: Any, theirs: torch.Tensor | AnyArray | float, what: str) -> None:
    """Fail where shapes differ, or elements by more than `TOLERANCE` of PyTorch's largest one."""
    expected = array(theirs) if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    given = np.asarray(ours)
    assert given.dtype == expected.dtype == np.float64, what
    assert given.shape == expected.shape, what
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(given, expected, rtol=0, atol=TOLERANCE * (largest or 1.0), err_msg=what)


def draw_parameters(pairs: Sequence[Pair], seed: int) -> None:
    """Give both layers the same parameters, none of them special."""
    for number, (ours, theirs, turn) in enumerate(pairs):
        with torch.no_grad():
            theirs.copy_(torch.from_numpy(normal(theirs.shape, seed + number)))
        ours.value[...] = array(turn(theirs))


def assert_same_passes(
    layer: nn.Module,
    module: Callable[[torch.Tensor], torch.Tensor],
    x: F64,
    seed: int,
    pairs: Sequence[Pair] = (),
    to_theirs: Turn = same,
    to_ours: Turn = same,
) -> None:
    """Compare the output, the gradient of the input and that of each parameter.

    Parameters
    ----------
    layer, module            ours and theirs
    x                        input, in our layout
    seed                     of the upstream gradient
    pairs                    all parameters; their gradients are zero, or none yet
    to_theirs, to_ours       turn inputs into PyTorch's layout, and outputs into ours
    """
    assert [id(p) for p in layer.parameters()] == [id(ours) for ours, _, _ in pairs], "a parameter is not compared"
    fed = torch.from_numpy(x).requires_grad_()
    theirs = to_ours(module(to_theirs(fed)))
    workspace = nn.Workspace()
    ours = layer.forward(x, workspace)
    assert_equal(ours, theirs, "output")
    upstream = normal(theirs.shape, seed)
    theirs.backward(torch.from_numpy(upstream))
    assert fed.grad is not None
    assert_equal(layer.backward(x, upstream, workspace), fed.grad, "gradient of the input")
    for parameter, counterpart, turn in pairs:
        assert counterpart.grad is not None
        assert_equal(parameter.grad, turn(counterpart.grad), f"gradient of {parameter.name}")
