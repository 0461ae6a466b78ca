"""Layers that a chain runs as one do what they do one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core import kernels, nn
from spiral_core.arrays import Float
from spiral_core.errors import StateError
from spiral_core.nn.fusion import RectifiedNorm

CLOSE = {np.float32: 3e-6, np.float64: 1e-13}
"""Relative to the largest: the two ways differ in the order of sums and, in float32, nothing else."""


FEATURES = 32
"""Two vectors of the kernels."""


def chain(
    norm: type[nn.BatchNorm2d | nn.ZSpaceBatchNorm2d], pool: bool, dtype: type[np.floating], features: int = FEATURES
) -> nn.Sequential:
    draws = np.random.default_rng(3)
    named = {"projector_gain": 0.6} if norm is nn.ZSpaceBatchNorm2d else {}
    layer = norm("norm", features, dtype=dtype, **named)
    # Of both signs, so that the largest value of a window is not always the largest input.
    layer.gamma.value[:] = draws.normal(size=features)
    layer.beta.value[:] = draws.normal(size=features)
    layers: list[nn.Module] = [nn.Tanh("first", dtype), layer, nn.ReLU("relu", dtype)]
    if pool:
        layers.append(nn.MaxPool2d("pool", dtype=dtype))
    return nn.Sequential("chain", layers)


def passes(model: nn.Sequential, x: Float, workspace: nn.Workspace) -> dict[str, Float]:
    """Run forward and backward; give everything that they leave behind."""
    model.zero_grad()
    state = model.state_dict()
    out = model.forward(x, workspace).copy()
    grad = np.random.default_rng(5).standard_normal(out.shape).astype(x.dtype)
    grad_x = model.backward_in(x, grad, workspace, input_grad=True)
    assert grad_x is not None
    norm = model.layer("norm")
    found = {"out": out, "grad x": grad_x.copy(), **{name: value.copy() for name, value in model.buffers().items()}}
    found |= {parameter.name: parameter.grad.copy() for parameter in model.parameters()}
    if isinstance(norm, nn.ZSpaceNorm):
        seen, whole = norm.observe(workspace), norm.telemetry(workspace)
        found |= {"normed": whole.normed, "projected": whole.projected, "radius": whole.radius}
        found["observed"] = np.array([seen.radius_p95, seen.jacobian_mean, seen.saturation, seen.blended_mean])
    model.load_state_dict(state)
    return found


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from([nn.BatchNorm2d, nn.ZSpaceBatchNorm2d]), st.booleans(), st.booleans(),
    st.sampled_from([np.float32, np.float64]), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4),
)  # fmt: skip
def test_layers_run_as_one_do_what_they_do_one_by_one(
    norm: type[nn.BatchNorm2d | nn.ZSpaceBatchNorm2d],
    pool: bool,
    training: bool,
    dtype: type[np.floating],
    images: int,
    half_height: int,
    half_width: int,
) -> None:
    model = chain(norm, pool, dtype)
    shape = (images, 2 * half_height, 2 * half_width, FEATURES)
    x = np.random.default_rng(images).normal(1, 2, shape).astype(dtype)
    alone = passes(model, x, nn.Workspace(training=training))
    as_one = passes(model, x, nn.Workspace(training=training, fuse=True))
    assert alone.keys() == as_one.keys()
    for name, expected in alone.items():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(as_one[name], expected, rtol=0, atol=10 * CLOSE[dtype] * scale, err_msg=name)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from([nn.BatchNorm2d, nn.ZSpaceBatchNorm2d]), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([np.float32, np.float64]), st.integers(1, 9), st.sampled_from([1, 2, 17]),
)  # fmt: skip
def test_a_convolution_before_them_runs_as_one_with_them(
    norm: type[nn.BatchNorm2d | nn.ZSpaceBatchNorm2d],
    pool: bool,
    training: bool,
    first: bool,
    dtype: type[np.floating],
    images: int,
    channels: int,
) -> None:
    behind = chain(norm, pool, dtype).layers[1:]
    conv = nn.Conv2d("conv", channels, FEATURES, dtype=dtype)
    conv.bias.value[:] = np.random.default_rng(2).normal(size=FEATURES)
    model = nn.Sequential("chain", [*([] if first else [nn.Tanh("first", dtype)]), conv, *behind])
    # Images of 18 x 20 in chunks of four.
    x = np.random.default_rng(images).normal(1, 2, (images, 18, 20, channels)).astype(dtype)
    workspace = nn.Workspace(training=training, fuse=True)
    alone, as_one = passes(model, x, nn.Workspace(training=training)), passes(model, x, workspace)
    assert list(model.outputs(workspace)) == [*([] if first else ["first"]), "pool" if pool else "relu"]
    for name, expected in alone.items():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(as_one[name], expected, rtol=0, atol=10 * CLOSE[dtype] * scale, err_msg=name)


def test_a_fused_pass_that_accumulates_nothing_leaves_every_gradient_and_gives_the_same_to_its_input() -> None:
    conv = nn.Conv2d("conv", 2, FEATURES)
    model = nn.Sequential("chain", [conv, *chain(nn.ZSpaceBatchNorm2d, True, np.float32).layers[1:]])
    x = np.random.default_rng(1).normal(1, 2, (3, 6, 4, 2)).astype(np.float32)
    expected = passes(model, x, nn.Workspace(training=True, fuse=True))["grad x"]
    model.zero_grad()
    found = passes(model, x, nn.Workspace(training=True, accumulate=False, fuse=True))
    np.testing.assert_array_equal(found["grad x"], expected)
    assert not any(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0])
def test_of_a_window_the_same_element_wins_whatever_the_sign_of_gamma(gain: float) -> None:
    model = chain(nn.ZSpaceBatchNorm2d, True, np.float64)
    norm = model.layer("norm")
    assert isinstance(norm, nn.ZSpaceBatchNorm2d)
    norm.set_projector_gain(gain)
    norm.gamma.value[:] = np.repeat([2.0, 0.0, -0.5, -0.0], FEATURES // 4)
    # Above zero nearly everywhere; and few different inputs, so that many are equal.
    norm.beta.value[:] = 2.0
    x = np.random.default_rng(4).integers(0, 4, (3, 8, 6, FEATURES)).astype(np.float64)
    alone, as_one = passes(model, x, nn.Workspace()), passes(model, x, nn.Workspace(fuse=True))
    for name, expected in alone.items():
        np.testing.assert_allclose(as_one[name], expected, rtol=0, atol=1e-12, err_msg=name)


def test_a_steered_norm_and_another_array_are_noticed() -> None:
    model, workspace = chain(nn.ZSpaceBatchNorm2d, True, np.float64), nn.Workspace(fuse=True)
    norm = model.layer("norm")
    assert isinstance(norm, nn.ZSpaceBatchNorm2d)
    draws = np.random.default_rng(4)
    for step in range(12):
        if step % 3 == 1:
            norm.set_curvature(-0.5 - step)
        elif step % 3 == 2:
            norm.set_projector_gain(1.0 / step)
        norm.set_training(step % 4 != 3)
        x = draws.normal(size=(2 + step // 4 % 2, 6, 4, FEATURES))
        alone, as_one = passes(model, x, nn.Workspace()), passes(model, x, workspace)
        for name, expected in alone.items():
            np.testing.assert_allclose(as_one[name], expected, rtol=0, atol=1e-11, err_msg=f"{step} {name}")


def test_layers_run_alone_in_between_and_copies_change_nothing() -> None:
    model = chain(nn.ZSpaceBatchNorm2d, True, np.float64)
    model.layers[:1] = [nn.Conv2d("conv", 2, FEATURES, dtype=np.float64)]
    model = nn.Sequential("chain", model.layers)
    draws, workspace = np.random.default_rng(4), nn.Workspace(fuse=True)
    for fuse in (True, False, True, True):
        workspace.fuse = fuse
        x = draws.normal(size=(2, 6, 4, 2))
        alone, found = passes(model, x, nn.Workspace()), passes(model, x, workspace)
        for name, expected in alone.items():
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-11, err_msg=name)
        grad = np.ones((2, 3, 2, FEATURES))
        model.zero_grad()
        for own in (copy.deepcopy((model, workspace)), (model, workspace)):
            grad_x = own[0].backward_in(x, grad, own[1], input_grad=True)
            seen = [grad_x, *[parameter.grad for parameter in own[0].parameters()]]
            found[f"copy {own[0] is model}"] = np.concatenate([np.ravel(one) for one in seen])
        np.testing.assert_array_equal(found["copy True"], found["copy False"])


def test_two_arrays_of_one_shape_are_told_apart() -> None:
    module = RectifiedNorm(nn.ZSpaceBatchNorm2d("norm", FEATURES, dtype=np.float64), nn.ReLU("relu", np.float64))
    draws, workspace = np.random.default_rng(4), nn.Workspace()
    grad, *inputs = draws.normal(size=(3, 2, 6, 4, FEATURES))
    for x in (inputs[0], inputs[1], inputs[0]):
        found = []
        for place in (workspace, nn.Workspace()):
            module.forward(x, place)
            found.append(module.backward(x, grad, place))
        np.testing.assert_array_equal(*found)


def test_what_is_not_kept_is_not_pretended() -> None:
    model, x = chain(nn.ZSpaceBatchNorm2d, True, np.float32), np.ones((2, 4, 4, FEATURES), np.float32)
    workspace = nn.Workspace(training=True, fuse=True)
    out = model.forward(x, workspace)
    assert list(model.outputs(workspace)) == ["first", "pool"]
    with pytest.raises(StateError, match="without fuse"):
        model.backward_to("relu", x, out, workspace)
    assert model.backward_to("first", x, out, workspace).shape == x.shape


def test_channels_that_do_not_fill_vectors_run_layer_by_layer() -> None:
    model, workspace = chain(nn.ZSpaceBatchNorm2d, True, np.float32, 17), nn.Workspace(training=True, fuse=True)
    model.forward(np.ones((2, 4, 4, 17), np.float32), workspace)
    assert list(model.outputs(workspace)) == ["first", "norm", "relu", "pool"]


def test_images_of_odd_size_are_pooled_by_the_layer_itself() -> None:
    model, workspace = chain(nn.ZSpaceBatchNorm2d, True, np.float64), nn.Workspace(training=True, fuse=True)
    for size in ((5, 4), (4, 5), (4, 4), (5, 5)):
        x = np.random.default_rng(1).normal(size=(2, *size, FEATURES))
        alone, as_one = passes(model, x, nn.Workspace(training=True)), passes(model, x, workspace)
        np.testing.assert_allclose(as_one["grad x"], alone["grad x"], rtol=0, atol=1e-12)


def test_a_norm_that_comes_first_runs_alone() -> None:
    norm = nn.ZSpaceBatchNorm2d("norm", 16)
    model, workspace = nn.Sequential("m", [norm, nn.ReLU("relu")]), nn.Workspace(training=True, fuse=True)
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 16)).astype(np.float32)
    model.forward(x, workspace)
    before = norm.telemetry(workspace).normed
    x[:] = 7
    np.testing.assert_array_equal(norm.telemetry(workspace).normed, before)


@pytest.mark.parametrize("place", ["input", "gamma"])
def test_a_nan_is_seen_as_it_is_one_by_one(place: str) -> None:
    model, x = chain(nn.ZSpaceBatchNorm2d, True, np.float32), np.ones((2, 4, 4, FEATURES), np.float32)
    x += np.arange(x.size, dtype=np.float32).reshape(x.shape) % 7
    if place == "input":
        x[1, 2, 3, 20] = np.nan
    else:
        model.parameters()[0].value[18] = np.nan
    grad = np.ones((2, 2, 2, FEATURES), np.float32)
    seen = []
    for fuse in (False, True):
        workspace = nn.Workspace(training=True, fuse=fuse)
        model.zero_grad()
        out = model.forward(x, workspace).copy()
        grad_x = model.backward_in(x, grad, workspace, input_grad=True)
        assert grad_x is not None
        seen.append([np.isnan(out), np.isnan(grad_x), *[np.isnan(p.grad) for p in model.parameters()]])
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)
    assert seen[0][0].any()


def test_any_number_of_threads_gives_the_same_bits(threads: None) -> None:
    found = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        model = nn.models.build("z_cam", classes=3, generator=np.random.default_rng(0))
        x = np.random.default_rng(1).normal(size=(7, 28, 28, 1)).astype(np.float32)
        workspace = nn.Workspace(training=True, fuse=True)
        out = model.forward(x, workspace).copy()
        model.backward_in(x, np.ones_like(out), workspace, input_grad=False)
        found.append(out.tobytes() + b"".join(p.grad.tobytes() for p in model.parameters()))
    assert found[0] == found[1] == found[2]
