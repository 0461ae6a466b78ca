"""The table of knobs: declared bounds hold, and a command applies wholly or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiral_core.engine import controls, knobs, step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import KnobSpec, Setting, Verb


@pytest.fixture(scope="module")
def state() -> RunState:
    return initial_state(for_data("needle", batch_size=8))


def command(verb: Verb, **sets: object) -> Command:
    settings_ = [Setting(knob=knob.replace("__", "."), value=value) for knob, value in sets.items()]  # type: ignore[arg-type]
    return Command(run="r", number=1, id="a", verb=verb, sets=settings_, actor="", source="api", time=0.0)


def in_force(state: RunState) -> dict[str, object]:
    return {spec.name: spec.value for spec in knobs.declare(state)}


def test_the_knobs_of_the_demo_are_those_it_promises(state: RunState) -> None:
    assert {name for name in in_force(state) if not name.startswith("guard.")} == {
        "optim.schedule",
        "optim.schedule.warmup",
        "optim.schedule.total",
        "optim.schedule.min_lr",
        "optim.lr.under_schedule",
        "optim.lr",
        "optim.lr.held",
        "optim.mode",
        "optim.weight_decay",
        "optim.clip_norm",
        "zspace.gain",
        "zspace.auto_gain",
        "zspace.auto_gain.smoothing",
        "zspace.curvature",
        "zspace.zbn1.gain",
        "zspace.zbn2.gain",
        "zspace.zbn3.gain",
        "zspace.zbn1.curvature",
        "zspace.zbn2.curvature",
        "zspace.zbn3.curvature",
        "data.batch_size",
        "data.shortcut",
        "amp.precision",
        "amp.loss_scale",
        "freeze.conv1",
        "freeze.conv2",
        "freeze.conv3",
        "freeze.zbn1",
        "freeze.zbn2",
        "freeze.zbn3",
        "freeze.head",
        "xai.every",
        "xai.layer",
        "run.rate",
        "run.steps",
        "telemetry.budget",
    }


def test_a_new_value_takes_effect_at_the_next_update(state: RunState) -> None:
    state.step = 41
    outcome = controls.apply(state, command("set", optim__lr=0.01))
    assert outcome.state == "applied"
    assert outcome.step == 42
    assert [(change.knob, change.in_force) for change in outcome.changes] == [("optim.lr", 0.01)]
    spec = next(spec for spec in knobs.declare(state) if spec.name == "optim.lr")
    assert (spec.value, spec.since) == (0.01, 42)


def test_gain_moves_every_layer_and_shows_mixed_when_they_differ(state: RunState) -> None:
    controls.apply(state, command("set", zspace__gain=0.5))
    assert {layer.projector_gain for layer in state.z_layers} == {0.5}
    outcome = controls.apply(state, command("set", zspace__zbn2__gain=0.25))
    moved = {change.knob: (change.old, change.in_force) for change in outcome.changes}
    assert moved == {"zspace.zbn2.gain": (0.5, 0.25), "zspace.gain": (0.5, None)}
    outcome = controls.apply(state, command("set", zspace__gain=0.25))
    moved = {change.knob: (change.old, change.in_force) for change in outcome.changes}
    assert moved == {
        "zspace.gain": (None, 0.25),
        "zspace.zbn1.gain": (0.5, 0.25),
        "zspace.zbn3.gain": (0.5, 0.25),
    }


def test_one_bad_setting_leaves_everything_as_it_was(state: RunState) -> None:
    before, rev = in_force(state), state.rev
    outcome = controls.apply(state, command("set", optim__lr=0.5, zspace__gain=1.5))
    assert outcome.state == "rejected"
    assert "zspace.gain" in outcome.reason
    assert in_force(state) == before
    assert state.rev == rev


def bad_values(spec: KnobSpec) -> st.SearchStrategy[float | str | bool]:
    if spec.type == "choice":
        return st.floats() | st.booleans() | st.text().filter(lambda text: text not in spec.choices)
    if spec.type == "bool":
        return st.floats() | st.text() | st.integers(0, 1)
    below = st.floats(max_value=math.nextafter(spec.low, -math.inf))
    above = st.floats(min_value=math.nextafter(spec.high, math.inf))
    return below | above | st.just(math.nan) | st.text(max_size=3) | st.booleans()


def drawn_value(spec: KnobSpec, data: st.DataObject) -> float | str:
    if spec.type == "choice":
        return data.draw(st.sampled_from(spec.choices))
    if spec.type == "bool":
        return data.draw(st.booleans())
    if spec.type == "int":
        return data.draw(st.integers(int(spec.low), int(spec.high)))
    return data.draw(st.floats(spec.low, spec.high, allow_subnormal=False))


NEUTRAL: dict[str, object] = {
    "zspace.auto_gain": 0.0,
    "optim.schedule": "constant",
    "optim.schedule.warmup": 0,
    "optim.schedule.total": 1000,
    "optim.lr.under_schedule": "base",
}
"""From here every knob can be set, once what it needs is met."""

RATE = {"optim.lr", "optim.lr.held"}
LAYERS = ("zbn1", "zbn2", "zbn3")
MOVE_ALONG: dict[str, set[str]] = {
    "optim.schedule": RATE,
    "optim.schedule.warmup": RATE,
    "optim.schedule.min_lr": RATE,
    "optim.lr": {"optim.lr.held"},
    "optim.lr.held": {"optim.lr"},
    "zspace.gain": {f"zspace.{layer}.gain" for layer in LAYERS},
    "zspace.curvature": {f"zspace.{layer}.curvature" for layer in LAYERS},
    **{f"zspace.{layer}.gain": {"zspace.gain"} for layer in LAYERS},
    **{f"zspace.{layer}.curvature": {"zspace.curvature"} for layer in LAYERS},
}
"""What else a knob may move; every other knob moves alone."""


def asking(sets: Mapping[str, object]) -> Command:
    return command("set", **{knob.replace(".", "__"): value for knob, value in sets.items()})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.data())
def test_every_bad_value_of_every_knob_is_refused_and_never_raises(state: RunState, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(knobs.declare(state)))
    value = data.draw(bad_values(spec))
    before = in_force(state)
    outcome = controls.apply(state, asking({spec.name: value}))
    assert outcome.state == "rejected"
    assert spec.name in outcome.reason
    assert in_force(state) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.data())
def test_every_good_value_of_every_knob_comes_into_force_exactly_and_moves_no_other(
    state: RunState, data: st.DataObject
) -> None:
    state = copy.deepcopy(state)
    assert controls.apply(state, asking(NEUTRAL)).state == "applied"
    spec = data.draw(st.sampled_from(knobs.declare(state)))
    if spec.needs:
        assert controls.apply(state, asking({need.knob: need.holds[0] for need in spec.needs})).state == "applied"
    before = in_force(state)
    value = drawn_value(spec, data)
    outcome = controls.apply(state, asking({spec.name: value}))
    assert outcome.state == "applied", outcome.reason
    after = in_force(state)
    assert after[spec.name] == value
    moved = {name for name in after if after[name] != before[name]}
    assert moved <= {spec.name} | MOVE_ALONG.get(spec.name, set())
    assert {change.knob for change in outcome.changes} == moved | {spec.name}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_the_order_of_the_settings_in_a_command_means_nothing(state: RunState, data: st.DataObject) -> None:
    """And a command is applied wholly, with every value in force that is not mixed, or not at all."""
    specs = data.draw(
        st.lists(st.sampled_from(knobs.declare(state)), min_size=2, max_size=6, unique_by=lambda s: s.name)
    )
    sets = {spec.name: drawn_value(spec, data) for spec in specs}
    shuffled = dict(data.draw(st.permutations(list(sets.items()))))
    before = in_force(state)
    seen = []
    for order in (sets, shuffled):
        twin = copy.deepcopy(state)
        outcome = controls.apply(twin, asking(order))
        # Where several settings are in each other's way, the first one read is the one that is named.
        seen.append((outcome.state, outcome.changes, in_force(twin)))
    assert seen[0] == seen[1]
    told, _, after = seen[0]
    if told == "rejected":
        assert after == before
        return
    for name, value in sets.items():
        assert after[name] == value or (after[name] is None and MOVE_ALONG[name] & set(sets))


def test_momentum_is_a_knob_where_the_optimizer_has_one() -> None:
    for optimizer, there in (("sgd", True), ("adam", False)):
        state = initial_state(for_data("fashion", batch_size=8, optimizer=optimizer))
        assert ("optim.momentum" in in_force(state)) == there
        outcome = controls.apply(state, command("set", optim__momentum=0.5))
        assert (outcome.state == "applied") == there
        assert state.optimizer.momentum == (0.5 if there else 0.0)


def test_a_gain_is_refused_while_auto_gain_steers_it() -> None:
    state = initial_state(for_data("needle", batch_size=8, gain=1.0, auto_gain=0.7))
    for knob in ("zspace__gain", "zspace__zbn2__gain"):
        outcome = controls.apply(state, command("set", **{knob: 0.5}))
        assert outcome.state == "rejected"
        assert "while zspace.auto_gain is 0.7; set zspace.auto_gain to 0 first" in outcome.reason
    assert {layer.projector_gain for layer in state.z_layers} == {1.0}
    # Both in one command: it is off from the same update on.
    assert controls.apply(state, command("set", zspace__gain=0.5, zspace__auto_gain=0)).state == "applied"
    assert {layer.projector_gain for layer in state.z_layers} == {0.5}
    assert controls.apply(state, command("set", zspace__auto_gain=0.6, zspace__gain=0.1)).state == "rejected"
    assert state.auto_gain == 0


def test_curvature_moves_every_layer_at_the_next_update() -> None:
    state = initial_state(for_data("needle", batch_size=8))
    step.update(state)
    outcome = controls.apply(state, command("set", zspace__curvature=-4.0))
    assert {(change.old, change.in_force) for change in outcome.changes} == {(-1.0, -4.0)}
    assert len(outcome.changes) == 4, "the knob of all layers and that of each"
    step.update(state)
    seen = [layer.observe(state.training) for layer in state.z_layers]
    assert [one.curvature for one in seen] == [-4.0] * 3
    assert all(one.radius_mean < 0.5 for one in seen), "the ball of curvature -4 has radius 0.5"
    assert "between -100 and -0.01" in controls.apply(state, command("set", zspace__curvature=0.0)).reason


def test_pause_and_resume_are_absolute_and_an_ended_run_refuses_commands() -> None:
    state = initial_state(for_data("needle", batch_size=8))
    for verb, phase in (("pause", "paused"), ("pause", "paused"), ("resume", "training"), ("stop", "stopped")):
        assert controls.apply(state, command(verb)).state == "applied"
        assert state.phase == phase
    assert "stopped" in controls.apply(state, command("set", optim__lr=0.1)).reason


def asked(number: int, verb: Verb, *, sets: dict[str, float] | None = None, **more: Any) -> Command:
    settings_ = [Setting(knob=knob, value=value) for knob, value in (sets or {}).items()]
    told = {"run": "r", "id": f"c{number}", "actor": "", "source": "api", "time": 0.0, **more}
    return Command(number=number, verb=verb, sets=settings_, **told)


def test_step_runs_its_updates_and_pauses_and_pause_or_resume_ends_it() -> None:
    state = initial_state(for_data("needle", batch_size=8))
    state.phase = "paused"
    controls.apply(state, asked(1, "step", steps=2))
    phases = []
    while state.phase == "training":
        step.update(state)
        phases.append(state.phase)
    assert phases == ["training", "paused"]
    for ending, phase in (("pause", "paused"), ("resume", "training")):
        controls.apply(state, asked(2, "step", steps=1))
        controls.apply(state, asked(3, ending))
        step.update(state)
        assert state.phase == phase


def test_a_run_is_extended_and_shortened_by_a_knob() -> None:
    state = initial_state(for_data("needle", batch_size=8, steps=2))
    assert controls.apply(state, asked(1, "set", sets={"run.steps": 3})).state == "applied"
    for expected in ("training", "training", "finished"):
        step.update(state)
        assert state.phase == expected
    state = initial_state(for_data("needle", batch_size=8))
    step.update(state)
    assert controls.apply(state, asked(1, "set", sets={"run.steps": 2})).state == "applied"
    assert state.phase == "training"
    assert controls.apply(state, asked(2, "set", sets={"run.steps": 1})).state == "applied"
    assert state.phase == "finished"
    assert controls.apply(state, asked(3, "resume")).reason == "the run is finished"


def test_checkpoint_and_evaluate_are_noted_and_take_no_settings(state: RunState) -> None:
    for verb in ("checkpoint", "evaluate"):
        assert controls.apply(state, asked(1, verb)).state == "applied"
        assert verb in state.wanted
        assert "takes no settings" in controls.apply(state, asked(2, verb, sets={"optim.lr": 0.1})).reason
    state.wanted.clear()


def test_a_command_that_expects_another_revision_is_refused_with_the_one_in_force(state: RunState) -> None:
    before = in_force(state)
    outcome = controls.apply(state, asked(1, "set", sets={"optim.lr": 0.3}, expected_rev=state.rev + 1))
    assert outcome.state == "rejected"
    assert f"revision {state.rev} is in force" in outcome.reason
    assert in_force(state) == before
    assert controls.apply(state, asked(2, "set", sets={"optim.lr": 0.3}, expected_rev=state.rev)).state == "applied"


def settled(state: RunState, *due: Command) -> dict[int, tuple[str, int | None]]:
    return {command.number: (outcome.state, outcome.by) for command, outcome in controls.settle(state, due)}


def test_a_drag_within_one_boundary_ends_at_its_last_value_and_the_rest_is_superseded() -> None:
    state = initial_state(for_data("needle", batch_size=8))
    drag = [asked(n, "set", sets={"optim.lr": n / 100}, supersede=True, expected_rev=0) for n in (1, 2, 3)]
    assert settled(state, *drag) == {1: ("superseded", 3), 2: ("superseded", 3), 3: ("applied", None)}
    assert (state.rates.at(1), state.rev) == (0.03, 1)


def test_nothing_gives_way_to_a_command_that_leaves_a_knob_out_or_is_refused_or_does_not_supersede() -> None:
    state = initial_state(for_data("needle", batch_size=8))
    both = asked(1, "set", sets={"optim.lr": 0.1, "zspace.gain": 0.5})
    one = asked(2, "set", sets={"optim.lr": 0.2}, supersede=True)
    refused = asked(3, "set", sets={"optim.lr": 0.3, "zspace.gain": 2.0}, supersede=True)
    plain = asked(4, "set", sets={"optim.lr": 0.4})
    assert settled(state, both, one, refused, plain) == {
        1: ("applied", None),
        2: ("applied", None),
        3: ("rejected", None),
        4: ("applied", None),
    }


def test_a_set_is_kept_when_what_would_supersede_it_is_refused_by_what_comes_between() -> None:
    """Auto-gain is turned on between the two, and then a gain cannot be set."""
    state = initial_state(for_data("needle", batch_size=8))
    first = asked(1, "set", sets={"zspace.gain": 0.5})
    between = asked(2, "set", sets={"zspace.auto_gain": 0.7})
    last = asked(3, "set", sets={"zspace.gain": 0.1}, supersede=True)
    assert settled(state, first, between, last) == {
        1: ("applied", None),
        2: ("applied", None),
        3: ("rejected", None),
    }
    assert {layer.projector_gain for layer in state.z_layers} == {0.5}
    stopped = initial_state(for_data("needle", batch_size=8))
    assert settled(stopped, first, asked(2, "stop"), last)[1] == ("applied", None)
    shortened = initial_state(for_data("needle", batch_size=8))
    step.update(shortened)
    assert settled(shortened, first, asked(2, "set", sets={"run.steps": 1}), last)[1] == ("applied", None)
