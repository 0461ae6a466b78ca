from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spiral_core import nn
from spiral_core.arrays import Float
from spiral_core.errors import ArgumentError, DtypeError, ShapeError, StateError


@pytest.fixture
def model() -> nn.Sequential:
    return nn.models.build("z_cam", classes=4, generator=np.random.default_rng(0))


@pytest.fixture
def x() -> Float:
    return np.random.default_rng(1).standard_normal((6, 8, 8, 1)).astype(np.float32)


def learnt(model: nn.Sequential) -> list[bytes]:
    """Everything that a probe must leave alone."""
    state = [array.tobytes() for array in model.state_dict().values()]
    return [*state, *(p.grad.tobytes() for p in model.parameters())]


def upstream(logits: Float) -> Float:
    return np.linspace(-1, 1, logits.size, dtype=np.float32).reshape(logits.shape)


def test_a_probe_changes_no_parameter_no_gradient_and_no_statistic(model: nn.Sequential, x: Float) -> None:
    workspace = nn.Workspace()
    model.backward(x, upstream(model.forward(x, workspace)), workspace)
    before = learnt(model)
    probe = nn.Workspace(training=False, accumulate=False)
    logits = model.forward(x[:3], probe)
    for layer in model.layers:
        assert (
            model.backward_to(layer.name, x[:3], upstream(logits), probe).shape
            == model.outputs(probe)[layer.name].shape
        )
    assert learnt(model) == before
    # And the same passes without the two flags do change it.
    careless = nn.Workspace()
    model.backward_to("conv1", x[:3], upstream(model.forward(x[:3], careless)), careless)
    assert learnt(model) != before


def test_two_workspaces_do_not_disturb_each_other(model: nn.Sequential, x: Float) -> None:
    def gradients(disturbed: bool) -> list[bytes]:
        model.zero_grad()
        workspace = nn.Workspace()
        logits = model.forward(x, workspace)
        if disturbed:
            probe = nn.Workspace(training=False, accumulate=False)
            model.backward_to("relu1", x[:2], upstream(model.forward(x[:2], probe)), probe)
            model.forward(x[3:], probe)
        grad_x = model.backward(x, upstream(logits), workspace)
        return [logits.tobytes(), grad_x.tobytes(), *(p.grad.tobytes() for p in model.parameters())]

    assert gradients(disturbed=False) == gradients(disturbed=True)


def test_the_gradient_of_a_layers_output_is_what_its_backward_starts_from(model: nn.Sequential, x: Float) -> None:
    workspace = nn.Workspace(accumulate=False)
    logits = model.forward(x, workspace)
    at_first = model.backward_to("conv1", x, upstream(logits), workspace).copy()
    whole = model.backward(x, upstream(logits), workspace).copy()
    np.testing.assert_array_equal(model.layer("conv1").backward(x, at_first, workspace), whole)
    np.testing.assert_array_equal(model.backward_to("head", x, upstream(logits), workspace), upstream(logits))


def test_training_does_without_the_gradient_of_the_images(model: nn.Sequential, x: Float) -> None:
    results = []
    for input_grad in (True, False):
        model.zero_grad()
        workspace = nn.Workspace()
        grad_x = model.backward_in(x, upstream(model.forward(x, workspace)), workspace, input_grad=input_grad)
        assert (grad_x is not None) == input_grad
        results.append([p.grad.tobytes() for p in model.parameters()])
    assert results[0] == results[1]


def test_outputs_are_those_of_the_layers_one_by_one(model: nn.Sequential, x: Float) -> None:
    workspace = nn.Workspace(training=False)
    model.forward(x, workspace)
    y = x
    for layer in model.layers:
        y = layer.forward(y, nn.Workspace(training=False))
        np.testing.assert_array_equal(model.outputs(workspace)[layer.name], y)


def test_training_and_evaluation_reach_every_layer(model: nn.Sequential) -> None:
    model.eval()
    assert not any(layer.training for layer in model.layers)
    model.train()
    assert all(layer.training for layer in model.layers)


def test_a_bare_forward_returns_a_copy_and_a_workspace_lends_its_own(model: nn.Sequential, x: Float) -> None:
    model.eval()
    one, other = model.forward(x), model.forward(2 * x)
    assert not np.shares_memory(one, other)
    workspace = nn.Workspace()
    assert np.shares_memory(model.forward(x, workspace), model.forward(2 * x, workspace))


def test_what_comes_out_of_order_is_refused(model: nn.Sequential, x: Float) -> None:
    grad = np.ones((6, 4), np.float32)
    for call in (
        lambda: model.backward(x, grad, nn.Workspace()),
        lambda: model.backward_to("relu1", x, grad, nn.Workspace()),
        lambda: model.outputs(nn.Workspace()),
    ):
        with pytest.raises(StateError, match="forward"):
            call()
    workspace = nn.Workspace()
    model.forward(x[:2], workspace)
    with pytest.raises(StateError, match="forward"):
        model.backward(x, grad, workspace)
    with pytest.raises(ShapeError, match="grad"):
        model.backward_to("relu1", x, grad[:1], workspace)


@pytest.mark.parametrize("layer", ["relu1", "head"])
def test_a_gradient_or_an_input_of_another_dtype_is_refused_down_to_every_layer(
    model: nn.Sequential, x: Float, layer: str
) -> None:
    workspace = nn.Workspace()
    grad = upstream(model.forward(x, workspace))
    before = learnt(model)
    wrong: Any
    for wrong in (grad.astype(np.float64), grad.tolist()):
        with pytest.raises(DtypeError, match=f"{model.name}: grad must be"):
            model.backward_to(layer, x, wrong, workspace)
    with pytest.raises(DtypeError, match=f"{model.name}: input must be float32, got float64"):
        model.backward_to(layer, x.astype(np.float64), grad, workspace)
    assert learnt(model) == before
    assert model.backward_to(layer, x, grad, workspace).dtype == np.float32


def test_chains_that_cannot_be_are_refused() -> None:
    with pytest.raises(ArgumentError, match="at least one layer"):
        nn.Sequential("s", [])
    with pytest.raises(ArgumentError, match="'r'"):
        nn.Sequential("s", [nn.ReLU("r"), nn.ReLU("r")])
    with pytest.raises(ArgumentError, match="float64"):
        nn.Sequential("s", [nn.ReLU("r"), nn.ReLU("q", np.float64)])
    with pytest.raises(ArgumentError, match=r"'q'.*r"):
        nn.Sequential("s", [nn.ReLU("r")]).layer("q")
