"""The norms of rows and of strips that work on pairs of vectors, beyond what the slow twins say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from spiral_core import kernels, nn
from spiral_core.arrays import Float
from spiral_core.errors import StateError
from spiral_core.kernels.rownorm import ROWS
from spiral_core.kernels.stripwise import LEAST_CHANNELS, MOST_ROWS, STRIP, strips
from spiral_core.kernels.vector import PAIR

Norm = nn.ZSpaceLayerNorm | nn.ZSpaceBatchNorm1d
CHANNELS = LEAST_CHANNELS + STRIP + PAIR
"""The last strip holds one pair."""

KINDS: list[Callable[..., Norm]] = [nn.ZSpaceLayerNorm, nn.ZSpaceBatchNorm1d]


def drawn(rows: int, dtype: type[np.floating] = np.float32) -> tuple[Float, Float]:
    draws = np.random.default_rng(rows)
    x, grad = draws.standard_normal((2, rows, CHANNELS))
    return (2 * x + 1).astype(dtype), grad.astype(dtype)


def everything(layer: Norm, x: Float, grad: Float, workspace: nn.Workspace) -> dict[str, Float]:
    """Run forward and backward; give all that they leave behind."""
    found = {"out": layer.forward(x, workspace).copy()}
    found["grad x"] = layer.backward(x, grad, workspace).copy()
    found |= {parameter.name: parameter.grad.copy() for parameter in layer.parameters()}
    found |= {name: values.copy() for name, values in layer.buffers().items()}
    whole, seen = layer.telemetry(workspace), layer.observe(workspace)
    names = ("mean", "inv_std", "normed", "projected", "jacobian", "radius", "blended_radius", "conformal")
    found |= {name: getattr(whole, name) for name in names}
    found["features"] = seen.feature_radius
    found["seen"] = np.array([seen.radius_p05, seen.radius_p95, seen.saturation, seen.blended_mean, seen.jacobian_mean])
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, ROWS + 1, 3 * ROWS])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_same_to_the_last_bit_for_one_thread_and_for_more(
    kind: Callable[..., Norm], rows: int, dtype: type[np.floating]
) -> None:
    x, grad = drawn(rows, dtype)
    passes = []
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        passes.append(everything(kind("z", CHANNELS, projector_gain=0.7, dtype=dtype), x, grad, nn.Workspace()))
    for other in passes[1:]:
        for name, values in passes[0].items():
            assert values.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_observed_are_the_means_over_all_elements(kind: Callable[..., Norm]) -> None:
    x, _ = drawn(50)
    layer, workspace = kind("z", CHANNELS, -4.0, projector_gain=0.35), nn.Workspace()
    layer.forward(x, workspace)
    whole, seen = layer.telemetry(workspace), layer.observe(workspace)
    n = whole.normed.astype(np.float64)
    t = np.abs(np.tanh(2 * n))
    exact = {"rel": 2e-6}
    assert seen.radius_mean == pytest.approx(t.mean() / 2, **exact)
    assert seen.blended_mean == pytest.approx((0.65 * np.abs(n) + 0.35 * t / 2).mean(), **exact)
    assert seen.jacobian_mean == pytest.approx(1 - 0.35 * (t * t).mean(), **exact)
    assert seen.saturation == pytest.approx((t > 0.99).mean(), abs=1e-3)
    assert seen.saturation > 0.1
    np.testing.assert_allclose(seen.feature_radius, t.mean(axis=0), rtol=2e-6)
    across = t.mean(axis=1 if kind is nn.ZSpaceLayerNorm else 0) / 2
    np.testing.assert_allclose(whole.radius, across, rtol=2e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0, 10_000.0])
def test_statistics_are_taken_in_two_passes(offset: float) -> None:
    # E[x^2] - E[x]^2 in float32 would lose everything at offset 10,000.
    x = (np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)) + offset).astype(np.float32)
    wide = x.astype(np.float64)
    for kind, axis, added in ((nn.ZSpaceLayerNorm, 1, 1.1e-5), (nn.ZSpaceBatchNorm1d, 0, 1e-5)):
        layer = kind("z", CHANNELS)
        layer.forward(x)
        seen = layer.telemetry()
        np.testing.assert_allclose(seen.mean, wide.mean(axis=axis), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(seen.inv_std, (wide.var(axis=axis) + added) ** -0.5, rtol=1e-6)


def test_a_row_far_from_zero_loses_only_what_its_own_rounding_lost() -> None:
    x = (np.random.default_rng(0).standard_normal((5, CHANNELS)) + 10_000).astype(np.float32)
    wide = x.astype(np.float64)
    centered = wide - wide.mean(axis=1, keepdims=True)
    n = centered / np.sqrt(wide.var(axis=1, keepdims=True) + 1.1e-5)
    layer = nn.ZSpaceLayerNorm("z", CHANNELS)
    np.testing.assert_allclose(layer.forward(x), np.tanh(n), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, -12_345.678, 1e30])
def test_an_input_without_variance_gives_nothing_and_no_nan(value: float) -> None:
    x = np.full((ROWS, CHANNELS), value, np.float32)
    for layer in (nn.ZSpaceLayerNorm("z", CHANNELS, epsilon=1e-30), nn.ZSpaceBatchNorm1d("z", CHANNELS)):
        whole = everything(layer, x, np.ones_like(x), nn.Workspace())
        assert all(np.isfinite(values).all() for values in whole.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_stays_in_its_row_or_its_channel(value: float) -> None:
    x, grad = drawn(ROWS + 2)
    x[1, 40] = value
    for layer, place in (
        (nn.ZSpaceLayerNorm("z", CHANNELS), (1, ...)),
        (nn.ZSpaceBatchNorm1d("z", CHANNELS), (..., 40)),
    ):
        expected = np.zeros(x.shape, bool)
        expected[place] = True
        workspace = nn.Workspace()
        np.testing.assert_array_equal(np.isnan(layer.forward(x, workspace)), expected)
        np.testing.assert_array_equal(np.isnan(layer.backward(x, grad, workspace)), expected)
        assert np.isnan(layer.telemetry(workspace).radius).sum() == 1
        assert np.isnan(layer.observe(workspace).blended_mean)
        assert np.isnan(layer.gamma.grad).sum() == expected.any(axis=0).sum()
        assert np.isfinite(layer.beta.grad).all()
    # The running statistics do not follow a batch that has none.
    assert isinstance(layer, nn.ZSpaceBatchNorm1d)
    np.testing.assert_array_equal(layer.running_mean, np.zeros(CHANNELS))
    np.testing.assert_array_equal(layer.running_var, np.ones(CHANNELS))


def test_in_evaluation_a_nan_stays_where_it_is_and_the_running_statistics_stay() -> None:
    x, _ = drawn(5)
    x[1, 40] = np.nan
    layer = nn.ZSpaceBatchNorm1d("z", CHANNELS)
    out = layer.forward(x, nn.Workspace(training=False))
    assert np.argwhere(np.isnan(out)).tolist() == [[1, 40]]
    np.testing.assert_array_equal(layer.running_var, np.ones(CHANNELS))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_added_up_and_left_alone_where_that_is_asked_for(kind: Callable[..., Norm]) -> None:
    x, grad = drawn(ROWS + 1)
    layer, workspace = kind("z", CHANNELS), nn.Workspace()
    layer.forward(x, workspace)
    grad_x = layer.backward(x, grad, workspace).copy()
    once = layer.gamma.grad.copy(), layer.beta.grad.copy()
    layer.backward(x, grad, workspace)
    np.testing.assert_array_equal(layer.gamma.grad, 2 * once[0])
    np.testing.assert_array_equal(layer.beta.grad, 2 * once[1])
    probe = nn.Workspace(accumulate=False)
    layer.forward(x, probe)
    np.testing.assert_array_equal(layer.backward(x, grad, probe), grad_x)
    np.testing.assert_array_equal(layer.gamma.grad, 2 * once[0])
    layer.zero_grad()
    assert layer.backward_in(x, grad, workspace, input_grad=False) is None
    np.testing.assert_array_equal(layer.gamma.grad, once[0])
    np.testing.assert_array_equal(layer.beta.grad, once[1])


@pytest.mark.parametrize("kind", KINDS)
def test_telemetry_of_an_input_that_has_changed_is_refused_and_the_curves_stay(kind: Callable[..., Norm]) -> None:
    x, _ = drawn(ROWS)
    layer, workspace = kind("z", CHANNELS), nn.Workspace()
    layer.forward(x, workspace)
    before = layer.observe(workspace).radius_p50
    x[3, 4] += 0.5
    with pytest.raises(StateError, match=r"z: the input has changed .*copy"):
        layer.telemetry(workspace)
    assert layer.observe(workspace).radius_p50 == before


def test_a_matrix_is_cut_into_strips_where_it_has_many_channels_and_not_too_many_rows() -> None:
    assert strips(1, LEAST_CHANNELS) == 2
    assert strips(MOST_ROWS, LEAST_CHANNELS + PAIR) == 3
    assert strips(MOST_ROWS + 1, LEAST_CHANNELS) == 0
    assert strips(1, LEAST_CHANNELS - PAIR) == strips(1, LEAST_CHANNELS + 1) == 0


def test_strips_and_rows_give_the_same_within_rounding() -> None:
    x, grad = drawn(MOST_ROWS + 1)
    found = []
    for rows in (MOST_ROWS, MOST_ROWS + 1):
        layer = nn.ZSpaceBatchNorm1d("z", CHANNELS, projector_gain=0.5)
        layer.running_mean[:], layer.running_var[:] = 0.5, 3.0
        found.append(everything(layer, x[:rows].copy(), grad[:rows].copy(), nn.Workspace(training=False)))
    for name in ("out", "grad x", "normed", "projected", "jacobian"):
        np.testing.assert_allclose(found[0][name], found[1][name][:MOST_ROWS], rtol=0, atol=2e-6)


def test_the_layers_name_the_kernels_that_they_run() -> None:
    for layer in (nn.LayerNorm("l", 48), nn.LayerNorm("l", 64), nn.BatchNorm1d("b", 24), nn.BatchNorm1d("b", CHANNELS)):
        x = np.zeros((2, layer.features), np.float32)
        ran = []
        before = kernels.run
        try:
            kernels.run = lambda one, *args, ran=ran, before=before: (ran.append(one.__name__), before(one, *args))[1]
            layer.forward(x)
            layer.backward(x, x)
        finally:
            kernels.run = before
        assert ran
        assert set(ran) <= set(layer.kernels())
        assert set(layer.kernels()) <= set(kernels.registered())
