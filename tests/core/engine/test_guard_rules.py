"""The grammar of guard rules: what is printed is what was read, and what cannot be read is refused with the remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.engine.guard_rules import (
    DEFAULTS,
    Action,
    Condition,
    Rule,
    defaults,
    filled,
    matching,
    merged,
    parse,
    parse_all,
)
from spiral_core.errors import ConfigError

GUIDE = "when zspace.zbn1.radius_rel_mean > 0.8 set zspace.zbn1.gain = 0.5"

numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.sampled_from(["train.loss", "optim.gradient_norm", "zspace.zbn1.saturation", "zspace.*.jacobian_mean"])


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    names = tuple(draw(st.lists(values, min_size=1, max_size=3)))
    match draw(st.sampled_from(["above", "below", "not finite", "spike"])):
        case "not finite":
            return Condition(names, "not finite")
        case "spike":
            return Condition(names, "spike", draw(st.floats(1e-3, 1e6)), draw(st.integers(10, 1000)))
        case "above":
            return Condition(names, "above", draw(numbers))
        case _:
            return Condition(names, "below", draw(numbers))


actions = st.one_of(
    st.builds(Action, st.just("mark"), critical=st.booleans()),
    st.just(Action("pause", critical=True)),
    st.builds(
        Action, st.just("set"), knob=st.just("optim.lr"), setting=st.one_of(numbers, st.sampled_from(["off", "sgd"]))
    ),
    st.builds(
        Action,
        st.just("rollback"),
        critical=st.just(True),
        factor=st.floats(1e-6, 1),
        times=st.integers(1, 100),
    ),
)
rules = st.builds(
    Rule,
    st.one_of(st.just(""), st.from_regex(r"[a-z][a-z0-9_]{0,23}", fullmatch=True)),
    conditions(),
    actions,
    steps=st.integers(1, 10**6),
    rest=st.integers(0, 10**6),
    on=st.booleans(),
)


@pytest.mark.parametrize("line", [*defaults("zbn1"), GUIDE])
def test_every_line_that_is_shipped_is_printed_back_exactly(line: str) -> None:
    assert str(parse(line)) == line


@given(rules)
def test_every_rule_is_read_back_from_its_line(rule: Rule) -> None:
    assert parse(str(rule)) == rule


def test_the_migration_guides_rule_is_an_example_that_is_off() -> None:
    example = parse(defaults("zbn1")[-1])
    assert not example.on
    assert str(parse(GUIDE)) == str(example).removeprefix("guide: off ")
    assert all(parse(line).on for line in DEFAULTS)


@given(st.lists(st.sampled_from([*" ".join([*DEFAULTS, GUIDE]).split(), "nan", "-1", "1e999", "½", "="]), max_size=12))
def test_any_words_are_a_rule_or_are_refused_with_an_example(words: list[str]) -> None:
    reason = ""
    try:
        rule = parse(" ".join(words))
    except ConfigError as error:
        reason = str(error)
    else:
        assert parse(str(rule)) == rule
    assert not reason or "a rule reads like: when" in reason


@given(st.text())
def test_any_text_is_a_rule_or_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a rule reads like"):
        parse(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "'when' must stand at the end"),
        ("when", "the name of a value must stand at the end"),
        ("when train.loss", "> NUMBER, < NUMBER or is not finite must stand at the end"),
        ("when train.loss > lots mark", "a finite number (limit) must stand where 'lots' stands"),
        ("when train.loss > nan mark", "a finite number (limit)"),
        ("when train.loss > 1e999 mark", "a finite number (limit)"),
        ("when train.loss > 3", "mark, pause, set KNOB = VALUE or roll back must stand at the end"),
        ("when train.loss > 3 explode", "must stand where 'explode' stands"),
        ("when train.loss > 3 mark twice", "'twice' is too much"),
        ("when train.loss > 3 for 0 mark", "whole number between 1 and 1000000"),
        ("when train.loss > 3 for 1.5 mark", "whole number between 1 and 1000000"),
        ("when train.loss > 3 x its median of 5 mark", "whole number between 10 and 1000"),
        ("when train.loss > -3 x its median of 50 mark", "positive number of medians"),
        ("when train.loss > 3 roll back", "',' must stand at the end"),
        ("when train.loss > 3 roll back, lr x 2, at most 3 times", "at most 1, not 2"),
        ("when train.loss > 3 roll back, lr x 0.5, at most 0 times", "between 1 and 100"),
        ("when train.loss > 3 set optim.lr = nan", "a number or a choice"),
        ("when train.loss > 3 set zspace.*.gain = 0.5", "name the layer"),
        ("Spike!: when train.loss > 3 mark", "is no name"),
        ("when Train.Loss > 3 mark", "the name of a value must stand where 'Train.Loss' stands"),
    ],
)
def test_garbage_is_refused_in_words_that_help(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    assert words in str(caught.value)
    assert repr(line) in str(caught.value)
    assert "a rule reads like: when train.loss is not finite roll back, lr x 0.5, at most 3 times" in str(caught.value)


def test_rules_without_a_name_are_numbered_and_two_of_one_name_are_refused() -> None:
    assert [rule.name for rule in parse_all([GUIDE, "spike: " + GUIDE, GUIDE])] == ["rule_1", "spike", "rule_3"]
    with pytest.raises(ConfigError, match="another rule is called spike"):
        parse_all(["spike: " + GUIDE, "spike: " + GUIDE])
    assert len(parse_all(defaults("zln1"))) == len(DEFAULTS) + 1


def test_a_line_replaces_the_rule_that_has_its_name_and_others_are_added() -> None:
    spike = "spike: when train.loss > 9 mark"
    together = merged(DEFAULTS, [spike, GUIDE])
    assert len(together) == len(DEFAULTS) + 1
    assert together[[parse(line).name for line in DEFAULTS].index("spike")] == spike
    assert together[-1] == GUIDE


def test_a_star_stands_for_each_layer_and_carries_over_to_the_knob() -> None:
    names = ("train.loss", "zspace.zbn1.gain", "zspace.zbn2.gain", "zspace.gain")
    assert matching("zspace.*.gain", names) == ("zspace.zbn1.gain", "zspace.zbn2.gain")
    assert matching("train.loss", names) == ("train.loss",)
    assert matching("train.lo", names) == ()
    assert filled("zspace.*.gain", "zspace.*.saturation", "zspace.zbn2.saturation") == "zspace.zbn2.gain"
    assert filled("optim.lr", "zspace.*.saturation", "zspace.zbn2.saturation") == "optim.lr"
