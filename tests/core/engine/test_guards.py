"""What guards make of the values of a step, and what they do about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_runs import command, digest
from spiral_core import kernels
from spiral_core.engine import controls, guard_values, guards, knobs, rollback, step
from spiral_core.engine.config import for_data
from spiral_core.engine.guard_rules import DEFAULTS, Rule, parse, parse_all
from spiral_core.engine.guard_state import Alarm, GuardState
from spiral_core.engine.guards import Decision
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import UpdateReport
from spiral_core.errors import ConfigError, StateError
from spiral_core.nn import GainAdaptation, PassMeans
from spiral_core.telemetry import catalog
from spiral_core.wire import knobs as rules_of_knobs
from spiral_core.wire.parts import Setting
from spiral_core.zspace import natural_radius, natural_saturation

RULES = {rule.name: rule for rule in parse_all(DEFAULTS)}

FIRES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "not_finite": ("train.loss", lambda value: not math.isfinite(value)),
    "explosion": ("train.loss_over_chance", lambda value: value > 10),
    "saturating": ("zspace.zbn1.saturation_excess", lambda value: value > 0.1),
    "saturated": ("zspace.zbn1.saturation", lambda value: value > 0.5),
    "flat": ("zspace.zbn1.jacobian_mean", lambda value: value < 0.2),
    "flat_out": ("zspace.zbn1.jacobian_mean", lambda value: value < 0.02),
    "collapsing": ("zspace.zbn1.radius_ratio", lambda value: value < 0.5),
    "collapsed": ("zspace.zbn1.radius_ratio", lambda value: value < 0.1),
    "windup": ("zspace.zbn1.windup", lambda value: value > 0),
    "windup_long": ("zspace.zbn1.windup", lambda value: value > 0),
}
"""Of each default rule but the spike's: a value that it looks at, and when that is bad."""

floats = st.one_of(st.floats(), st.floats(-1, 20), st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.5, 10.0, math.nan]))


def following(rule: Rule, name: str, told: list[float]) -> list[int]:
    """Give the numbers of the steps at which a rule acts."""
    state = GuardState((rule,))
    return [number for number, value in enumerate(told, start=1) if state.follow(number, {name: value}).alarms]


@pytest.mark.parametrize("name", [name for name in RULES if name != "spike"])
@given(value=floats)
def test_each_default_rule_fires_on_what_it_should_and_on_nothing_else(name: str, value: float) -> None:
    rule = RULES[name]
    watched, bad = FIRES[name]
    acts = following(rule, watched, [value] * (rule.steps + 3))
    assert acts == ([rule.steps] if bad(value) else []), "once, when it has held for long enough"


@given(st.lists(st.floats(1e-3, 1e3), min_size=12, max_size=80), st.floats(0, 1e4))
def test_a_spike_is_four_times_the_median_of_the_fifty_values_before(before: list[float], value: float) -> None:
    state = GuardState((replace(RULES["spike"], rest=0),))
    for number, one in enumerate(before, start=1):
        state.follow(number, {"train.loss": one})
    alarms = state.follow(1000, {"train.loss": value}).alarms
    spiked_already = before[-1] > 4 * median(before[-51:-1])
    assert bool(alarms) == (value > 4 * median(before[-50:]) and not spiked_already)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_spike_needs_ten_values_and_a_value_that_is_not_finite_neither_counts_nor_is_one(odd: float) -> None:
    rule = RULES["spike"]
    assert following(rule, "train.loss", [1.0] * 9 + [9.0]) == []
    assert following(rule, "train.loss", [1.0] * 9 + [odd, 9.0]) == []
    assert following(rule, "train.loss", [1.0] * 10 + [odd, 9.0]) == [12]
    assert following(rule, "train.loss", [0.0] * 20 + [9.0]) == [], "a median of zero has no multiples"


def test_a_median_forgets_what_is_older_than_its_window() -> None:
    rule = parse("when train.loss > 4 x its median of 10 mark")
    # Of the last ten values five are 1 and five are 3; with an eleventh the median would be 3.
    assert following(rule, "train.loss", [3.0] * 9 + [3.0] * 5 + [1.0] * 5 + [8.5]) == [20]


def test_a_gradient_that_is_not_finite_fires_too() -> None:
    state = GuardState((RULES["not_finite"],))
    values = {"train.loss": 1.0, "optim.gradient_norm": math.inf}
    (alarm,) = state.follow(1, values).alarms
    assert str(alarm) == "optim.gradient_norm = inf is not finite"


def test_a_condition_must_hold_in_a_row_and_fail_before_it_acts_again() -> None:
    rule = parse("when train.loss > 1 for 3 mark")
    assert following(rule, "train.loss", [2, 2, 0, 2, 2, 2, 2, 2, 0, 2, 2, 2]) == [6, 12]


def test_a_rule_rests_and_acts_when_it_is_over_if_the_condition_still_holds() -> None:
    told = [2, 0, 2, 0, 2, 2, 2, 2, 0, 2]
    assert following(parse("when train.loss > 1 mark"), "train.loss", told) == [1, 3, 5, 10]
    assert following(parse("when train.loss > 1 mark, rest 5"), "train.loss", told) == [1, 6]


def test_a_rule_that_is_off_does_nothing_and_begins_afresh_when_turned_on() -> None:
    state = GuardState(parse_all(["loss: off when train.loss > 1 for 2 mark critical"]))
    for number in range(1, 6):
        verdict = state.follow(number, {"train.loss": 2.0})
        assert (verdict.alarms, verdict.critical) == ((), False)
    state.switch("loss", on=True)
    assert not state.follow(6, {"train.loss": 2.0}).alarms
    assert state.follow(7, {"train.loss": 2.0}).alarms
    assert state.follow(8, {"train.loss": 2.0}).critical, "it holds still, though it has acted"
    state.limit("loss", 3.0)
    assert not state.follow(9, {"train.loss": 2.0}).critical
    assert str(state.rules[0]) == "loss: when train.loss > 3 for 2 mark critical"


# Values.


def small(**changes: object) -> RunState:
    state = initial_state(for_data("digits", batch_size=16, **changes))
    guards.begin(state)
    return state


@pytest.mark.parametrize(("data", "batch"), [("fashion", 8), ("digits", 16), ("motif", 8)])
def test_the_values_are_those_of_the_curves(data: str, batch: int) -> None:
    state = initial_state(for_data(data, batch_size=batch, auto_gain=0.7))
    report = step.update(state)
    values = guard_values.step_values(state, report)
    layers = [layer.name for layer in state.z_layers]
    assert set(values) == set(guard_values.names(layers)) - {"amp.scale"}
    drawn = {spec.name.replace("/", ".") for spec in catalog.declare(layers, mapped=False, masked=False)}
    own = {"loss_over_chance", "radius_ratio", "saturation_excess", "windup"}
    assert {name for name in values if name.rsplit(".", 1)[1] not in own} <= drawn
    for layer in state.z_layers:
        seen = layer.observe(state.training)
        for name in ("radius_mean", "radius_rel_mean", "blended_mean", "jacobian_mean", "saturation", "gain"):
            assert values[f"zspace.{layer.name}.{name}"] == getattr(seen, name)
    assert values["train.loss_over_chance"] == pytest.approx(
        report.loss / math.log(len(state.dataset.class_names)), rel=1e-12
    )


def test_what_is_natural_is_what_a_normal_variable_gives() -> None:
    for c, radius, share in ((0.01, 0.079, 0), (1, 0.556, 0.0082), (2, 0.656, 0.0612), (9, 0.822, 0.3777)):
        assert natural_radius(math.sqrt(c)) == pytest.approx(radius, abs=6e-4)
        assert natural_saturation(math.sqrt(c)) == pytest.approx(share, abs=6e-4)
    draws = np.abs(np.tanh(10 * np.random.default_rng(0).standard_normal(2_000_000)))
    assert natural_radius(10.0) == pytest.approx(draws.mean(), abs=5e-4)
    assert natural_saturation(10.0) == pytest.approx((draws > 0.99).mean(), abs=1e-3)


MEANS = PassMeans(0.5, 0.5, 0.6, 0.4, 0.01, -1.0, 0.3)


@pytest.mark.parametrize(
    ("gain", "error", "windup"),
    [(0.005, 0.2, 0.2), (0.005, -0.2, 0.0), (0.5, 0.2, 0.0), (0.995, -0.2, 0.2), (0.995, 0.2, 0.0), (1.0, 0.0, 0.0)],
)
def test_a_controller_winds_up_where_its_gain_stands_at_the_end_that_it_is_pushed_to(
    gain: float, error: float, windup: float
) -> None:
    done = GainAdaptation(gain, 0.5, error, (0.5, 0.8), False)
    assert guard_values.layer_values("a", MEANS, done)["zspace.a.windup"] == windup
    assert "zspace.a.windup" not in guard_values.layer_values("a", MEANS, None)


def test_a_target_out_of_reach_winds_the_controller_up_and_one_within_reach_does_not() -> None:
    marks = {}
    for target in (0.99, 0.65):
        state = small(auto_gain=target, steps=0, guards=["windup: when zspace.*.windup > 0 for 50 mark, rest 500"])
        marks[target] = [done for _ in range(130) for done in guards.decide(state, step.update(state))]
    assert [one.verb for one in marks[0.99]][:1] == ["mark"]
    assert 50 <= marks[0.99][0].step <= 120
    assert marks[0.65] == []


def test_an_overflow_that_the_scaler_mends_is_no_alarm_and_one_that_it_cannot_mend_is() -> None:
    state = small(precision="float16", xai_every=0)
    report = step.update(state)
    for scale, told in ((65536.0, False), (1.0, True)):
        overflowed = UpdateReport(1, report.loss, 0.5, 0.1, math.inf, 0.2, scale=scale)
        values = guard_values.step_values(state, overflowed)
        assert ("optim.gradient_norm" in values) == told
        assert values["amp.scale"] == scale


# Deeds.


def act(state: RunState, steps: int) -> list[Decision]:
    """Train with guards; give what they decided."""
    decisions = []
    for _ in range(steps):
        done = guards.decide(state, step.update(state))
        for one in done:
            _, outcome = guards.carry_out(state, one)
            assert outcome.state == "applied"
        decisions += done
    return decisions


def test_the_guides_rule_sets_the_gain_of_its_layer_once() -> None:
    line = "guide: when zspace.zln1.radius_rel_mean > 0.8 set zspace.zln1.gain = 0.5"
    quiet, bent = small(guards=[line]), small(guards=[line], curvature=-20.0)
    assert act(quiet, 5) == []
    (done,) = act(bent, 5)
    assert (done.verb, done.step) == ("set", 1)
    assert done.reason.startswith("guide: zspace.zln1.radius_rel_mean = 0.8")
    assert [layer.projector_gain for layer in bent.z_layers] == [0.5, 0.2]
    assert (bent.rev, bent.own_entries) == (1, 1)


def test_entries_of_the_engine_are_numbered_downwards_and_named_after_step_and_rule() -> None:
    state = small(guards=["when train.loss > 0 mark", "b: when zspace.*.gain < 0.5 set zspace.*.gain = 0.75"])
    decided = guards.decide(state, step.update(state))
    done = [guards.carry_out(state, one) for one in decided]
    assert [(told.number, told.id, told.actor, told.source) for told, _ in done] == [
        (-1, "guard-1-rule_1", "guard", "guard"),
        (-2, "guard-1-b", "guard", "guard"),
    ]
    assert [outcome.step for _, outcome in done] == [1, 2], "a mark is of the step, a set of the next update"
    assert [change.knob for change in done[1][1].changes] == ["zspace.gain", "zspace.zln1.gain", "zspace.zln2.gain"]
    assert state.rev == 1, "a mark changes nothing"


def test_a_set_that_auto_gain_forbids_is_refused_with_both_reasons() -> None:
    state = small(guards=["b: when zspace.zln1.gain < 0.5 set zspace.zln1.gain = 0.75"], auto_gain=0.7)
    (decision,) = guards.decide(state, step.update(state))
    _, outcome = guards.carry_out(state, decision)
    assert outcome.state == "rejected"
    assert "b: zspace.zln1.gain = 0.2, below 0.5; " in outcome.reason
    assert "cannot be set while zspace.auto_gain is 0.7" in outcome.reason


def test_a_rollback_brings_back_what_was_learnt_and_leaves_what_was_set() -> None:
    state = small(steps=0)
    act(state, 50)
    kept = digest(state)
    act(state, 6)
    controls.apply(state, command(1, zspace__curvature=-2.0, optim__lr=1000.0))
    done = act(state, 2)
    assert [one.verb for one in done] == ["rollback", "mark"]
    assert (done[0].to_step, state.step) == (50, 58), "the count of steps goes on"
    assert [layer.curvature for layer in state.z_layers] == [-2.0, -2.0]
    assert state.rates.at(59) == 0.0015, "half of the rate of step 50, not of the one that did the harm"
    for layer in state.z_layers:
        layer.set_curvature(-1.0)
    # The digest has the rate of the last update.
    state.optimizer.set_rates(state.config.lr)
    assert digest(state) == kept


def harmful(state: RunState) -> None:
    """Spoil the weights as a person who sets a rate of 1,000 does."""
    head = state.model.parameters()[-2].value
    head *= np.float32(1e6)


def test_after_so_many_rollbacks_the_run_pauses_and_a_person_gives_the_tries_back() -> None:
    state = small(steps=0, guards=[str(RULES["explosion"])])
    act(state, 30)
    rates, verbs = [], []
    for _ in range(5):
        harmful(state)
        (done,) = act(state, 1)
        verbs.append(done.verb)
        rates.append(state.rates.at(state.step + 1))
        if done.verb == "pause":
            assert state.phase == "paused"
            assert "went back 3 times and it came again" in done.reason
            controls.apply(state, msgspec.structs.replace(command(), verb="resume", sets=[]))
    assert verbs == ["rollback", "rollback", "rollback", "pause", "rollback"]
    assert rates == [0.0015, 0.00075, 0.000375, 0.000375, 0.0001875]


def test_a_snapshot_is_trusted_after_five_steps_without_a_critical_alarm() -> None:
    state = small(steps=0)
    act(state, 25)
    harmful(state)
    (first, _) = act(state, 1)
    assert first.to_step == 0, "the weights of step 25 were on trial"
    act(state, 49)
    assert state.step == 75
    act(state, 4)
    assert [one.step for one in state.snapshots.trusted] == [0, 50]
    act(state, 1)
    assert [one.step for one in state.snapshots.trusted] == [50, 75]


def test_another_mode_has_no_use_for_old_snapshots_and_gets_its_own_soon() -> None:
    state = small(steps=0, guards=[str(RULES["explosion"])])
    act(state, 31)
    controls.apply(state, command(1, optim__mode="riemannian"))
    bias = state.model.parameters()[-1].value
    bias[0] += np.float32(1e6)
    (done,) = act(state, 1)
    assert done.verb == "pause"
    assert "nothing to go back to" in done.reason
    state.phase = "training"
    bias[0] = 0
    act(state, 7)
    best = state.snapshots.best("riemannian")
    assert best is not None
    assert best.step == 33


def test_weights_that_are_not_finite_are_not_kept() -> None:
    state = small()
    state.model.parameters()[0].value[0] = np.nan
    assert rollback.capture(state) is None


def test_a_rollback_without_its_snapshot_is_refused_and_nothing_changes() -> None:
    state = small()
    act(state, 2)
    before = digest(state)
    with pytest.raises(StateError, match="no snapshot of step 1 was kept"):
        guards.carry_out(state, Decision("explosion", 2, "rollback", "", [], to_step=1))
    assert (digest(state), state.own_entries, state.rev) == (before, 0, 0)


def test_of_a_run_that_is_over_only_marks_are_made() -> None:
    state = small(steps=1, guards=["when train.loss > 0 pause", "when train.loss > 0 mark"])
    assert [one.verb for one in guards.decide(state, step.update(state))] == ["mark"]


def test_snapshots_are_taken_apart_for_a_file_and_put_together_again() -> None:
    state = small(steps=0)
    act(state, 77)
    arrays, plain = rollback.pack(state.snapshots)
    again = rollback.unpack(arrays, msgspec.json.decode(msgspec.json.encode(plain)))
    assert [one.step for one in again.trusted] == [25, 50]
    assert again.trial is not None
    assert again.trial.step == 75
    for mine, theirs in zip(
        [*state.snapshots.trusted, state.snapshots.trial], [*again.trusted, again.trial], strict=True
    ):
        assert mine is not None
        assert theirs is not None
        assert (mine.lr, mine.mode) == (theirs.lr, theirs.mode)
        for part in ("model", "optimizer", "scaler"):
            assert getattr(mine, part).keys() == getattr(theirs, part).keys()
            assert all((getattr(theirs, part)[name] == array).all() for name, array in getattr(mine, part).items())
    state.snapshots = again
    guards.begin(state)
    assert state.snapshots.trusted[0].step == 25, "a run that goes on has its snapshots already"


def test_what_guards_remember_is_plain_and_survives_a_file() -> None:
    state = small(steps=0, guards=[*DEFAULTS, "loss: when train.loss > 0 for 3 mark", "set: when train.loss > 9 pause"])
    act(state, 20)
    held = msgspec.json.decode(msgspec.json.encode(state.guards), type=GuardState)
    assert held == state.guards
    assert held.windows
    assert held.streaks


def test_each_rule_is_a_switch_and_a_limit_and_a_replayed_set_is_the_same() -> None:
    state = small(
        guards=["spike: when train.loss > 4 x its median of 50 mark", "b: when train.loss is not finite mark"]
    )
    rows = {name: row.spec(state) for name, row in knobs.table(state).items() if row.group == "guards"}
    assert {name: row.value for name, row in rows.items()} == {
        "guard.spike.on": True,
        "guard.spike": 4.0,
        "guard.b.on": True,
    }
    controls.apply(state, msgspec.structs.replace(command(), sets=settings({"guard.spike": 2.5, "guard.b.on": False})))
    assert [str(rule) for rule in state.guards.rules] == [
        "spike: when train.loss > 2.5 x its median of 50 mark",
        "b: off when train.loss is not finite mark",
    ]
    for name, row in rows.items():
        assert knobs.table(state)[name].spec(state).low == row.low, "bounds stay those of the start"
    refused = controls.apply(state, msgspec.structs.replace(command(), sets=settings({"guard.spike": 0.0})))
    assert refused.state == "rejected"


def settings(sets: dict[str, float | bool]) -> list[Setting]:
    return [Setting(knob=knob, value=value) for knob, value in sets.items()]


def test_a_rule_may_switch_another_one_off() -> None:
    state = small(guards=["a: when train.loss > 0 set guard.b.on = off", "b: when train.loss > 0 for 2 mark"])
    guards.check(state)
    assert [one.verb for one in act(state, 4)] == ["set"]
    assert not state.guards.rule("b").on


@pytest.mark.parametrize(
    ("line", "bounds"),
    [
        ("when zspace.*.saturation > 0.5 mark", (0.0, 1.0, "linear")),
        ("when zspace.*.radius_ratio > 1.5 mark", (0.0, 1.5, "linear")),
        ("when train.loss > 4 mark", (0.004, 4000.0, "log")),
        ("when train.loss > 0 mark", (-1.0, 1.0, "linear")),
        ("when zspace.*.curvature < -10 mark", (-10000.0, 10000.0, "linear")),
        ("when zspace.*.saturation > 4 x its median of 50 mark", (0.004, 4000.0, "log")),
    ],
)
def test_a_limit_can_be_set_around_what_it_is_at_the_start(line: str, bounds: tuple[float, float, str]) -> None:
    state = small(guards=[line])
    row = knobs.table(state)["guard.rule_1"].spec(state)
    assert (row.low, row.high, row.scale) == bounds
    assert row.value is not None
    assert rules_of_knobs.refusal(row, row.value) is None


# A run is a function.


def steered(threads: int) -> tuple[RunState, list[Decision]]:
    """Train through a rate that is far too high."""
    kernels.set_num_threads(threads)
    state = initial_state(for_data("fashion", batch_size=16, steps=0))
    guards.begin(state)
    decisions = act(state, 40)
    controls.apply(state, command(1, optim__lr=1000.0))
    return state, decisions + act(state, 25)


def test_guards_decide_the_same_on_one_thread_and_on_two_and_a_replay_repeats_it(threads: None) -> None:
    one, decided = steered(1)
    two, again = steered(2)
    assert [done.verb for done in decided] == ["rollback", "mark"]
    assert decided == again
    assert digest(one) == digest(two)

    replayed = initial_state(for_data("fashion", batch_size=16, steps=0, guards=[]))
    guards.begin(replayed)
    wanted = {done.to_step for done in decided if done.to_step is not None}
    for number in range(1, 66):
        if number == 41:
            controls.apply(replayed, command(1, optim__lr=1000.0))
        step.update(replayed)
        guards.keep(replayed, wanted)
        for done in decided:
            if done.step == number:
                guards.carry_out(replayed, done)
    assert digest(replayed) == digest(one)
    assert (replayed.rev, replayed.own_entries) == (one.rev, one.own_entries)


def test_a_rate_of_a_thousand_is_an_alarm_a_rollback_a_cut_and_training_recovers() -> None:
    state = initial_state(for_data("fashion", batch_size=32, steps=0))
    guards.begin(state)
    losses = []

    def train(steps: int) -> list[tuple[int, str]]:
        verbs = []
        for _ in range(steps):
            report = step.update(state)
            losses.append(report.loss)
            for one in guards.decide(state, report):
                guards.carry_out(state, one)
                verbs.append((one.step, one.verb))
        return verbs

    assert train(60) == []
    before = max(losses[-10:])
    controls.apply(state, command(1, optim__lr=1000.0))
    assert train(40) == [(62, "rollback"), (62, "mark")]
    assert max(losses) > 1000
    assert state.rates.at(state.step + 1) < 0.02
    assert np.mean(losses[-10:]) < before


@pytest.mark.parametrize("data", ["fashion", "needle", "digits", "motif"])
def test_a_healthy_run_raises_no_alarm(data: str) -> None:
    state = initial_state(for_data(data, batch_size=32, steps=0))
    guards.check(state)
    guards.begin(state)
    assert act(state, 80) == []


# Checking.


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("when zspace.zbn9.gain > 1 mark", "rule_1: this run has no value zspace.zbn9.gain; it has train.loss,"),
        ("when zspace.*.size > 1 mark", "no value zspace"),
        ("when train.loss > 1 set optim.rate = 1", "no knob optim.rate; it has optim."),
        ("when train.loss > 1 set optim.lr = 1e9", "optim.lr = 1000000000 is out of bounds"),
        ("when train.loss > 1 set optim.lr = off", "optim.lr takes a number"),
        ("when zspace.*.gain > 1 set zspace.*.gain = 2", "out of bounds"),
    ],
)
def test_a_rule_that_does_not_fit_the_run_is_refused(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guards.check(small(guards=[line]))
    assert words in str(caught.value)


def test_an_alarm_says_what_it_saw() -> None:
    told = Alarm(RULES["spike"], "train.loss", "train.loss", 9.0, 1.5)
    assert str(told) == "train.loss = 9, 6 times its median 1.5"
