"""Every backward is the derivative of its forward: central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.differences import central_difference
from spiral_core import nn
from spiral_core.arrays import F64

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SEEDS = st.integers(0, 1000)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def spread(shape: tuple[int, ...], seed: int) -> F64:
    """Draw numbers that all differ by far more than the step of a difference and stay away from zero: no kinks."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size / 2 + 0.25) * (4 / size)
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def check(module: nn.Module, x: F64, training: bool = True, tolerance: float = 2e-7) -> None:
    """Compare each gradient of a random weighting of the outputs."""
    weights = np.random.default_rng(1).standard_normal(module.output_shape(x.shape))
    workspace = nn.Workspace(training)

    def value() -> float:
        return float(np.vdot(module.forward(x, nn.Workspace(training)), weights))

    # The running statistics move in training and must not matter there.
    buffers = {name: array.copy() for name, array in module.buffers().items()}
    module.zero_grad()
    module.forward(x, workspace)
    grad_x = module.backward(x, weights, workspace).copy()
    if not training:
        for name, array in module.buffers().items():
            np.testing.assert_array_equal(array, buffers[name])
    pairs = [("x", grad_x, x)] + [(p.name, p.grad, p.value) for p in module.parameters()]
    for name, ours, array in pairs:
        expected = central_difference(value, array)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@FEW
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), SEEDS)
def test_linear_has_the_gradient_of_its_forward(rows: int, inputs: int, outputs: int, seed: int) -> None:
    layer = nn.Linear("l", inputs, outputs, generator=np.random.default_rng(seed), dtype=np.float64)
    check(layer, spread((rows, inputs), seed))


@FEW
@given(PAIRS, PAIRS, st.tuples(st.integers(0, 2), st.integers(0, 2)), PAIRS, st.data())
def test_convolution_has_the_gradient_of_its_forward(
    taps: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    data: st.DataObject,
) -> None:
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(taps, padding, dilation, strict=True)]
    size = [data.draw(st.integers(n, n + 2)) for n in least]
    channels, filters = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    layer = nn.Conv2d("c", channels, filters, taps, stride=stride, padding=padding, dilation=dilation, dtype=np.float64)
    check(layer, spread((data.draw(st.integers(1, 2)), *size, channels), 3))


@FEW
@given(st.tuples(st.integers(1, 3), st.integers(1, 3)), PAIRS, st.booleans(), SEEDS)
def test_max_pooling_has_the_gradient_of_its_forward(
    taps: tuple[int, int], stride: tuple[int, int], padded: bool, seed: int
) -> None:
    padding = (taps[0] // 2, taps[1] // 2) if padded else (0, 0)
    layer = nn.MaxPool2d("p", taps, stride=stride, padding=padding, dtype=np.float64)
    check(layer, spread((2, 4, 5, 3), seed))


@FEW
@given(st.tuples(st.integers(1, 3), st.integers(1, 3)), PAIRS, st.booleans(), SEEDS)
def test_average_pooling_has_the_gradient_of_its_forward(
    taps: tuple[int, int], stride: tuple[int, int], padded: bool, seed: int
) -> None:
    padding = (taps[0] // 2, taps[1] // 2) if padded else (0, 0)
    layer = nn.AvgPool2d("p", taps, stride=stride, padding=padding, dtype=np.float64)
    check(layer, spread((2, 4, 5, 3), seed))


@FEW
@given(st.sampled_from(["tanh", "gelu", "gelu tanh"]), st.lists(st.integers(1, 4), min_size=1, max_size=4), SEEDS)
def test_smooth_activations_have_the_gradient_of_their_forward(kind: str, shape: list[int], seed: int) -> None:
    approximate = "tanh" if kind == "gelu tanh" else "none"
    layer = nn.Tanh("a", np.float64) if kind == "tanh" else nn.GELU("a", np.float64, approximate=approximate)
    check(layer, 2 * spread(tuple(shape), seed))


@FEW
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), SEEDS)
def test_the_squared_error_writes_its_own_gradient(shape: list[int], seed: int) -> None:
    pred, target = spread(tuple(shape), seed), spread(tuple(shape), seed + 1)
    grad, ignored = np.full_like(pred, np.nan), np.empty_like(pred)
    nn.mse_loss(pred, target, grad)
    expected = central_difference(lambda: nn.mse_loss(pred, target, ignored), pred)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-9)


@FEW
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), SEEDS)
def test_the_average_over_space_has_the_gradient_of_its_forward(n: int, h: int, w: int, c: int, seed: int) -> None:
    check(nn.GlobalAveragePool2d("g", np.float64), spread((n, h, w, c), seed))


@FEW
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), SEEDS)
def test_the_rectifier_has_the_gradient_of_its_forward(shape: list[int], seed: int) -> None:
    check(nn.ReLU("r", np.float64), spread(tuple(shape), seed))


@FEW
@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3), st.integers(1, 4), SEEDS)
def test_the_long_short_term_memory_has_the_gradient_of_its_forward(
    steps: int, rows: int, inputs: int, hidden: int, seed: int
) -> None:
    layer = nn.Lstm("l", inputs, hidden, generator=np.random.default_rng(seed), dtype=np.float64)
    for bias in (layer.bias_ih, layer.bias_hh):
        bias.value[:] = np.random.default_rng(seed + 1).standard_normal(4 * hidden)
    # No rows: a single sequence without an axis for them.
    check(layer, spread((steps, *((rows,) if rows else ()), inputs), seed))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gain", [0.0, 0.4, 1.0])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.integers(2, 7), st.integers(1, 4), st.floats(-6, -0.05), SEEDS)
def test_the_z_space_norm_of_rows_has_the_gradient_of_its_forward(
    training: bool, gain: float, rows: int, features: int, curvature: float, seed: int
) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", features, curvature, projector_gain=gain, dtype=np.float64)
    unsettle(layer, seed)
    check(layer, spread((rows, features), seed) + np.arange(features), training, tolerance=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gain", [0.0, 0.4, 1.0])
def test_the_z_space_norm_of_images_has_the_gradient_of_its_forward(training: bool, gain: float) -> None:
    layer = nn.ZSpaceBatchNorm2d("z", 3, -1.7, projector_gain=gain, dtype=np.float64)
    unsettle(layer, 5)
    check(layer, spread((2, 3, 2, 3), 5), training, tolerance=1e-6)


@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(2, 7), st.integers(1, 4), SEEDS)
def test_the_batch_norm_has_the_gradient_of_its_forward(training: bool, rows: int, features: int, seed: int) -> None:
    layer, images = nn.BatchNorm1d("b", features, dtype=np.float64), nn.BatchNorm2d("c", features, dtype=np.float64)
    unsettle(layer, seed)
    unsettle(images, seed)
    check(layer, spread((rows, features), seed) + np.arange(features), training, tolerance=1e-6)
    check(images, spread((rows, 1, 2, features), seed), training, tolerance=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gain", [None, 0.0, 0.4, 1.0])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=2), st.integers(1, 6), st.floats(-6, -0.05), SEEDS)
def test_the_layer_norms_have_the_gradient_of_their_forward(
    training: bool, gain: float | None, rows: list[int], features: int, curvature: float, seed: int
) -> None:
    layer: nn.LayerNorm | nn.ZSpaceLayerNorm
    if gain is None:
        layer = nn.LayerNorm("l", features, curvature, dtype=np.float64)
    else:
        layer = nn.ZSpaceLayerNorm("l", features, curvature, projector_gain=gain, dtype=np.float64)
    draws = np.random.default_rng(seed)
    layer.gamma.value[:], layer.beta.value[:] = draws.standard_normal((2, features))
    check(layer, spread((*rows, features), seed), training, tolerance=1e-6)


BatchNorms = nn.BatchNorm1d | nn.BatchNorm2d | nn.ZSpaceBatchNorm1d | nn.ZSpaceBatchNorm2d


def unsettle(layer: BatchNorms, seed: int) -> None:
    """Give the layer parameters and statistics that are not its first ones."""
    draws = np.random.default_rng(seed)
    for array in (layer.gamma.value, layer.beta.value, layer.running_mean):
        array[:] = draws.standard_normal(array.shape)
    layer.running_var[:] = draws.uniform(0.3, 3, layer.features)


@pytest.mark.parametrize("training", [True, False])
def test_a_chain_has_the_gradient_of_its_forward(training: bool) -> None:
    kind = {"dtype": np.float64}
    chain = nn.Sequential(
        "chain",
        [
            nn.Conv2d("c", 1, 2, **kind),
            nn.ZSpaceBatchNorm2d("z", 2, -1.0, projector_gain=0.7, **kind),
            nn.ReLU("r", **kind),
            nn.MaxPool2d("p", **kind),
            nn.Flatten("f", **kind),
            nn.Linear("l", 8, 3, **kind),
            nn.ZSpaceBatchNorm1d("y", 3, -2.0, **kind),
        ],
    )
    check(chain, spread((3, 4, 4, 1), 2), training, tolerance=2e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_chain_of_every_norm_has_the_gradient_of_its_forward(training: bool) -> None:
    kind = {"dtype": np.float64}
    chain = nn.Sequential(
        "chain",
        [
            nn.Linear("a", 3, 5, **kind),
            nn.ZSpaceLayerNorm("lnz", 5, -1.0, 1e-5, projector_gain=0.7, **kind),
            nn.ReLU("r", **kind),
            nn.BatchNorm1d("bn", 5, 0.1, 1e-5, **kind),
            nn.Linear("b", 5, 4, **kind),
            nn.LayerNorm("ln", 4, -1.0, 1e-5, **kind),
            nn.ZSpaceBatchNorm1d("bnz", 4, -2.0, 0.1, 1e-5, **kind),
        ],
    )
    check(chain, spread((4, 3), 2), training, tolerance=2e-6)


@FEW
@given(st.integers(1, 5), st.integers(2, 6), SEEDS)
def test_the_cross_entropy_writes_its_own_gradient(rows: int, classes: int, seed: int) -> None:
    logits = spread((rows, classes), seed) * 3
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    grad, ignored = np.full_like(logits, np.nan), np.empty_like(logits)
    nn.softmax_cross_entropy(logits, labels, grad)
    expected = central_difference(lambda: nn.softmax_cross_entropy(logits, labels, ignored)[0], logits)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-9)


def test_gradients_add_up_until_they_are_set_to_zero() -> None:
    x = spread((2, 4, 4, 1), 0)
    chain = nn.models.build("z_cam", classes=3, dtype=np.float64)
    workspace = nn.Workspace()
    sums = []
    for _ in range(2):
        grad = np.ones_like(chain.forward(x, workspace))
        chain.backward(x, grad, workspace)
        sums.append([p.grad.copy() for p in chain.parameters()])
    for once, twice in zip(*sums, strict=True):
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)
    assert any(np.abs(once).max() > 0 for once in sums[0])
    chain.zero_grad()
    assert not any(p.grad.any() for p in chain.parameters())
