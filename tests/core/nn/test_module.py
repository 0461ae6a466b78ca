from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spiral_core import kernels, nn
from spiral_core.errors import ArgumentError, DtypeError, ShapeError, StateDictError, StateError

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[tuple[int, ...]]]] = {
    # A layer, a shape that it takes, and shapes that it does not.
    "Linear": (lambda: nn.Linear("it", 3, 2), (4, 3), [(4, 2), (3,), (4, 1, 3), (0, 3)]),
    "Flatten": (lambda: nn.Flatten("it"), (4, 3, 2), [(4,), (0, 3)]),
    "Conv2d": (lambda: nn.Conv2d("it", 2, 3, padding=(0, 0)), (2, 4, 4, 2), [(2, 4, 4, 3), (4, 4, 2), (2, 2, 4, 2)]),
    "MaxPool2d": (lambda: nn.MaxPool2d("it", (3, 3)), (2, 4, 4, 2), [(4, 4, 2), (2, 2, 4, 2), (0, 4, 4, 2)]),
    "AvgPool2d": (lambda: nn.AvgPool2d("it", (3, 3)), (2, 4, 4, 2), [(4, 4, 2), (2, 2, 4, 2), (0, 4, 4, 2)]),
    "GlobalAveragePool2d": (lambda: nn.GlobalAveragePool2d("it"), (2, 4, 4, 2), [(4, 4, 2)]),
    "Lstm": (lambda: nn.Lstm("it", 3, 4), (5, 2, 3), [(5, 2, 2), (3,), (5, 0, 3), (0, 3), (5, 2, 1, 3)]),
    "Tanh": (lambda: nn.Tanh("it"), (3, 2), [(0, 2)]),
    "GELU": (lambda: nn.GELU("it"), (3, 2), [(0, 2)]),
    "ReLU": (lambda: nn.ReLU("it"), (3, 2), [(0, 2)]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d("it", 3), (4, 3), [(4, 2), (4, 1, 3), (0, 3)]),
    "BatchNorm2d": (lambda: nn.BatchNorm2d("it", 3), (2, 4, 4, 3), [(4, 3), (2, 4, 4, 2)]),
    "LayerNorm": (lambda: nn.LayerNorm("it", 3), (4, 3), [(4, 2), (3,), (0, 3), (2, 3, 4)]),
    "ZSpaceLayerNorm": (lambda: nn.ZSpaceLayerNorm("it", 3), (5, 4, 3), [(4, 2), (3,), (0, 3)]),
    "ZSpaceBatchNorm1d": (lambda: nn.ZSpaceBatchNorm1d("it", 3), (4, 3), [(4, 2), (4, 1, 3), (0, 3)]),
    "ZSpaceBatchNorm2d": (lambda: nn.ZSpaceBatchNorm2d("it", 3), (2, 4, 4, 3), [(4, 3), (2, 4, 4, 2)]),
}


def everything(module: nn.Module) -> list[bytes]:
    return [array.tobytes() for array in module.state_dict().values()] + [p.grad.tobytes() for p in module.parameters()]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_wrong_shape_or_dtype_is_refused_by_the_layers_name_and_changes_nothing(kind: str) -> None:
    build, good, bad = LAYERS[kind]
    layer, workspace = build(), nn.Workspace()
    x = np.ones(good, np.float32)
    out = layer.forward(x, workspace)
    before = everything(layer)
    for shape in bad:
        with pytest.raises(ShapeError, match=r"^it: "):
            layer.forward(np.ones(shape, np.float32), workspace)
        with pytest.raises(ShapeError, match=r"^it: "):
            layer.backward(np.ones(shape, np.float32), out, workspace)
    for dtype in (np.float64, np.int64, np.float16):
        with pytest.raises(DtypeError, match=r"^it: input must be float32"):
            layer.forward(np.ones(good, dtype), workspace)
        with pytest.raises(DtypeError, match=r"^it: grad must be float32"):
            layer.backward(x, np.ones(out.shape, dtype), workspace)
    with pytest.raises(DtypeError, match=r"^it: input must be a NumPy array, got list"):
        layer.forward([[1.0]], workspace)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^it: grad must have the output's shape"):
        layer.backward(x, np.ones((*out.shape, 1), np.float32), workspace)
    assert everything(layer) == before


def specialisations() -> int:
    return sum(len(entry.dispatcher.signatures) for entry in kernels.registered().values())


@pytest.mark.parametrize("kind", LAYERS)
def test_arrays_that_are_strided_or_read_only_give_the_same_as_plain_ones(kind: str) -> None:
    build, good, _ = LAYERS[kind]
    layer = build()
    x = np.random.default_rng(0).standard_normal(good).astype(np.float32)
    grad = np.random.default_rng(1).standard_normal(layer.output_shape(good)).astype(np.float32)

    def passes(x: np.ndarray, grad: np.ndarray) -> list[bytes]:
        workspace = nn.Workspace(accumulate=False)
        out = layer.forward(x, workspace).tobytes()
        return [out, layer.backward(x, grad, workspace).tobytes()]

    plain = passes(x, grad)
    compiled = specialisations()
    assert passes(np.asfortranarray(x), np.asfortranarray(grad)) == plain
    x.flags.writeable = grad.flags.writeable = False
    assert passes(x, grad) == plain
    # Another kind of array would otherwise be compiled for in the middle of training.
    assert specialisations() == compiled


@pytest.mark.parametrize("kind", ["MaxPool2d", "Lstm", *(kind for kind in LAYERS if "Norm" in kind)])
def test_layers_that_need_a_forward_pass_say_so(kind: str) -> None:
    build, good, _ = LAYERS[kind]
    layer = build()
    x = np.ones(good, np.float32)
    grad = np.ones(layer.output_shape(good), np.float32)
    with pytest.raises(StateError, match=r"^it: .*forward"):
        layer.backward(x, grad, nn.Workspace())
    workspace = nn.Workspace()
    layer.forward(x, workspace)
    with pytest.raises(StateError, match=r"^it: .*forward"):
        layer.backward(x[:1], grad[:1], workspace)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: nn.Linear("it", 0, 2), "in_features"),
        (lambda: nn.Linear("it", 2, True), "out_features"),
        (lambda: nn.Linear("", 2, 2), "name"),
        (lambda: nn.Linear("it", 2, 2, dtype=np.float16), "float16"),
        (lambda: nn.Conv2d("it", 1, 2.0), "out_channels"),  # type: ignore[arg-type]
        (lambda: nn.Conv2d("it", 1, 2, (3, 0)), "kernel_size"),
        (lambda: nn.Conv2d("it", 1, 2, 3), "kernel_size"),  # type: ignore[arg-type]
        (lambda: nn.Conv2d("it", 1, 2, stride=(1, 0)), "stride"),
        (lambda: nn.Conv2d("it", 1, 2, stride=(1, True)), "stride"),
        (lambda: nn.Conv2d("it", 1, 2, padding=(-1, 0)), "padding"),
        (lambda: nn.Conv2d("it", 1, 2, dilation=(1, 1, 1)), "dilation"),  # type: ignore[arg-type]
        (lambda: nn.MaxPool2d("it", (17, 16)), "kernel_size"),
        (lambda: nn.MaxPool2d("it", (2, 2), padding=(2, 0)), "padding"),
        (lambda: nn.BatchNorm1d("it", 0), "it: features"),
        (lambda: nn.BatchNorm2d("it", 2, np.nan), "it: momentum must be finite and >= 0 and <= 1"),
        (lambda: nn.BatchNorm1d("it", 2, "much"), "momentum"),  # type: ignore[arg-type]
        (lambda: nn.BatchNorm1d("it", 2, 0.1, 0), "it: epsilon must be finite and > 0"),
        (lambda: nn.LayerNorm("it", 2.5), "it: features"),  # type: ignore[arg-type]
        (lambda: nn.LayerNorm("it", 2, 1.0), "curvature must be finite and < 0"),
        (lambda: nn.LayerNorm("it", 2, -1.0, -1e-5), "it: epsilon"),
        (lambda: nn.ZSpaceLayerNorm("it", 2, 0.0), "curvature"),
        (lambda: nn.ZSpaceLayerNorm("it", 2, -1.0, np.inf), "it: epsilon"),
        (lambda: nn.ZSpaceLayerNorm("it", 2, projector_gain=-0.1), "gain"),
        (lambda: nn.AvgPool2d("it", (2, 2), padding=(0, 2)), "padding"),
        (lambda: nn.AvgPool2d("it", (2, 0)), "kernel_size"),
        (lambda: nn.GELU("it", approximate="erf"), "approximate"),  # type: ignore[arg-type]
        (lambda: nn.Lstm("it", 0, 2), "in_features"),
        (lambda: nn.Lstm("it", 2, 0), "hidden"),
        (lambda: nn.Lstm("it", 2, 2, init="zeros"), "init"),  # type: ignore[arg-type]
        (lambda: nn.Linear("it", 2, 2, init="zeros"), "it: init must be one of he_normal, ramp"),  # type: ignore[arg-type]
        (lambda: nn.Conv2d("it", 2, 2, init="zeros"), "it: init must be one of he_normal, ramp"),  # type: ignore[arg-type]
        (lambda: nn.ZSpaceBatchNorm1d("it", 0), "features"),
        (lambda: nn.ZSpaceBatchNorm1d("it", 2, 0.0), "curvature"),
        (lambda: nn.ZSpaceBatchNorm1d("it", 2, -1.0, 1.5), "momentum"),
        (lambda: nn.ZSpaceBatchNorm1d("it", 2, -1.0, 0.1, 0.0), "epsilon"),
        (lambda: nn.ZSpaceBatchNorm1d("it", 2, -1.0, 0.1, np.nan), "epsilon"),
        (lambda: nn.ZSpaceBatchNorm1d("it", 2, projector_gain=1.1), "gain"),
        (lambda: nn.models.build("z_net", classes=2), "z_cam, z_cnn, z_mlp, z_lstm"),
        (lambda: nn.models.build("z_cnn", classes=2, image=(28, 30)), "image"),
        (lambda: nn.models.build("z_cam", classes=0), "out_features"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_by_name(build: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        build()


def damaged(state: dict[str, Any], damage: str) -> dict[str, Any]:
    """Spoil the last entry that can be spoilt so; all before it are good and different."""
    bad: dict[str, Any] = {
        "missing": {name: array for name, array in state.items() if name != "zbn3.running_var"},
        "unknown": {**state, "zbn3.running_median": np.zeros(32, np.float32)},
        "shape": {**state, "head.bias": np.zeros(5, np.float32)},
        "dtype": {**state, "head.bias": np.zeros(4)},
        "nan": {**state, "head.bias": np.array([0, np.nan, 0, 0], np.float32)},
        "infinity": {**state, "head.weight": np.full((32, 4), np.inf, np.float32)},
        "variance": {**state, "zbn3.running_var": np.full(32, -1e-9, np.float32)},
        "gain": {**state, "zbn3.projector_gain": np.array(1.01)},
        "curvature": {**state, "zbn3.curvature": np.array(0.0)},
    }
    return dict(bad[damage])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("missing", "zbn3.running_var"),
        ("unknown", "zbn3.running_median"),
        ("shape", r"head.bias: shape must be \(4,\)"),
        ("dtype", "head.bias: dtype must be float32"),
        ("nan", "head.bias: .*not finite"),
        ("infinity", "head.weight: .*not finite"),
        ("variance", "zbn3.running_var: .*negative"),
        ("gain", "zbn3.projector_gain: .*gain"),
        ("curvature", "zbn3.curvature: .*curvature"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_entry_and_nothing_is_loaded(damage: str, named: str) -> None:
    model = nn.models.build("z_cam", classes=4)
    state = {name: (array * 0.5).astype(array.dtype) for name, array in model.state_dict().items()}
    before = everything(model)
    with pytest.raises(StateDictError, match=named):
        model.load_state_dict(damaged(state, damage))
    assert everything(model) == before
    model.load_state_dict(state)
    assert everything(model) != before


def test_a_state_dict_brings_back_everything_learnt_and_shares_no_memory() -> None:
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)
    model = nn.models.build("z_cam", classes=4, generator=np.random.default_rng(1))
    norm = model.layer("zbn2")
    assert isinstance(norm, nn.ZSpaceBatchNorm2d)
    norm.set_projector_gain(0.25)
    norm.set_curvature(-2.5)
    model.forward(x)
    state = model.state_dict()
    assert not any(np.shares_memory(array, p.value) for array in state.values() for p in model.parameters())
    other = nn.models.build("z_cam", classes=4)
    other.load_state_dict(state)
    model.eval()
    other.eval()
    assert other.forward(x).tobytes() == model.forward(x).tobytes()
    norm = other.layer("zbn2")
    assert isinstance(norm, nn.ZSpaceBatchNorm2d)
    assert (norm.projector_gain, norm.curvature) == (0.25, -2.5)


def test_loading_leaves_gradients_as_they_are() -> None:
    layer = nn.Linear("l", 2, 2)
    layer.weight.grad[:] = 3
    layer.load_state_dict(layer.state_dict())
    assert (layer.weight.grad == 3).all()


def test_weights_depend_on_the_generator_or_else_on_the_name() -> None:
    def weights(name: str, seed: int | None, dtype: type[np.floating] = np.float32) -> np.ndarray:
        generator = None if seed is None else np.random.default_rng(seed)
        return nn.Linear(name, 300, 40, generator=generator, dtype=dtype).weight.value

    np.testing.assert_array_equal(weights("a", None), weights("a", None))
    np.testing.assert_array_equal(weights("a", 1), weights("b", 1))
    assert (weights("a", None) != weights("b", None)).any()
    assert weights("a", 1).std() == pytest.approx((2 / 300) ** 0.5, rel=0.03)
    np.testing.assert_array_equal(weights("a", 1), weights("a", 1, np.float64).astype(np.float32))


def test_a_model_names_each_kernel_that_it_runs_once() -> None:
    names = nn.models.build("z_cnn", classes=2).kernels()
    assert len(set(names)) == len(names)
    assert {"convolve", "znorm", "rectify", "max_pool", "max_pool_backward"} <= set(names)
