"""Layers inside the guard: which numbers are rounded, and which are not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from oracles import layers_twin, lstm_twin
from spiral_core import amp, kernels, nn
from spiral_core.arrays import F64, AnyArray, Float
from spiral_core.errors import StateError


def draw(*shape: int, seed: int = 0) -> Float:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def narrow16(array: AnyArray) -> F64:
    with np.errstate(all="ignore"):
        return array.astype(np.float32).astype(np.float16).astype(np.float64)


def narrow_brain(array: AnyArray) -> F64:
    return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16).to(torch.float64).numpy()


NARROW: dict[str, Callable[[AnyArray], F64]] = {"float16": narrow16, "bfloat16": narrow_brain}
DTYPES = list(NARROW)


@pytest.fixture
def threads() -> Iterator[None]:
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)


def layers() -> list[tuple[nn.Module, Float]]:
    """Each layer that multiplies, with an input."""
    return [
        (nn.Linear("fc", 5, 4), draw(7, 5)),
        (nn.Conv2d("conv", 3, 4, (3, 2), stride=(2, 1), dilation=(1, 2)), draw(3, 7, 8, 3)),
        (nn.Lstm("lstm", 3, 4, stateful=False), draw(5, 9, 3)),
    ]


def passed(layer: nn.Module, x: Float, guard: amp.AutocastGuard) -> list[Float]:
    """Return output, gradient of the input and gradients of the parameters of one pass."""
    layer.zero_grad()
    workspace = nn.Workspace()
    with guard:
        out = layer.forward(x, workspace).copy()
    grad_x = layer.backward(x, draw(*out.shape, seed=1), workspace).copy()
    return [out, grad_x, *(parameter.grad.copy() for parameter in layer.parameters())]


# What is rounded.


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_linear_layer_multiplies_rounded_numbers_and_adds_up_wide_ones(dtype: str) -> None:
    layer, x, narrow = nn.Linear("fc", 40, 6), draw(9, 40), NARROW[dtype]
    layer.bias.value[...] = draw(6, seed=2)
    out, grad_x, grad_weight, grad_bias = passed(layer, x, amp.autocast(dtype=dtype))
    a, w, g = narrow(x), narrow(layer.weight.value), narrow(draw(9, 6, seed=1))
    twin = [a @ w + layer.bias.value, g @ w.T, a.T @ g, g.sum(axis=0)]
    for ours, expected in zip((out, grad_x, grad_weight, grad_bias), twin, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
        assert (narrow(ours) != ours).mean() > 0.5, "the sums were rounded too"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_convolution_multiplies_rounded_numbers_and_adds_up_wide_ones(dtype: str) -> None:
    layer = nn.Conv2d("conv", 3, 4, (3, 2), stride=(2, 1), dilation=(1, 2))
    x, narrow = draw(3, 7, 8, 3), NARROW[dtype]
    layer.bias.value[...] = draw(4, seed=2)
    out, grad_x, grad_weight, grad_bias = passed(layer, x, amp.autocast(dtype=dtype))
    form = ((2, 1), (1, 1), (1, 2))
    a, w, g = narrow(x), narrow(layer.weight.value), narrow(draw(*out.shape, seed=1))
    twin = [layers_twin.convolve(a, w, layer.bias.value.astype(np.float64), *form)]
    twin += layers_twin.convolve_backward(a, w, g, *form)
    for ours, expected in zip((out, grad_x, grad_weight, grad_bias), twin, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_recurrent_layer_rounds_its_state_and_the_gradient_of_its_gates_at_each_step(dtype: str) -> None:
    layer, x, narrow = nn.Lstm("lstm", 3, 4), draw(6, 2, 3), NARROW[dtype]
    h, c = draw(2, 4, seed=3), draw(2, 4, seed=4)
    workspace = nn.Workspace()
    layer.set_state(h, c, workspace)
    with amp.autocast(dtype=dtype):
        out = layer.forward(x, workspace).copy()
    np.testing.assert_array_equal(out, narrow(out))
    grad = draw(*out.shape, seed=1)
    grad_x = layer.backward(x, grad, workspace)
    start = layer.initial_state_grad(workspace)

    ih, hh, bias_ih, bias_hh = (parameter.value.astype(np.float64) for parameter in layer.parameters())
    weights = lstm_twin.Weights(narrow(ih), narrow(hh), bias_ih, bias_hh)
    sums = {name: np.zeros_like(array) for name, array in zip(weights._fields, weights, strict=True)}
    for n in range(2):
        walk = lstm_twin.forward(narrow(x[:, n]), weights, narrow(h[n]), c[n].astype(np.float64), narrow)
        np.testing.assert_array_equal(out[:, n], walk.y)
        back = lstm_twin.backward(walk, weights, narrow(grad[:, n]), narrow)
        for name, total in sums.items():
            total += back[name]
        np.testing.assert_allclose(grad_x[:, n], back["x"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(start[0][n], back["h"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(start[1][n], back["c"], rtol=1e-4, atol=1e-6)
    for parameter, total in zip(layer.parameters(), sums.values(), strict=True):
        np.testing.assert_allclose(parameter.grad, total, rtol=1e-4, atol=1e-6)


def test_pytorch_under_its_own_autocast_is_this_with_the_output_rounded() -> None:
    layer, x = nn.Linear("fc", 40, 6), draw(9, 40)
    theirs = torch.nn.Linear(40, 6)
    theirs.load_state_dict(
        {"weight": torch.from_numpy(layer.weight.value.T.copy()), "bias": torch.from_numpy(layer.bias.value)}
    )
    with torch.autocast("cpu", torch.bfloat16):
        expected = theirs(torch.from_numpy(x))
    assert expected.dtype == torch.bfloat16
    with amp.autocast(dtype="bfloat16"):
        ours = narrow_brain(layer.forward(x))
    wide = expected.detach().to(torch.float64).numpy()
    # Their sum is rounded in another order, so a number beside a tie may fall to the other side.
    assert (ours == wide).mean() > 0.9
    np.testing.assert_allclose(ours, wide, rtol=2**-7)
    assert (narrow_brain(layer.forward(x)) == wide).mean() < 0.9, "full precision gives the same"


# What is not.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(3))
def test_parameters_and_inputs_keep_every_bit(index: int, dtype: str) -> None:
    layer, x = layers()[index]
    before = [x.copy(), *(parameter.value.copy() for parameter in layer.parameters())]
    rounded = passed(layer, x, amp.autocast(dtype=dtype))
    after = [x, *(parameter.value for parameter in layer.parameters())]
    assert [array.tobytes() for array in after] == [array.tobytes() for array in before]
    exact = passed(layer, x, amp.autocast(enabled=False))
    for one, other in zip(rounded, exact, strict=True):
        assert one.dtype == np.float32
        assert (one != other).any(), "nothing was rounded"


OTHERS: list[tuple[nn.Module, Float]] = [
    (nn.ZSpaceBatchNorm1d("it", 6), draw(9, 6)),
    (nn.ZSpaceLayerNorm("it", 6), draw(9, 6)),
    (nn.ZSpaceBatchNorm2d("it", 6), draw(2, 4, 4, 6)),
    (nn.BatchNorm1d("it", 6), draw(9, 6)),
    (nn.LayerNorm("it", 6), draw(9, 6)),
    (nn.ReLU("it"), draw(9, 6)),
    (nn.GELU("it"), draw(9, 6)),
    (nn.Tanh("it"), draw(9, 6)),
    (nn.MaxPool2d("it"), draw(2, 4, 4, 6)),
    (nn.AvgPool2d("it"), draw(2, 4, 4, 6)),
    (nn.GlobalAveragePool2d("it"), draw(2, 4, 4, 6)),
]


@pytest.mark.parametrize(("layer", "x"), OTHERS, ids=[type(layer).__name__ for layer, _ in OTHERS])
def test_norms_activations_and_pooling_stay_float32_to_the_last_bit(layer: nn.Module, x: Float) -> None:
    exact, inside = (passed(layer, x, amp.autocast(enabled=enabled)) for enabled in (False, True))
    assert [array.tobytes() for array in exact] == [array.tobytes() for array in inside]


def test_losses_stay_float32_to_the_last_bit() -> None:
    logits, labels = draw(9, 6) * 1e6, np.arange(9) % 6
    results = []
    for enabled in (False, True):
        grad, square = np.empty_like(logits), np.empty_like(logits)
        with amp.autocast(enabled):
            values = [*nn.softmax_cross_entropy(logits, labels, grad), nn.mse_loss(logits, logits[::-1].copy(), square)]
        results.append((values, grad.tobytes(), square.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d, nn.Lstm])
def test_a_layer_in_float64_is_left_alone(kind: Callable[..., nn.Module]) -> None:
    layer = kind("it", 3, 4, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 3) if kind is nn.Conv2d else (4, 3))
    results = []
    for enabled in (False, True):
        workspace = nn.Workspace()
        layer.zero_grad()
        with amp.autocast(enabled):
            out = layer.forward(x, workspace).copy()
            grad_x = layer.backward(x, np.ones_like(out), workspace)
        results.append([array.tobytes() for array in (out, grad_x, *(p.grad for p in layer.parameters()))])
        if isinstance(layer, nn.Lstm):
            layer.reset_state(workspace)
    assert results[0] == results[1]


# Which pass decides.


@pytest.mark.parametrize("index", range(3))
def test_backward_follows_its_forward_pass_wherever_it_is_called(index: int) -> None:
    layer, x = layers()[index]
    workspace = nn.Workspace()
    results = []
    for inside_forward, inside_backward in ((True, True), (True, False), (False, True), (False, False)):
        layer.zero_grad()
        with amp.autocast(inside_forward):
            out = layer.forward(x, workspace)
        with amp.autocast(inside_backward):
            grad_x = layer.backward(x, draw(*out.shape, seed=1), workspace)
        results.append([array.tobytes() for array in (grad_x, *(p.grad for p in layer.parameters()))])
    assert results[0] == results[1]
    assert results[2] == results[3]
    assert results[0] != results[2]


def test_backward_for_another_shape_than_forward_rounded_is_refused() -> None:
    for layer, x in layers():
        workspace = nn.Workspace()
        with amp.autocast():
            out = layer.forward(x, workspace)
        with pytest.raises(StateError, match="forward saw"):
            layer.backward(x[:2], np.ones_like(out[:2]), workspace)
        assert not any(parameter.grad.any() for parameter in layer.parameters())


def test_evaluation_in_a_workspace_of_its_own_does_not_touch_a_pass_that_is_due() -> None:
    layer, x = nn.Linear("fc", 5, 4), draw(7, 5)
    training, watching = nn.Workspace(), nn.Workspace()
    with amp.autocast():
        layer.forward(x, training)
    layer.forward(x + 1, watching)
    layer.backward(x, draw(7, 4, seed=1), training)
    got = layer.weight.grad.copy()
    assert got.tobytes() == passed(layer, x, amp.autocast())[2].tobytes()


# Overflow and underflow are real.


@pytest.mark.parametrize("index", range(3))
def test_a_gradient_too_large_for_float16_overflows_and_one_too_small_vanishes(index: int) -> None:
    layer, x = layers()[index]
    for dtype, size, outcome in (
        ("float16", 1e9, "infinite"),
        ("bfloat16", 1e9, "finite"),
        ("float16", 1e-9, "zero"),
        ("bfloat16", 1e-9, "finite"),
    ):
        workspace = nn.Workspace()
        layer.zero_grad()
        with amp.autocast(dtype=dtype):
            out = layer.forward(x, workspace)
        layer.backward(x, np.full_like(out, size), workspace)
        grads = np.concatenate([parameter.grad.ravel() for parameter in layer.parameters()])
        seen = "zero" if not grads.any() else "finite" if np.isfinite(grads).all() else "infinite"
        assert seen == outcome, (dtype, size)


def test_an_activation_too_large_for_float16_becomes_infinite() -> None:
    layer, x = nn.Linear("fc", 1, 1), np.full((1, 1), 65520, np.float32)
    layer.weight.value[...] = 1
    with amp.autocast():
        assert layer.forward(x)[0, 0] == np.inf
    with amp.autocast(dtype="bfloat16"):
        assert layer.forward(x)[0, 0] == 65536


def test_scaling_the_loss_saves_gradients_that_float16_would_lose() -> None:
    x, grad = draw(8, 5), draw(8, 4, seed=1) * np.float32(1e-9)
    exact = nn.Linear("fc", 5, 4)
    workspace = nn.Workspace()
    exact.forward(x, workspace)
    exact.backward(x, grad, workspace)
    for scale, kept in ((1.0, False), (65536.0, True)):
        layer, scaler = nn.Linear("fc", 5, 4), amp.GradScaler(scale)
        with amp.autocast():
            layer.forward(x, workspace)
        layer.backward(x, grad * np.float32(scaler.scale), workspace)
        scaler.unscale(layer)
        if kept:
            np.testing.assert_allclose(layer.weight.grad, exact.weight.grad, rtol=0.02, atol=2e-10)
        else:
            assert not layer.weight.grad.any()


# The laws of every layer.


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_inside_the_guard_is_bit_identical_on_one_two_and_three_threads(dtype: str) -> None:
    results = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        bits = []
        for layer, x in [*layers(), (nn.models.build("z_cnn", classes=8), draw(20, 28, 28, 1))]:
            bits += [array.tobytes() for array in passed(layer, x, amp.autocast(dtype=dtype))]
        results.append(bits)
    assert results[0] == results[1] == results[2]


def test_layers_inside_the_guard_run_the_kernels_that_were_warmed_and_outside_they_do_not_round() -> None:
    guard = amp.autocast()
    for layer, x in layers():
        kernels.warm([*layer.kernels(), *guard.kernels], np.float32)
        compiled = {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()}
        passed(layer, x, guard)
        assert {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()} == compiled


def test_steady_passes_inside_the_guard_allocate_nothing_large() -> None:
    model, x = nn.models.build("z_cnn", classes=8), draw(40, 28, 28, 1)
    workspace, grad = nn.Workspace(), draw(40, 8)

    def passes() -> None:
        with amp.autocast():
            model.forward(x, workspace)
        model.backward_in(x, grad, workspace, input_grad=False)

    passes()
    held = workspace.nbytes()
    tracemalloc.start()
    try:
        passes()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        passes()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The smallest activation that is rounded here takes 1,200 KiB.
    assert peak - before < 256 * 1024
    assert after - before < 16 * 1024
    assert workspace.nbytes() == held
