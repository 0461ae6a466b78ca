"""The gain that steers itself: it settles, follows the data, and knows what it cannot do."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral_core import nn
from spiral_core.arrays import Float
from spiral_core.errors import ArgumentError, StateError
from spiral_core.nn.steering import Signal

KINDS = [nn.ZSpaceBatchNorm1d, nn.ZSpaceLayerNorm]
BATCH, FEATURES = 64, 32


def build(kind: type[nn.ZSpaceNorm], curvature: float = -1.0, gain: float = 1.0) -> nn.ZSpaceNorm:
    return kind("z", FEATURES, curvature, projector_gain=gain)  # type: ignore[call-arg]


def batch(draws: np.random.Generator, scale: float = 1.0, shift: float = 0.0, tails: float = 0.0) -> Float:
    """Draw a batch; ``tails`` from 0 (Gaussian) to 1 (its cube: sparse, and so of a smaller mean radius)."""
    z = draws.standard_normal((BATCH, FEATURES))
    return (scale * ((1 - tails) * z + tails * z**3 / 3) + shift).astype(np.float32)


@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("curvature", [-0.25, -1.0, -4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_it_settles_within_a_twentieth_of_the_range_in_200_steps_and_holds_while_the_data_drift(
    kind: type[nn.ZSpaceNorm], curvature: float, share: float, start: float
) -> None:
    draws = np.random.default_rng(7)
    layer = build(kind, curvature, start)
    layer.forward(batch(draws))
    low, high = layer.adapt_projector_gain(0.0, 1e-12).reachable
    target = low + share * (high - low)
    errors = []
    for step in range(600):
        # From step 200 on: the data drift to ten times the size, another place and heavier tails.
        drift = max(0.0, (step - 200) / 400)
        layer.forward(batch(draws, 1 + 9 * drift, 5 * drift, 0.12 * drift * (share == 0.5)))
        errors.append(layer.observe().blended_mean - target)
        done = layer.adapt_projector_gain(target)
    if share == 0.5:
        # The data have moved the range, and not from under the target.
        assert done.reachable[1] < high - 0.01
        assert done.within_reach
    # Over single batches the radius itself is noisy: that noise is no error of the gain.
    settled = np.abs(np.mean(np.reshape(errors[180:], (-1, 20)), axis=1))
    assert settled[0] < 0.05 * (high - low)
    assert settled.max() < 0.05 * (high - low)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gain_that_is_aimed_at_gives_exactly_the_target(kind: type[nn.ZSpaceNorm]) -> None:
    x = batch(np.random.default_rng(0))
    layer = build(kind, -2.0, 0.9)
    layer.forward(x)
    first = layer.adapt_projector_gain(0.6, 1.0)
    layer.forward(x)
    assert layer.observe().blended_mean == pytest.approx(0.6, abs=1e-6)
    second = layer.adapt_projector_gain(0.6, 1.0)
    assert abs(second.error) < 1e-6
    assert second.reachable == first.reachable
    assert first.within_reach


@pytest.mark.parametrize("kind", KINDS)
def test_the_range_within_reach_is_what_gains_0_and_1_give(kind: type[nn.ZSpaceNorm]) -> None:
    x = batch(np.random.default_rng(1))
    ends = []
    for gain in (1.0, 0.0):
        layer = build(kind, -1.0, gain)
        layer.forward(x)
        ends.append(layer.observe().blended_mean)
    layer = build(kind, -1.0, 0.3)
    layer.forward(x)
    done = layer.adapt_projector_gain(0.7)
    assert done.reachable == pytest.approx(tuple(ends), rel=1e-6)
    assert done.radius == pytest.approx(layer.observe().blended_mean, rel=1e-9)
    assert done.error == 0.7 - done.radius
    # Gaussian data at curvature -1.
    assert ends == pytest.approx([0.556, 0.798], abs=0.02)


@pytest.mark.parametrize(("target", "end"), [(0.1, 1.0), (3.0, 0.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_out_of_reach_is_said_and_nothing_winds_up(
    kind: type[nn.ZSpaceNorm], target: float, end: float
) -> None:
    layer, draws = build(kind, -1.0, 0.5), np.random.default_rng(2)
    gains = []
    for _ in range(500):
        layer.forward(batch(draws))
        done = layer.adapt_projector_gain(target)
        gains.append(float(done))
        assert not done.within_reach
        assert not done.reachable[0] <= target <= done.reachable[1]
    assert (np.diff(gains) * (1 if end else -1) >= 0).all()
    assert gains[-1] == pytest.approx(end, abs=1e-6)
    # However long it waited there: one call, and it is a tenth of the way back.
    layer.forward(batch(draws))
    low, high = done.reachable
    middle = layer.adapt_projector_gain((low + high) / 2)
    assert middle.within_reach
    assert abs(middle - end) > 0.04


@pytest.mark.parametrize("signal", ["blended", "ball"])
@pytest.mark.parametrize("kind", KINDS)
def test_inside_the_band_nothing_moves(kind: type[nn.ZSpaceNorm], signal: Signal) -> None:
    layer = build(kind, -1.0, 0.5)
    layer.forward(batch(np.random.default_rng(3)))
    seen = layer.observe()
    radius = seen.blended_mean if signal == "blended" else seen.radius_mean
    for offset in (-0.019, 0.0, 0.019):
        assert layer.adapt_projector_gain(radius + offset, band=0.02, signal=signal) == 0.5
    for offset in (-0.021, 0.021):
        layer.set_projector_gain(0.5)
        assert layer.adapt_projector_gain(radius + offset, band=0.02, signal=signal) != 0.5
    # A target just beyond the range is within reach where the band closes the gap.
    low, _ = layer.adapt_projector_gain(0.5).reachable
    assert layer.adapt_projector_gain(low - 0.01, band=0.02).within_reach
    assert not layer.adapt_projector_gain(low - 0.01).within_reach


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0, 5), st.floats(1e-3, 1), st.floats(0, 1), st.floats(-9, -0.01), st.integers(2, 9), st.integers(1, 5))
def test_it_always_moves_towards_the_target_and_never_beyond(
    target: float, smoothing: float, gain: float, curvature: float, rows: int, features: int
) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, features))
    layer = nn.ZSpaceLayerNorm("z", features, curvature, projector_gain=gain, dtype=np.float64)
    layer.forward(x)
    done = layer.adapt_projector_gain(target, smoothing)
    assert 0 <= done <= 1
    assert layer.projector_gain == done.gain == done
    layer.forward(x)
    after = target - layer.observe().blended_mean
    assert abs(after) <= abs(done.error) + 1e-6
    assert after * done.error >= -1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_pass_that_says_nothing_moves_nothing(kind: type[nn.ZSpaceNorm], value: float) -> None:
    # All zero, the radius is 0 at every gain; diverged, it is no number at all.
    layer = build(kind, -1.0, 0.5)
    layer.forward(np.full((BATCH, FEATURES), value, np.float32))
    for signal in ("blended", "ball") if np.isnan(value) else ("blended",):
        done = layer.adapt_projector_gain(0.6, signal=signal)
        assert done == layer.projector_gain == 0.5
        assert not done.within_reach
        assert np.isnan(done.error) == np.isnan(value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((np.nan,), "z: target"),
        ((-0.1,), "z: target"),
        (("much",), "z: target"),
        ((0.6, 0.0), "z: smoothing must be finite and > 0 and <= 1"),
        ((0.6, 1.5), "z: smoothing"),
        ((0.6, np.nan), "z: smoothing"),
        ((0.6, 0.1, -1e-9), "z: band"),
        ((0.6, 0.1, np.inf), "z: band"),
        ((0.6, 0.1, 0.0, "ballpark"), "z: signal must be one of blended, ball"),
        ((0.6, -1.0, 0.0, "ball"), "z: smoothing must be finite and > 0, got"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_that_cannot_be_is_refused_by_name_and_the_gain_stays(
    kind: type[nn.ZSpaceNorm], arguments: tuple[float, ...], named: str
) -> None:
    layer = build(kind, -1.0, 0.5)
    layer.forward(batch(np.random.default_rng(4)))
    with pytest.raises(ArgumentError, match=named):
        layer.adapt_projector_gain(*arguments)  # type: ignore[arg-type]
    assert layer.projector_gain == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_it_needs_a_pass_and_looks_at_the_one_in_the_workspace_given(kind: type[nn.ZSpaceNorm]) -> None:
    layer, workspace = build(kind, -1.0, 0.5), nn.Workspace()
    with pytest.raises(StateError, match=r"z: .*forward"):
        layer.adapt_projector_gain(0.6)
    layer.forward(batch(np.random.default_rng(5)), workspace)
    with pytest.raises(StateError, match=r"z: .*forward"):
        layer.adapt_projector_gain(0.6)
    assert layer.projector_gain == 0.5
    assert layer.adapt_projector_gain(0.6, workspace=workspace) > 0.5


def test_the_rule_of_the_reference_ends_where_it_can_do_nothing() -> None:
    layer, x = build(nn.ZSpaceLayerNorm, -1.0, 0.5), batch(np.random.default_rng(6))
    for _ in range(30):
        layer.forward(x)
        done = layer.adapt_projector_gain(0.7, 1.5, signal="ball")
    assert done == 1
    assert not done.within_reach
    assert done.reachable[0] == done.reachable[1] == done.radius


def test_what_comes_back_is_the_gain_as_a_number() -> None:
    layer = build(nn.ZSpaceLayerNorm, -1.0, 0.5)
    layer.forward(batch(np.random.default_rng(8)))
    done = layer.adapt_projector_gain(0.6)
    assert isinstance(done, float)
    assert done == layer.projector_gain
    assert type(layer.projector_gain) is float
    assert f"{done:.3f}" == f"{layer.projector_gain:.3f}"
    for other in (copy.copy(done), pickle.loads(pickle.dumps(done))):
        assert (other, other.error, other.reachable, other.within_reach) == (
            done,
            done.error,
            done.reachable,
            done.within_reach,
        )
    with pytest.raises(AttributeError):
        done.gain = 0.1  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_gain_and_curvature_are_in_the_state_dict_and_steer_alike(kind: type[nn.ZSpaceNorm]) -> None:
    x = batch(np.random.default_rng(9))
    layer = build(kind, -2.5).with_projector_gain(0.25)
    state = layer.state_dict()
    assert (state["z.projector_gain"], state["z.curvature"]) == (0.25, -2.5)
    other = build(kind)
    other.load_state_dict(state)
    assert (other.projector_gain, other.curvature) == (0.25, -2.5)
    assert other.forward(x).tobytes() == layer.forward(x).tobytes()
    for set_it, value in ((other.set_projector_gain, 1.1), (other.set_curvature, 0.0)):
        with pytest.raises(ArgumentError):
            set_it(value)
    assert (other.projector_gain, other.curvature) == (0.25, -2.5)
    other.set_curvature(-1.0)
    assert other.forward(x).tobytes() != layer.forward(x).tobytes()
