"""What may be asked for, and the words of a refusal."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from spiral_core.wire.knobs import command_refusal, refusal, stale, unmet
from spiral_core.wire.messages import CommandRequest
from spiral_core.wire.parts import KnobSpec, Need, Setting, Verb

GAIN = KnobSpec(
    name="zspace.gain",
    type="float",
    unit="",
    scale="linear",
    low=0.0,
    high=1.0,
    step=0.01,
    boundary="step",
    group="zspace",
    help="",
    value=1.0,
    since=1,
)
EVERY = replace(GAIN, name="xai.every", type="int", unit="steps", high=1000, step=1, group="xai", value=10)
KNOBS = {GAIN.name: GAIN, EVERY.name: EVERY}


@given(st.floats(min_value=0.0, max_value=1.0))
def test_every_value_within_the_bounds_is_taken_and_the_bounds_belong_to_it(value: float) -> None:
    assert refusal(GAIN, value) is None


@given(st.floats().filter(lambda value: not 0.0 <= value <= 1.0))
def test_every_other_number_is_refused_with_the_bounds_named(value: float) -> None:
    reason = refusal(GAIN, value)
    assert reason is not None
    assert "between 0 and 1" in reason
    assert "zspace.gain" in reason


@pytest.mark.parametrize("value", [True, False, "0.5", "NaN"])
def test_what_is_no_number_is_refused(value: bool | str) -> None:
    assert "takes a number" in (refusal(GAIN, value) or "")


def test_a_whole_number_knob_refuses_fractions_but_not_floats() -> None:
    assert refusal(EVERY, 5.0) is None
    assert "whole number" in (refusal(EVERY, 5.5) or "")
    assert refusal(EVERY, math.inf) is not None


MODE = replace(GAIN, name="optim.mode", type="choice", choices=["euclidean", "riemannian"], value="euclidean")


@given(st.text() | st.floats() | st.booleans())
def test_a_choice_takes_its_words_and_nothing_else(value: bool | float | str) -> None:
    assert [refusal(MODE, choice) for choice in MODE.choices] == [None, None]
    if value not in MODE.choices:
        assert refusal(MODE, value) == f"optim.mode takes one of euclidean, riemannian, not {value!r}"


def refused(verb: Verb, sets: list[Setting], **more: Any) -> str | None:
    return command_refusal(KNOBS, CommandRequest(id="a", verb=verb, sets=sets, **more))


def test_one_bad_setting_refuses_the_whole_command() -> None:
    good, bad = Setting(knob="zspace.gain", value=0.5), Setting(knob="xai.every", value=-1)
    assert refused("set", [good]) is None
    assert "xai.every" in (refused("set", [good, bad]) or "")


def test_unknown_knobs_empty_sets_and_repeats_are_refused() -> None:
    assert "unknown knob 'optim.lrr'" in (refused("set", [Setting(knob="optim.lrr", value=1)]) or "")
    assert "at least one" in (refused("set", []) or "")
    twice = [Setting(knob="zspace.gain", value=0.1), Setting(knob="zspace.gain", value=0.2)]
    assert "twice" in (refused("set", twice) or "")
    assert "no settings" in (refused("pause", twice) or "")
    assert refused("stop", []) is None


def test_fields_that_do_not_go_with_a_verb_are_refused_by_name() -> None:
    good = [Setting(knob="zspace.gain", value=0.5)]
    assert "belongs to the verb step" in (refused("set", good, steps=3) or "")
    assert refused("step", [], steps=3) is None
    assert "steps takes a whole number from 1 on, not 0" in (refused("step", [], steps=0) or "")
    assert "at_step takes a whole number from 0 on" in (refused("pause", [], at_step=-1) or "")
    assert "expected_rev takes" in (refused("pause", [], expected_rev=-1) or "")
    assert "supersedes nothing" in (refused("pause", [], supersede=True) or "")
    assert refused("set", good, supersede=True, at_step=9, expected_rev=0) is None


@given(st.none() | st.integers(0, 9), st.integers(0, 9))
def test_a_revision_is_stale_unless_it_is_the_one_in_force_or_none_was_named(expected: int | None, rev: int) -> None:
    reason = stale(expected, rev)
    assert (reason is None) == (expected in (None, rev))
    assert reason is None or f"revision {rev} is in force" in reason


SWITCH = replace(GAIN, name="freeze.head", type="bool", step=1, value=False)


@given(st.text() | st.floats() | st.integers(0, 1))
def test_a_switch_takes_true_and_false_and_nothing_else(value: float | str) -> None:
    assert [refusal(SWITCH, one) for one in (True, False)] == [None, None]
    assert refusal(SWITCH, value) == f"freeze.head takes true or false, not {value!r}"


def test_a_setting_whose_need_is_not_met_is_refused_with_what_to_set() -> None:
    scale = replace(GAIN, name="amp.loss_scale", needs=[Need(knob="optim.mode", holds=["riemannian", "hypergrad"])])
    off = replace(GAIN, needs=[Need(knob="xai.every", holds=[0])])
    knobs = {spec.name: spec for spec in (scale, off, EVERY, MODE)}
    gain, scaled = Setting(knob="zspace.gain", value=0.5), Setting(knob="amp.loss_scale", value=1.0)
    assert unmet(knobs, [gain]) == (
        "zspace.gain cannot be set while xai.every is 10; set xai.every to 0 first, or in the same command"
    )
    assert "set optim.mode to riemannian or hypergrad first" in (unmet(knobs, [scaled]) or "")
    assert unmet(knobs, [gain, Setting(knob="xai.every", value=0)]) is None
    assert unmet(knobs | {"xai.every": replace(EVERY, value=0)}, [gain]) is None
    both = [gain, Setting(knob="xai.every", value=3)]
    assert "while xai.every is 3" in (unmet(knobs | {"xai.every": replace(EVERY, value=0)}, both) or "")
