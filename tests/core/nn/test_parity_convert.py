"""State dicts of PyTorch's own modules, loaded here: the same outputs in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from oracles import pytorch
from oracles.pytorch import channels_first, channels_last
from spiral_core import nn, optim
from spiral_core.nn.convert import from_torch_state_dict, to_nhwc

KIND: dict[str, Any] = {"dtype": np.float64}
STEPS = 20


def fed(layer: nn.Module, module: torch.nn.Module, x: Any) -> tuple[Any, torch.Tensor]:
    """Load the state dict of a module in float32, and run both in float64."""
    from_torch_state_dict(layer, pytorch.arrays_of(module))
    return layer.forward(x), module.double()(torch.from_numpy(x))


def test_a_linear_layer_and_a_layer_norm_take_the_state_of_theirs() -> None:
    torch.manual_seed(0)
    ours, theirs = fed(nn.Linear("l", 5, 3, **KIND), torch.nn.Linear(5, 3), pytorch.normal((4, 5), 0))
    pytorch.assert_equal(ours, theirs, "linear")
    norm = torch.nn.LayerNorm(6, 1e-5 * (1 + 0.1))
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    ours, theirs = fed(nn.LayerNorm("n", 6, -1.0, 1e-5, **KIND), norm, pytorch.normal((4, 6), 0))
    pytorch.assert_equal(ours, theirs, "layer norm")


def test_a_convolution_takes_the_state_of_theirs() -> None:
    torch.manual_seed(1)
    module = torch.nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    layer = nn.Conv2d("c", 3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), **KIND)
    from_torch_state_dict(layer, pytorch.arrays_of(module))
    images = pytorch.normal((2, 3, 7, 6), 0)
    theirs = module.double()(torch.from_numpy(images))
    pytorch.assert_equal(layer.forward(to_nhwc(images)), channels_last(theirs), "convolution")


def test_batch_norms_take_the_state_and_the_running_statistics_of_theirs() -> None:
    torch.manual_seed(2)
    layer, module = nn.BatchNorm1d("b", 5, **KIND), torch.nn.BatchNorm1d(5)
    images, module2d = nn.BatchNorm2d("b", 5, **KIND), torch.nn.BatchNorm2d(5)
    for step in range(3):
        module(3 * torch.randn(7, 5) + step)
        module2d(3 * torch.randn(2, 5, 3, 3) + step)
    for one, other in ((layer, module), (images, module2d)):
        one.eval()
        other.eval()
    pytorch.assert_equal(*fed(layer, module, pytorch.normal((4, 5), 0)), "rows")
    from_torch_state_dict(images, pytorch.arrays_of(module2d))
    x = pytorch.normal((2, 3, 4, 5), 0)
    theirs = module2d.double()(channels_first(torch.from_numpy(x)))
    pytorch.assert_equal(images.forward(x), channels_last(theirs), "images")


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 3)])
def test_a_memory_layer_takes_the_state_of_theirs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    module, layer, x = torch.nn.LSTM(3, 4), nn.Lstm("l", 3, 4, **KIND), pytorch.normal(shape, 0)
    from_torch_state_dict(layer, pytorch.arrays_of(module))
    theirs, _ = module.double()(torch.from_numpy(x))
    pytorch.assert_equal(layer.forward(x), theirs, "memory layer")


def networks() -> tuple[nn.Sequential, torch.nn.Sequential]:
    """Build the same network twice, and load the state of theirs into ours."""
    torch.manual_seed(4)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 6, 3, padding=1),
        torch.nn.GELU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(6 * 2 * 3, 5),
        torch.nn.BatchNorm1d(5),
        torch.nn.Tanh(),
    ).double()
    ours = nn.Sequential(
        "net",
        [
            nn.Conv2d("conv1", 2, 4, **KIND),
            nn.BatchNorm2d("bn1", 4, **KIND),
            nn.ReLU("relu", **KIND),
            nn.MaxPool2d("max", **KIND),
            nn.Conv2d("conv2", 4, 6, **KIND),
            nn.GELU("gelu", **KIND),
            nn.AvgPool2d("average", **KIND),
            nn.Flatten("flat", **KIND),
            nn.Linear("fc", 36, 5, **KIND),
            nn.BatchNorm1d("bn2", 5, **KIND),
            nn.Tanh("tanh", **KIND),
        ],
    )
    load(ours, theirs)
    return ours, theirs


def load(ours: nn.Sequential, theirs: torch.nn.Sequential) -> None:
    numbers = {"conv1": "0", "bn1": "1", "conv2": "4", "fc": "8", "bn2": "9"}
    from_torch_state_dict(ours, pytorch.arrays_of(theirs), names=numbers, flattened={"fc": (6, 2, 3)})


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_a_network_that_starts_from_their_state_trains_as_theirs_does(kind: str) -> None:
    ours, theirs = networks()
    optimizer: optim.Optimizer
    other: torch.optim.Optimizer
    if kind == "momentum":
        optimizer = optim.SGD(ours.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
        other = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = optim.Adam(ours.parameters(), 1e-3, weight_decay=1e-3)
        other = torch.optim.Adam(theirs.parameters(), 1e-3, weight_decay=1e-3)
    workspace, losses = nn.Workspace(), []
    for step in range(STEPS):
        x, labels = pytorch.normal((8, 8, 12, 2), step), np.random.default_rng(step).integers(0, 5, 8)
        optimizer.zero_grad()
        logits = ours.forward(x, workspace)
        grad = np.empty_like(logits)
        loss, _ = nn.softmax_cross_entropy(logits, labels, grad)
        ours.backward_in(x, grad, workspace, input_grad=False)
        optimizer.step()
        other.zero_grad()
        value = torch.nn.functional.cross_entropy(theirs(channels_first(torch.from_numpy(x))), torch.from_numpy(labels))
        value.backward()
        other.step()
        pytorch.assert_equal(loss, value, f"loss of step {step}")
        losses.append(loss)
    assert len(set(losses)) == STEPS
    state = {name: values.copy() for name, values in ours.state_dict().items()}
    load(ours, theirs)
    for name, values in ours.state_dict().items():
        # The biased variance of ours is compared in the test of the norms.
        if not name.endswith("running_var"):
            pytorch.assert_equal(state[name], values, name)
