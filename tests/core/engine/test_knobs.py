"""Each knob does what it says, from the next update on; what it changed is part of the run's state."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from engine_runs import command, digest
from spiral_core import kernels, optim
from spiral_core.arrays import Float
from spiral_core.data import open_dataset
from spiral_core.data.sequence import NOISE
from spiral_core.data.tag import TAG_SIDE
from spiral_core.engine import controls, knobs, step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation
from spiral_core.nn import Module, Workspace
from spiral_core.wire.parts import Value


def started(data: str = "needle", **changes: object) -> RunState:
    return initial_state(for_data(data, batch_size=8, **changes))


def steered(state: RunState, **sets: Value) -> controls.Outcome:
    outcome = controls.apply(state, command(**sets))
    assert outcome.state == "applied", outcome.reason
    return outcome


def run(state: RunState, count: int) -> RunState:
    for _ in range(count):
        step.update(state)
    return state


def contents(state: RunState) -> dict[str, bytes]:
    """Everything learnt, running statistics and the optimizer's own arrays included, by name."""
    return {name: array.tobytes() for name, array in (state.model.state_dict() | state.optimizer.slots()).items()}


# Frozen layers.


@pytest.mark.parametrize("mode", optim.OptimizerMode.NAMES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_layer_keeps_every_bit_in_every_mode_while_the_others_learn(optimizer: str, mode: str) -> None:
    state = run(started(optimizer=optimizer, mode=mode, lr=0.01, weight_decay=0.1, gain=0.5), 2)
    steered(state, freeze__conv1=True, freeze__zbn2=True)
    before = contents(state)
    run(state, 3)
    after = contents(state)
    still = {name for name in after if after[name] == before[name]}
    frozen = {name for name in after if "conv1." in name or "zbn2." in name}
    statistics = {name for name in frozen if ".running_" in name}
    assert frozen - statistics <= still, "a weight, a velocity or a mean of a frozen layer has moved"
    assert not still & statistics, "running statistics go on: they describe what flows in"
    learning = {parameter.name for parameter in state.model.parameters()} - frozen
    assert not still & learning
    steered(state, freeze__conv1=False)
    assert contents(run(state, 1))["conv1.weight"] != before["conv1.weight"]


def test_gradients_of_frozen_layers_neither_count_in_the_norm_nor_take_room_in_clipping() -> None:
    free, held = (run(started(), 2) for _ in range(2))
    steered(held, freeze__conv1=True)
    free_report, held_report = step.update(free), step.update(held)
    others = [p for p in free.model.parameters() if not p.name.startswith("conv1.")]
    assert held_report.gradient_norm == optim.gradient_norm(others) < free_report.gradient_norm
    steered(held, optim__clip_norm=0.01)
    step.update(held)
    left = [p for p in held.model.parameters() if not p.name.startswith("conv1.")]
    assert optim.gradient_norm(left) == pytest.approx(0.01, rel=1e-5)


def test_an_overflow_in_a_frozen_layer_skips_nothing() -> None:
    """Its gradient is not used, so it is not looked at."""
    state = run(started(precision="float16"), 1)
    steered(state, freeze__conv1=True)
    conv = state.model.layer("conv1")
    bad, backward = conv.parameters()[0], type(conv)._backward

    def overflowing(self: Module, x: Float, grad: Float, workspace: Workspace, input_grad: bool) -> Float | None:
        result = backward(self, x, grad, workspace, input_grad)
        if self is conv:
            bad.grad.fill(np.inf)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(conv), "_backward", overflowing)
        assert step.update(state).skipped == 0
        steered(state, freeze__conv1=False)
        assert step.update(state).skipped == 1


def test_a_run_with_every_layer_frozen_goes_on_and_nothing_moves() -> None:
    state = run(started("fashion"), 1)
    steered(state, **{f"freeze__{layer}": True for layer in ("conv1", "conv2", "zbn1", "zbn2", "head")})
    before = {p.name: p.value.copy() for p in state.model.parameters()}
    report = step.update(state)
    assert report.gradient_norm == 0
    assert all((before[p.name] == p.value).all() for p in state.model.parameters())


# Batches.


@pytest.mark.parametrize("data", ["needle", "motif"])
def test_the_next_batch_has_the_new_size_and_is_that_of_a_run_of_that_size(data: str) -> None:
    state = run(started(data), 3)
    steered(state, data__batch_size=12)
    step.update(state)
    expected = open_dataset(data, seed=0, batch_size=12).train_batch(3)
    assert state.batch is not None
    np.testing.assert_array_equal(state.batch.images, expected.images)
    np.testing.assert_array_equal(state.batch.labels, expected.labels)


def test_a_new_batch_size_begins_a_new_epoch_that_sees_each_image_once() -> None:
    state = run(started("digits"), 5)
    steered(state, data__batch_size=400)
    assert (state.dataset.report_batches, state.dataset.epochs(state.step)) == (3, 1)
    fresh = open_dataset("digits", seed=0, batch_size=400)
    for place in range(3):
        step.update(state)
        assert state.batch is not None
        np.testing.assert_array_equal(state.batch.images, fresh.train_batch(3 + place).images)
    assert state.dataset.epochs(state.step) == 2
    held_out = sum(len(batch) for batch in state.dataset.test_batches())
    tally = Evaluation()
    for batch in state.dataset.test_batches():
        tally = step.evaluate_batch(state, batch, tally)
    assert tally.images == held_out == 300


def test_a_batch_larger_than_the_data_is_out_of_bounds() -> None:
    reason = controls.apply(started("digits"), command(data__batch_size=1498)).reason
    assert "between 1 and 1497" in reason


def test_the_shortcut_tells_the_class_in_the_corner_of_training_images_alone() -> None:
    plain, told = run(started(), 1), run(started(), 1)
    assert "data.shortcut" in knobs.in_force(told)
    held_out = next(iter(told.dataset.test_batches())).images.copy()
    steered(told, data__shortcut=1.0)
    step.update(plain)
    step.update(told)
    assert plain.batch is not None
    assert told.batch is not None
    tags = told.batch.images[:, :TAG_SIDE, :TAG_SIDE, 0]
    assert (tags == (told.batch.labels / 7).astype(np.float32)[:, None, None]).all()
    rest = np.ones((28, 28), bool)
    rest[:TAG_SIDE, :TAG_SIDE] = False
    np.testing.assert_array_equal(plain.batch.images[:, rest], told.batch.images[:, rest])
    np.testing.assert_array_equal(next(iter(told.dataset.test_batches())).images, held_out)
    steered(told, data__shortcut=0.0)
    assert digest(told) != digest(plain)
    np.testing.assert_array_equal(run(told, 1).batch.images, run(plain, 1).batch.images)


def test_the_noise_of_motifs_is_that_of_the_knob_in_training_alone() -> None:
    state = run(started("motif"), 1)
    assert knobs.in_force(state)["data.noise"] == NOISE
    held_out = next(iter(state.dataset.test_batches())).images.copy()
    steered(state, data__noise=0.0)
    step.update(state)
    assert state.batch is not None
    assert (state.batch.images == 0).any(), "between the motifs there is silence"
    np.testing.assert_array_equal(next(iter(state.dataset.test_batches())).images, held_out)


def test_augmentation_is_a_switch_of_the_data_set_that_has_one() -> None:
    state = run(started("fashion"), 1)
    outcome = steered(state, data__augmented=True)
    assert [(change.old, change.in_force) for change in outcome.changes] == [(False, True)]
    plain = run(started("fashion"), 2).batch
    step.update(state)
    assert plain is not None
    assert state.batch is not None
    np.testing.assert_array_equal(state.batch.labels, plain.labels)
    assert (state.batch.images != plain.images).any()
    assert "data.augmented" not in knobs.in_force(started("digits"))
    assert "true or false" in controls.apply(state, command(data__augmented=1)).reason


# Precision.


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_run_switched_to_a_precision_goes_on_as_one_started_in_it_from_that_state(precision: str) -> None:
    switched = run(started("fashion"), 3)
    other = started("fashion", precision=precision)
    other.model.load_state_dict(switched.model.state_dict())
    other.optimizer.load_state_dict(switched.optimizer.state_dict())
    other.step = switched.step
    steered(switched, amp__precision=precision)
    plain = run(started("fashion"), 3)
    reports = [step.update(switched) for _ in range(3)]
    assert [report.scale for report in reports] == [65536.0] * 3
    assert digest(switched) == digest(run(other, 3)) != digest(run(plain, 3))
    steered(switched, amp__precision="float32")
    report = step.update(switched)
    assert (report.scale, report.skipped) == (None, 0)
    other.precision = "float32"
    assert digest(switched) == digest(run(other, 1))


def test_the_loss_scale_is_that_of_the_next_update_and_is_kept_while_precision_is_full() -> None:
    state = run(started("fashion", precision="float16"), 1)
    steered(state, amp__loss_scale=1024)
    assert step.update(state).scale == 1024
    steered(state, amp__precision="float32")
    reason = controls.apply(state, command(amp__loss_scale=2048)).reason
    assert "while amp.precision is float32; set amp.precision to float16 or bfloat16 first" in reason
    steered(state, amp__precision="bfloat16")
    assert step.update(state).scale == 1024
    steered(state, amp__precision="float16", amp__loss_scale=2048)
    assert step.update(state).scale == 2048
    assert "between 1 and 65536" in controls.apply(state, command(amp__loss_scale=65537)).reason


# Z-space layers.


def test_curvature_can_be_that_of_one_layer_and_the_knob_of_all_shows_mixed() -> None:
    state = run(started(), 1)
    outcome = steered(state, zspace__zbn2__curvature=-4.0)
    moved = {change.knob: (change.old, change.in_force) for change in outcome.changes}
    assert moved == {"zspace.zbn2.curvature": (-1.0, -4.0), "zspace.curvature": (-1.0, None)}
    step.update(state)
    assert [layer.observe(state.training).curvature for layer in state.z_layers] == [-1.0, -4.0, -1.0]
    steered(state, zspace__curvature=-2.0)
    assert [layer.curvature for layer in state.z_layers] == [-2.0] * 3


def test_smoothing_is_the_share_of_its_way_that_a_gain_goes() -> None:
    moves = {}
    for smoothing in (0.1, 0.5, 1.0):
        state = run(started(gain=0.5), 1)
        steered(state, zspace__auto_gain=0.7, zspace__auto_gain__smoothing=smoothing)
        step.update(state)
        moves[smoothing] = np.array([layer.projector_gain - 0.5 for layer in state.z_layers])
    assert (np.abs(moves[1.0]) > 1e-3).all()
    np.testing.assert_allclose(moves[0.5], 0.5 * moves[1.0], rtol=1e-9)
    np.testing.assert_allclose(moves[0.1], 0.1 * moves[1.0], rtol=1e-9)


# Probes.


def test_a_probe_looks_at_the_layer_that_was_chosen_and_trains_nothing() -> None:
    state = run(started(), 1)
    shapes = {}
    before = contents(state)
    for layer in ("relu1", "relu2", "relu3"):
        steered(state, xai__layer=layer)
        probe = step.probe(state)
        assert probe.layer == layer
        shapes[layer] = probe.cam.maps.shape[1:]
    assert shapes == {"relu1": (28, 28), "relu2": (14, 14), "relu3": (14, 14)}
    assert contents(state) == before
    assert "xai.layer" not in knobs.in_force(started("motif")), "one layer leaves no choice"
    assert not any(name.startswith("xai.") for name in knobs.in_force(started("digits")))


# All together.

SCRIPT: dict[int, dict[str, Value]] = {
    1: {"optim.lr": 0.01, "zspace.gain": 0.4},
    2: {"data.batch_size": 12, "data.augmented": True},
    3: {"amp.precision": "float16", "amp.loss_scale": 4096},
    4: {"freeze.conv1": True, "zspace.zbn1.curvature": -3.0},
    5: {"optim.schedule": "warmup-cosine", "optim.schedule.total": 20, "optim.schedule.warmup": 2},
    6: {"optim.mode": "riemannian", "optim.lr": 0.2},
    7: {"optim.lr.under_schedule": "hold", "optim.lr": 0.1, "zspace.auto_gain": 0.7},
    8: {"amp.precision": "bfloat16", "freeze.conv1": False, "zspace.auto_gain.smoothing": 0.7},
    9: {"optim.mode": "hypergrad", "optim.lr.held": False, "data.batch_size": 8},
    10: {"optim.mode": "euclidean", "optim.weight_decay": 0.01, "optim.momentum": 0.5, "optim.clip_norm": 0.5},
    11: {"amp.precision": "float32", "zspace.auto_gain": 0, "data.augmented": False},
}
STEPS = 13


def play(state: RunState, until: int = STEPS) -> RunState:
    while state.step < until:
        if state.step in SCRIPT:
            steered(state, **{knob.replace(".", "__"): value for knob, value in SCRIPT[state.step].items()})
        step.update(state)
    return state


def fashion() -> RunState:
    return started("fashion", optimizer="sgd")


def test_the_same_commands_at_the_same_steps_give_the_same_weights_with_any_number_of_threads() -> None:
    before, digests = kernels.get_num_threads(), set()
    try:
        for threads in (1, 2, 2):
            kernels.set_num_threads(threads)
            digests.add(digest(play(fashion())))
    finally:
        kernels.set_num_threads(before)
    assert len(digests) == 1
    assert digests != {digest(run(fashion(), STEPS))}


@pytest.mark.parametrize("at", [3, 6, 8, 10])
def test_a_copy_of_the_state_goes_on_as_the_run_itself(at: int) -> None:
    """So nothing that a knob has changed lies outside the state."""
    state = play(fashion(), at)
    twin = copy.deepcopy(state)
    assert digest(play(twin)) == digest(play(state)) == digest(play(fashion()))


# What is looked at when a knob is set.


def another(knob: knobs.Knob, value: Value | None) -> Value:
    """Give a value that the knob takes and does not hold."""
    if knob.type == "bool":
        return not value
    if knob.type == "choice":
        return next(choice for choice in knob.choices if choice != value)
    return knob.high if value != knob.high else knob.low


@pytest.mark.parametrize("data", ["needle", "digits"])
def test_an_outcome_names_every_knob_that_moved_whichever_was_set(data: str) -> None:
    begun = started(data, precision="float16")
    applied = 0
    for name, knob in knobs.table(begun).items():
        state = copy.deepcopy(begun)
        before = knobs.in_force(state)
        outcome = controls.apply(state, command(**{name.replace(".", "__"): another(knob, before[name])}))
        after = knobs.in_force(state)
        moved = {other for other in after if after[other] != before[other]}
        assert moved <= {change.knob for change in outcome.changes}, name
        applied += outcome.state == "applied"
    assert applied > 40
