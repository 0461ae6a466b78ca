from __future__ import annotations

import numpy as np
import pytest

from spiral_core import nn
from spiral_core.arrays import Float
from spiral_core.errors import ArgumentError, StateDictError, StateError
from spiral_core.nn.observation import QUANTILE_SAMPLE, _stride
from spiral_core.zspace import conformal_factor


@pytest.fixture
def x() -> Float:
    return np.random.default_rng(0).standard_normal((16, 14, 14, 24)).astype(np.float32) * 2 + 1


def passed(x: Float, curvature: float, gain: float) -> tuple[nn.ZSpaceBatchNorm2d, nn.Workspace]:
    layer, workspace = nn.ZSpaceBatchNorm2d("z", x.shape[3], curvature, projector_gain=gain), nn.Workspace()
    layer.forward(x, workspace)
    return layer, workspace


@pytest.mark.parametrize("gain", [0.0, 0.35, 1.0])
@pytest.mark.parametrize("curvature", [-0.25, -1.0, -9.0])
def test_what_is_observed_are_the_means_over_all_elements(x: Float, curvature: float, gain: float) -> None:
    layer, workspace = passed(x, curvature, gain)
    seen, whole = layer.observe(workspace), layer.telemetry(workspace)
    s = (-curvature) ** 0.5
    n = whole.normed.astype(np.float64)
    t = np.tanh(s * n)
    exact = {"rel": 1e-6}
    assert seen.radius_mean == pytest.approx(np.abs(t).mean() / s, **exact)
    assert seen.radius_rel_mean == pytest.approx(np.abs(t).mean(), **exact)
    assert seen.blended_mean == pytest.approx(np.abs((1 - gain) * n + gain * t / s).mean(), **exact)
    assert seen.jacobian_mean == pytest.approx(((1 - gain) + gain * (1 - t * t)).mean(), **exact)
    assert seen.saturation == pytest.approx((np.abs(t) > 0.99).mean(), abs=1e-4)
    assert seen.conformal_mean == pytest.approx(2 / (1 - np.abs(t).mean() ** 2), rel=1e-5)
    np.testing.assert_allclose(seen.feature_radius, np.abs(t).mean(axis=0), rtol=2e-6)
    assert (seen.curvature, seen.gain) == (curvature, gain)


@pytest.mark.parametrize("curvature", [-0.25, -1.0, -9.0])
def test_observed_quantiles_are_those_of_all_elements_within_sampling_error(x: Float, curvature: float) -> None:
    layer, workspace = passed(x, curvature, 0.8)
    seen, whole = layer.observe(workspace), layer.telemetry(workspace)
    s = (-curvature) ** 0.5
    relative = np.abs(np.tanh(s * whole.normed.astype(np.float64)))
    jacobian = whole.jacobian
    # Three standard deviations of the rank of a quantile among 4,096 draws are 0.023 at most.
    for quantile, value in ((0.05, seen.radius_rel_p05), (0.5, seen.radius_rel_p50), (0.95, seen.radius_rel_p95)):
        assert np.mean(relative < value) == pytest.approx(quantile, abs=0.023)
    assert np.mean(jacobian < seen.jacobian_p05) == pytest.approx(0.05, abs=0.023)
    assert seen.radius_p95 == pytest.approx(seen.radius_rel_p95 / s)
    assert seen.radius_p50 == pytest.approx(seen.radius_rel_p50 / s)
    assert seen.radius_p05 == pytest.approx(seen.radius_rel_p05 / s)


@pytest.mark.parametrize("features", [1, 2, 3, 5, 16, 24, 30, 32, 210])
def test_the_sample_touches_every_feature_and_nearly_the_whole_batch(features: int) -> None:
    for rows in (1, 50, 300, 1000, 12_544, 50_176):
        elements = rows * features
        picked = np.arange(elements)[:: _stride(elements, features)][:QUANTILE_SAMPLE]
        assert len(picked) >= min(elements, QUANTILE_SAMPLE // 5)
        if len(picked) >= features:
            assert len(np.unique(picked % features)) == features
        if elements > 2 * QUANTILE_SAMPLE:
            assert picked[-1] > 0.6 * elements


@pytest.mark.parametrize("gain", [0.0, 0.35, 1.0])
def test_the_layer_norm_observes_and_copies_out_per_sample(gain: float) -> None:
    x = np.random.default_rng(1).standard_normal((50, 24)).astype(np.float32) * 3 + 1
    layer = nn.ZSpaceLayerNorm("z", 24, -4.0, projector_gain=gain)
    assert layer.last_ball_radius() is None
    with pytest.raises(StateError, match=r"z: .*forward"):
        layer.telemetry()
    layer.forward(x)
    whole, seen = layer.telemetry(), layer.observe()
    assert isinstance(whole, nn.ZSpaceLayerNormTelemetry)
    assert (whole.batch, whole.features, whole.curvature, whole.gain) == (50, 24, -4.0, gain)
    n = whole.normed.astype(np.float64)
    t = np.abs(np.tanh(2 * n))
    per_sample = {"rtol": 2e-6, "atol": 1e-12}
    np.testing.assert_allclose(whole.radius, t.mean(axis=1) / 2 * (gain > 0), **per_sample)
    np.testing.assert_allclose(whole.blended_radius, np.abs(whole.projected.astype(float)).mean(axis=1), **per_sample)
    np.testing.assert_allclose(whole.conformal, 2 / (1 - t.mean(axis=1) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(layer.last_ball_radius(), whole.radius)
    assert seen.sample_radius is not None
    np.testing.assert_allclose(seen.sample_radius, t.mean(axis=1), **per_sample)
    np.testing.assert_allclose(seen.feature_radius, t.mean(axis=0), **per_sample)
    exact = {"rel": 2e-6}
    assert seen.radius_mean == pytest.approx(t.mean() / 2, **exact)
    assert seen.blended_mean == pytest.approx(np.abs(whole.projected.astype(float)).mean(), **exact)
    assert seen.jacobian_mean == pytest.approx(1 - gain * (t * t).mean(), **exact)
    assert seen.saturation == pytest.approx((t > 0.99).mean(), abs=1e-3)
    assert (seen.curvature, seen.gain) == (-4.0, gain)
    kept = [array.copy() for array in (whole.normed, whole.mean, whole.radius, whole.inv_std, seen.feature_radius)]
    layer.forward(np.roll(x, 1) * 2)
    for array, copy in zip(
        (whole.normed, whole.mean, whole.radius, whole.inv_std, seen.feature_radius), kept, strict=True
    ):
        np.testing.assert_array_equal(array, copy)
    assert (layer.telemetry().mean != whole.mean).any()


def test_the_batch_norm_observes_no_samples(x: Float) -> None:
    layer, workspace = passed(x, -1.0, 1.0)
    assert layer.observe(workspace).sample_radius is None


def test_a_plain_layer_norm_takes_curvature_as_a_wider_epsilon_and_keeps_it_out_of_its_state() -> None:
    layer = nn.LayerNorm("l", 3, -4.0, 1e-2)
    assert layer.curvature == -4.0
    assert layer.effective_epsilon == pytest.approx(1.2e-2)
    assert list(layer.state_dict()) == ["l.gamma", "l.beta"]
    steered = nn.ZSpaceLayerNorm("z", 3, -4.0, 1e-2)
    steered.set_curvature(-1.0)
    assert steered.effective_epsilon == pytest.approx(1.1e-2)


def test_layer_norms_do_the_same_in_training_and_in_evaluation() -> None:
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    for layer in (nn.LayerNorm("l", 4), nn.ZSpaceLayerNorm("z", 4)):
        passes = []
        for training in (True, False):
            layer.set_training(training)
            passes.append((layer.forward(x).tobytes(), layer.backward(x, np.roll(x, 1)).tobytes()))
        assert passes[0] == passes[1]


def test_the_plain_batch_norm_keeps_its_running_statistics_in_its_state() -> None:
    x = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    layer, other = nn.BatchNorm1d("b", 4), nn.BatchNorm1d("b", 4)
    layer.forward(x)
    assert list(layer.state_dict()) == ["b.gamma", "b.beta", "b.running_mean", "b.running_var"]
    other.load_state_dict(layer.state_dict())
    layer.eval()
    other.eval()
    assert other.forward(x).tobytes() == layer.forward(x).tobytes()
    bad = {**layer.state_dict(), "b.running_var": np.full(4, -1, np.float32)}
    with pytest.raises(StateDictError, match=r"b.running_var: .*negative"):
        other.load_state_dict(bad)


def test_images_are_normalized_over_batch_and_pixels(x: Float) -> None:
    images, rows = nn.BatchNorm2d("b", 24), nn.BatchNorm1d("b", 24)
    assert images.forward(x).tobytes() == rows.forward(x.reshape(-1, 24)).tobytes()
    assert images.running_var.tobytes() == rows.running_var.tobytes()


def test_at_gain_zero_telemetry_shows_no_radius_and_the_curves_keep_theirs(x: Float) -> None:
    layer, workspace = passed(x, -1.0, 0.0)
    whole, seen = layer.telemetry(workspace), layer.observe(workspace)
    np.testing.assert_array_equal(whole.radius, np.zeros(24))
    np.testing.assert_array_equal(whole.projected, whole.normed)
    np.testing.assert_array_equal(whole.jacobian, np.ones_like(whole.normed))
    assert seen.radius_mean == pytest.approx(np.abs(np.tanh(whole.normed)).mean(), rel=1e-5)
    assert seen.radius_mean > 0.5
    assert seen.jacobian_p05 == seen.jacobian_mean == 1


def test_a_gain_that_rounds_to_nothing_is_nothing(x: Float) -> None:
    layer, workspace = passed(x, -1.0, 1e-7)
    whole = layer.telemetry(workspace)
    np.testing.assert_array_equal(whole.projected, whole.normed)
    assert whole.gain == 1e-7


def test_telemetry_copies_the_pass_out(x: Float) -> None:
    layer, workspace = passed(x, -4.0, 0.6)
    before = layer.telemetry(workspace)
    kept = before.normed.copy()
    assert (before.batch, before.features) == (16 * 14 * 14, 24)
    np.testing.assert_allclose(before.blended_radius, np.abs(before.projected.astype(float)).mean(axis=0), rtol=1e-5)
    expected = [conformal_factor(float(r), -4.0) for r in before.radius]
    np.testing.assert_allclose(before.conformal, expected, rtol=1e-12)
    layer.forward(x * 3 - 5 * np.roll(x, 1), workspace)
    np.testing.assert_array_equal(before.normed, kept)
    assert (layer.telemetry(workspace).normed != kept).any()


def test_there_is_no_ball_radius_before_the_first_pass(x: Float) -> None:
    layer = nn.ZSpaceBatchNorm2d("z", 24)
    assert layer.last_ball_radius() is None
    for ask in (layer.telemetry, layer.observe):
        with pytest.raises(StateError, match=r"z: .*forward"):
            ask()
    layer.forward(x)
    radius = layer.last_ball_radius()
    assert radius is not None
    np.testing.assert_array_equal(radius, layer.telemetry().radius)
    # A workspace that saw no pass has nothing to tell, though the layer's own has.
    assert layer.last_ball_radius(nn.Workspace()) is None


def test_whitened_rows_never_get_beyond_the_bound_of_the_mean_radius() -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 1)
    layer.forward(np.array([[1.0], [-1.0]] * 50, np.float32))
    radius = layer.last_ball_radius()
    assert radius is not None
    assert radius[0] == pytest.approx(np.tanh(1.0), abs=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, "much", None])
def test_a_gain_that_cannot_be_is_refused_by_name_and_the_old_one_stays(value: float) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 2).with_projector_gain(0.5)
    with pytest.raises(ArgumentError, match="gain"):
        layer.set_projector_gain(value)
    assert layer.projector_gain == 0.5


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, -np.inf, "flat", None])
def test_a_curvature_that_cannot_be_is_refused_by_name_and_the_old_one_stays(value: float) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 2, -2.0)
    with pytest.raises(ArgumentError, match="curvature"):
        layer.set_curvature(value)
    assert layer.curvature == -2.0


def test_steering_between_forward_and_backward_does_not_touch_the_pass_at_hand() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    grads = []
    for steered in (False, True):
        layer, workspace = nn.ZSpaceBatchNorm1d("z", 2), nn.Workspace()
        layer.forward(x, workspace)
        if steered:
            layer.set_projector_gain(0.1)
            layer.set_curvature(-7)
        grads.append(layer.backward(x, x, workspace).copy())
    np.testing.assert_array_equal(*grads)


def test_evaluation_leaves_the_running_statistics_alone_and_training_moves_them(x: Float) -> None:
    layer = nn.ZSpaceBatchNorm2d("z", 24)
    for training, moves in ((False, False), (True, True)):
        before = layer.running_mean.copy(), layer.running_var.copy()
        layer.forward(x, nn.Workspace(training))
        assert (layer.running_mean != before[0]).any() == moves
        assert (layer.running_var != before[1]).any() == moves
    # The workspace's word goes before the layer's own.
    layer.eval()
    before = layer.running_mean.copy(), layer.running_var.copy()
    layer.forward(x)
    np.testing.assert_array_equal(layer.running_mean, before[0])
    layer.forward(x, nn.Workspace(training=True))
    assert (layer.running_mean != before[0]).any()
