from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core import nn, optim
from spiral_core.arrays import F64, Float
from spiral_core.errors import ArgumentError, NonFiniteError, StateDictError, StateError
from spiral_core.optim import OptimizerMode, ParameterGroup, ZSpaceOptimizer
from spiral_core.optim.riemannian import as_points
from spiral_core.zspace import poincare

DTYPES = [np.float32, np.float64]
MODES = {
    "euclidean": OptimizerMode.euclidean(),
    "realgrad": OptimizerMode.realgrad(0.03),
    "hypergrad": OptimizerMode.hypergrad(-1.3, 0.03),
    "riemannian": OptimizerMode.riemannian(-0.7, 0.03),
}
RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum and decay": {"momentum": 0.8, "weight_decay": 0.01},
    "adam and clipping": {"adam": (0.9, 0.99), "max_norm": 0.5},
}
everywhere = pytest.mark.parametrize("mode", MODES)
every_rule = pytest.mark.parametrize("rule", RULES)
both = pytest.mark.parametrize("dtype", DTYPES)


def network(dtype: type[np.floating] = np.float32) -> nn.Sequential:
    draws = np.random.default_rng(4)
    return nn.Sequential(
        "net",
        [
            nn.Conv2d("conv", 2, 3, generator=draws, dtype=dtype),
            nn.ZSpaceBatchNorm2d("bn", 3, dtype=dtype),
            nn.Flatten("flat", dtype),
            nn.Linear("fc", 48, 4, generator=draws, dtype=dtype),
        ],
    )


def ready(mode: str, rule: str = "plain", dtype: type[np.floating] = np.float32) -> tuple[nn.Sequential, Any]:
    model = network(dtype)
    optimizer = ZSpaceOptimizer(0.1, **RULES[rule])
    optimizer.set_mode(MODES[mode])
    optimizer.prepare_module(model, project=True)
    return model, optimizer


def fill(model: nn.Module, step: int, scale: float = 1.0) -> None:
    draws = np.random.default_rng(step)
    for parameter in model.parameters():
        parameter.grad[...] = scale * draws.standard_normal(parameter.grad.shape)


def bits(model: nn.Module) -> list[bytes]:
    return [parameter.value.tobytes() for parameter in model.parameters()]


@both
@pytest.mark.parametrize("mode", ["euclidean", "realgrad"])
def test_straight_modes_are_descent_and_adam_to_the_last_bit(mode: str, dtype: type[np.floating]) -> None:
    plain: dict[str, Any] = {
        "momentum and decay": lambda p, lr: optim.SGD(p, lr, momentum=0.8, weight_decay=0.01),
        "adam": lambda p, lr: optim.Adam(p, lr, betas=(0.9, 0.99)),
    }
    for rule, options in (("momentum and decay", RULES["momentum and decay"]), ("adam", {"adam": (0.9, 0.99)})):
        ours, theirs = network(dtype), network(dtype)
        optimizer = ZSpaceOptimizer(0.03, **options)
        optimizer.set_mode(MODES[mode])
        optimizer.prepare_module(ours)
        other = plain[rule](theirs.parameters(), 0.03)
        for step in range(5):
            fill(ours, step)
            fill(theirs, step)
            optimizer.step()
            other.step()
        assert bits(ours) == bits(theirs)


@both
def test_a_riemannian_step_is_the_slow_formula_point_by_point(dtype: type[np.floating]) -> None:
    model, optimizer = ready("riemannian", dtype=dtype)
    before = {p.name: p.value.astype(np.float64) for p in model.parameters()}
    fill(model, 1)
    optimizer.step(model)
    s = np.sqrt(0.7)
    for parameter in model.parameters():
        old, grad = before[parameter.name], parameter.grad.astype(np.float64)
        if parameter.name.endswith("weight"):
            expected = np.empty_like(old)
            for j in range(old.shape[-1]):
                x, g = old[..., j].reshape(-1), grad[..., j].reshape(-1)
                factor = 2 / (1 - 0.7 * x @ x)
                v = -0.03 * g / factor**2
                y = np.tanh(s * factor * np.linalg.norm(v) / 2) * v / (s * np.linalg.norm(v))
                below = 1 + 1.4 * x @ y + 0.49 * (x @ x) * (y @ y)
                moved = ((1 + 1.4 * x @ y + 0.7 * y @ y) * x + (1 - 0.7 * x @ x) * y) / below
                expected[..., j] = moved.reshape(old.shape[:-1])
        else:
            expected = old - 0.03 * grad
        tolerance = 2e-4 if dtype is np.float32 else 1e-8  # the initial points are pulled to the margin
        np.testing.assert_allclose(parameter.value, expected, rtol=0, atol=tolerance, err_msg=parameter.name)


@both
@every_rule
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e15]), lr=st.floats(1e-6, 1e3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_points_stay_inside_and_finite_whatever_the_gradient(
    rule: str, dtype: type[np.floating], seed: int, scale: float, lr: float
) -> None:
    model, optimizer = ready("riemannian", rule, dtype)
    optimizer.lr = lr
    for step in range(3):
        fill(model, seed + step, scale)
        optimizer.step(model)
        for parameter in model.parameters():
            if parameter.name.endswith("weight"):
                assert np.isfinite(parameter.value).all()
                assert not poincare.outside(as_points(parameter.value), -0.7).any()


@both
@pytest.mark.parametrize("rule", ["plain", "adam and clipping"])
def test_without_a_gradient_riemannian_weights_keep_every_bit_and_hypergrad_weights_do_not(
    rule: str, dtype: type[np.floating]
) -> None:
    model, optimizer = ready("riemannian", rule, dtype)
    before = bits(model)
    for _ in range(3):
        optimizer.step(model)
    assert bits(model) == before
    # A single point with a gradient moves, and it alone.
    weight = model.parameters()[-2]
    weight.grad[:, 1] = 1.0
    old = weight.value.copy()
    optimizer.step(model)
    assert (weight.value != old).any(axis=0).tolist() == [False, True, False, False]
    model, optimizer = ready("hypergrad", rule, dtype)
    optimizer.step(model)
    assert bits(model) != before


def test_points_outside_are_refused_by_name_or_projected_on_request() -> None:
    model = network()
    model.parameters()[-2].value[:, 2] = 1.0
    model.parameters()[0].value *= 1e-3
    optimizer = ZSpaceOptimizer(0.1)
    optimizer.set_mode(OptimizerMode.riemannian(-1e-2))
    before = bits(model)
    optimizer.prepare_module(model)
    assert bits(model) == before
    optimizer.set_mode(OptimizerMode.riemannian(-1.0))
    with pytest.raises(ArgumentError, match=r"ball of radius 1: fc.weight \(points .*2.*project=True"):
        optimizer.prepare_module(model)
    assert bits(model) == before
    with pytest.raises(StateError, match="not prepared"):
        optimizer.step(model)
    optimizer.prepare_module(model, project=True)
    optimizer.step(model)
    model.parameters()[-2].value[0, 1] = 3.0
    kept = bits(model)
    with pytest.raises(StateError, match=r"fc.weight \(points 1\)"):
        optimizer.step(model)
    assert bits(model) == kept


@pytest.mark.parametrize("mode", ["hypergrad", "riemannian"])
def test_norms_and_biases_take_straight_steps_unless_told_otherwise(mode: str) -> None:
    model, optimizer = ready(mode)
    before = {p.name: p.value.copy() for p in model.parameters()}
    fill(model, 1)
    optimizer.step(model)
    for parameter in model.parameters():
        straight = before[parameter.name] - np.float32(0.03) * parameter.grad
        same = np.allclose(parameter.value, straight, rtol=0, atol=1e-7)
        assert same == parameter.name.endswith(("gamma", "beta", "bias")), parameter.name
    layer = nn.Linear("fc", 2, 2)
    optimizer = ZSpaceOptimizer(0.1, groups=(ParameterGroup(("weight",), hyperbolic=False),))
    optimizer.set_mode(OptimizerMode.hypergrad(-4.0))
    optimizer.prepare_module(layer)
    weight, layer.bias.value[:] = layer.weight.value.copy(), 0.5
    optimizer.step(layer)
    np.testing.assert_array_equal(layer.weight.value, weight)
    assert (layer.bias.value < 0.5).all()


def test_a_group_has_its_own_decay() -> None:
    layer = nn.Linear("fc", 2, 2)
    layer.bias.value[:] = 1.0
    optimizer = ZSpaceOptimizer(0.1, weight_decay=0.5, groups=(ParameterGroup(("bias",), weight_decay=0.0),))
    before = layer.weight.value.copy()
    optimizer.step(layer)
    np.testing.assert_allclose(layer.weight.value, 0.95 * before, rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.value, 1.0)


def test_a_change_of_mode_detaches_the_tape_and_carries_the_rate() -> None:
    model, optimizer = ready("realgrad")
    fill(model, 1)
    optimizer.accumulate(model)
    assert not any(p.grad.any() for p in model.parameters())
    assert any(name.startswith("tape.") for name in optimizer.slots())
    optimizer.set_mode(OptimizerMode.euclidean())
    assert optimizer.lr == 0.03
    before = bits(model)
    optimizer.step(model)
    assert bits(model) == before
    assert not any(name.startswith("tape.") for name in optimizer.slots())
    optimizer.set_mode(OptimizerMode.hypergrad(-1.0, 0.2))
    assert (optimizer.lr, optimizer.fallback_learning_rate) == (0.2, 0.03)
    optimizer.lr = 0.3
    assert (optimizer.lr, optimizer.mode.curvature) == (0.3, -1.0)


def test_a_steered_rate_acts_at_the_next_step_in_every_mode() -> None:
    for mode in ("euclidean", "realgrad", "riemannian"):
        moved = []
        for rate in (1e-6, 2e-6):
            model, optimizer = ready(mode, dtype=np.float64)
            weight = model.parameters()[-2]
            weight.value *= 0.5
            before = weight.value.copy()
            optimizer.lr = rate
            fill(model, 1)
            optimizer.step()
            moved.append(weight.value - before)
        np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=2e-3)


@everywhere
@every_rule
def test_a_saved_state_continues_to_the_last_bit(mode: str, rule: str) -> None:
    whole, optimizer = ready(mode, rule)
    part, first = ready(mode, rule)
    for step in range(6):
        fill(whole, step)
        optimizer.step()
    for step in range(3):
        fill(part, step)
        first.step()
    fill(part, 3)
    if mode == "realgrad" and rule == "plain":
        first.accumulate()
    state, values = first.state_dict(), part.state_dict()
    first.set_mode(OptimizerMode.euclidean())
    again = network()
    again.load_state_dict(values)
    resumed = ZSpaceOptimizer(9.0, **RULES[rule])
    resumed.prepare_module(again)
    resumed.load_state_dict(state)
    assert (resumed.mode, resumed.lr) == (optimizer.mode, optimizer.lr)
    for step in range(3, 6):
        if not (mode == "realgrad" and rule == "plain" and step == 3):
            fill(again, step)
        resumed.step()
    assert bits(again) == bits(whole)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("mode", np.array(7), "mode"),
        ("curvature", np.array(1.0), "curvature"),
        ("lr", np.array(np.nan), "lr"),
        ("ratio", np.array(-1.0), "ratio"),
        ("velocity.fc.bias", np.zeros(3, np.float32), "velocity.fc.bias"),
        ("velocity.fc.bias", np.full(4, np.nan, np.float32), "not finite"),
        ("more", np.zeros(1), "more"),
        ("mode_lr", None, "mode_lr"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(name: str, value: Any, named: str) -> None:
    model, optimizer = ready("hypergrad", "momentum and decay")
    fill(model, 1)
    optimizer.step()
    state = {key: np.asarray(array * 2, array.dtype) for key, array in optimizer.state_dict().items()}
    state["mode"], state["mode_lr"] = np.array(2), np.array(0.5)
    before = {key: array.tobytes() for key, array in optimizer.state_dict().items()}
    bad = {**state, name: value}
    if value is None:
        del bad[name]
    with pytest.raises(StateDictError, match=named):
        optimizer.load_state_dict(bad)
    assert {key: array.tobytes() for key, array in optimizer.state_dict().items()} == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mode", ["hypergrad", "riemannian"])
def test_a_gradient_that_is_not_finite_changes_nothing_in_a_hyperbolic_step(mode: str, bad: float) -> None:
    model, optimizer = ready(mode, "momentum and decay")
    fill(model, 1)
    model.parameters()[-2].grad[3, 2] = bad
    before, state = bits(model), {k: v.tobytes() for k, v in optimizer.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"fc.weight"):
        optimizer.step(model)
    assert bits(model) == before
    assert {k: v.tobytes() for k, v in optimizer.state_dict().items()} == state


def test_clipping_bounds_the_norm_and_leaves_small_and_non_finite_gradients_alone() -> None:
    model = network()
    fill(model, 1)
    before = [p.grad.copy() for p in model.parameters()]
    norm = optim.clip_gradient_norm(model.parameters(), 1e6)
    assert all((p.grad == g).all() for p, g in zip(model.parameters(), before, strict=True))
    assert optim.clip_gradient_norm(model.parameters(), 0.5) == norm
    assert optim.gradient_norm(model.parameters()) == pytest.approx(0.5, rel=1e-6)
    model.parameters()[0].grad[0, 0, 0, 0] = np.inf
    kept = model.parameters()[1].grad.copy()
    assert optim.clip_gradient_norm(model.parameters(), 0.1) == np.inf
    np.testing.assert_array_equal(model.parameters()[1].grad, kept)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="max_norm"):
            optim.clip_gradient_norm(model.parameters(), wrong)
        with pytest.raises(ArgumentError, match="max_norm"):
            ZSpaceOptimizer(0.1, max_norm=wrong)


@pytest.mark.parametrize("wrong", [0.0, 1.0, np.nan, -np.inf])
def test_a_curvature_that_cannot_be_is_refused_when_the_mode_is_made(wrong: float) -> None:
    for make in (OptimizerMode.hypergrad, OptimizerMode.riemannian):
        with pytest.raises(ArgumentError, match="curvature"):
            make(wrong, 0.1)
        with pytest.raises(ArgumentError, match="lr"):
            make(-1.0, 0.0)


@pytest.mark.parametrize(
    "options", [{"momentum": 1.0}, {"adam": (0.9, 1.0)}, {"eps": 0.0}, {"weight_decay": -1.0}, {"lr": np.nan}]
)
def test_an_option_that_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        ZSpaceOptimizer(**{"lr": 0.1, **options})


def tree_distances(depth: int) -> F64:
    nodes = range(1, 2 ** (depth + 1))
    paths = [[n >> k for k in range(n.bit_length())] for n in nodes]
    return np.array(
        [
            [next(i for i, p in enumerate(a) if p in b) + next(i for i, p in enumerate(b) if p in a) for b in paths]
            for a in paths
        ],
        float,
    )


def stress(x: F64, wanted: F64) -> tuple[float, F64]:
    """Mean squared error of the distances of all pairs in the unit ball, and its gradient."""
    gap = x[:, :, None] - x[:, None, :]
    square = (gap**2).sum(0)
    left = 1 - (x**2).sum(0)
    z = 1 + 2 * square / (left[:, None] * left[None, :])
    error = np.arccosh(z) - wanted
    np.fill_diagonal(error, 0)
    slope = error / np.sqrt(np.where(z > 1, z * z - 1, 1)) * 4 / wanted.size
    core = slope * 4 / (left[:, None] * left[None, :])
    grad = (core[None] * (gap + square[None] * x[:, :, None] / left[:, None])).sum(2)
    return float((error**2).mean()), grad


def test_a_tree_is_embedded_better_on_the_ball_than_straight_each_at_its_best_rate() -> None:
    wanted = tree_distances(4)
    start = np.random.default_rng(0).standard_normal((2, len(wanted))) * 0.1
    step = 1e-6
    moved = start.copy()
    moved[1, 3] += step
    assert stress(start, wanted)[1][1, 3] == pytest.approx(
        (stress(moved, wanted)[0] - stress(start, wanted)[0]) / step, rel=1e-3
    )
    # The grid reaches far enough that both have their best rate inside it.
    best: dict[str, float] = {}
    for name in ("euclidean", "riemannian"):
        for rate in 10.0 ** np.linspace(-4, 1, 7):
            layer = nn.Linear("tree", 2, len(wanted), dtype=np.float64)
            layer.weight.value[...] = start
            optimizer = ZSpaceOptimizer(float(rate))
            optimizer.set_mode(OptimizerMode.euclidean() if name == "euclidean" else OptimizerMode.riemannian(-1.0))
            optimizer.prepare_module(layer)
            for _ in range(300):
                loss, layer.weight.grad[...] = stress(layer.weight.value, wanted)
                optimizer.step(layer)
                # Straight steps may leave the ball: they are given the projection for free.
                layer.weight.value[...] = poincare.project_inside(layer.weight.value, -1.0)
            loss, _ = stress(layer.weight.value, wanted)
            best[name] = min(best.get(name, np.inf), loss)
    assert best["riemannian"] < 0.8 * best["euclidean"]


def test_distances_in_a_small_tree() -> None:
    value: Float = tree_distances(1)
    assert value.tolist() == [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
