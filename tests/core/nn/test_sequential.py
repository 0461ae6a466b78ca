from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spiral_core import kernels, nn
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


class _Careless(nn.Module):
    """Gives something else than it promises."""

    def __init__(self, forward: Any = lambda x: x, backward: Any = lambda grad: grad) -> None:
        super().__init__("careless", np.float32)
        self.there, self.back = forward, backward

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _forward(self, x: Float, _: nn.Workspace) -> Float:
        return self.there(x)  # type: ignore[no-any-return]

    def _backward(self, _: Float, grad: Float, __: nn.Workspace, ___: bool) -> Float | None:
        return self.back(grad)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "error"), [(lambda a: a[:, :5], ShapeError), (lambda a: a.astype(np.float64), DtypeError)]
)
def test_a_layer_that_gives_something_else_than_it_promises_is_named_before_a_kernel_sees_it(
    change: Any, error: type[Exception]
) -> None:
    x = np.ones((3, 8), np.float32)
    chain = nn.Sequential("chain", [_Careless(forward=change), nn.Linear("head", 8, 4)])
    with pytest.raises(error, match="careless gave"):
        chain.forward(x)
    chain = nn.Sequential("chain", [nn.Linear("head", 8, 8), _Careless(backward=change)])
    chain.forward(x)
    with pytest.raises(error, match="careless gave"):
        chain.backward(x, np.ones((3, 8), np.float32))


@pytest.mark.parametrize("fuse", [False, True])
def test_batches_of_other_shapes_between_the_passes_leave_no_trace(fuse: bool, threads: None) -> None:
    """Scratch is kept from pass to pass, with borders of zeros that lie elsewhere for another shape."""
    generator = np.random.default_rng(3)
    shapes = [(40, 8, 12, 16), (40, 12, 8, 16), (20, 8, 12, 16), (5, 16, 16, 16)]

    def chain() -> nn.Sequential:
        return nn.Sequential(
            "chain",
            [
                nn.Conv2d("conv1", 16, 32),
                nn.ZSpaceBatchNorm2d("norm", 32),
                nn.ReLU("relu"),
                nn.MaxPool2d("pool"),
                nn.Conv2d("conv2", 32, 16, stride=(2, 2), dilation=(2, 1)),
            ],
        )

    def passes(model: nn.Sequential, workspace: nn.Workspace, x: Float, wanted: tuple[bool, bool, bool]) -> list[Float]:
        back, input_grad, workspace.accumulate = wanted
        y = model.forward(x, workspace)
        if not back:
            return [y.copy()]
        grad = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
        model.zero_grad()
        grad_x = model.backward_in(x, grad, workspace, input_grad=input_grad)
        assert (grad_x is not None) == input_grad
        return [y.copy(), *([] if grad_x is None else [grad_x.copy()]), *(p.grad.copy() for p in model.parameters())]

    model, place = chain(), nn.Workspace(training=True, fuse=fuse)
    shape = shapes[0]
    for turn in range(160):
        if turn % 16 == 0:
            shape = shapes[generator.integers(len(shapes))]
        if turn % 4 == 2:
            kernels.set_num_threads(int(generator.integers(1, 4)))
        x = generator.standard_normal(shape, dtype=np.float32)
        back, input_grad, accumulate = (generator.random(3) < 0.7).tolist()
        wanted = back, input_grad, accumulate
        fresh = passes(chain(), nn.Workspace(training=True, fuse=fuse), x, wanted)
        for ours, theirs in zip(passes(model, place, x, wanted), fresh, strict=True):
            np.testing.assert_array_equal(ours, theirs)
