"""Knobs of the guards: each rule's switch, and the limit of those that compare with a number."""

from __future__ import annotations

from functools import lru_cache

from spiral_core.engine.guard_rules import Rule, parse_all
from spiral_core.engine.knobs.row import Knob, switch
from spiral_core.engine.state import RunState

SPAN = 1000.0
"""How many times larger or smaller than at the start a limit may be set."""
_AROUND_ONE = frozenset(
    {
        "accuracy",
        "radius_rel_mean",
        "radius_ratio",
        "jacobian_mean",
        "saturation",
        "saturation_excess",
        "gain",
        "windup",
    }
)
"""Last parts of the names of values that lie between 0 and 1, or not far from there."""


def knobs(state: RunState) -> tuple[Knob, ...]:
    """Return the rows of this run's rules, in their order; bounds are those of the start."""
    return _of_rules(state.config.guards)


@lru_cache(maxsize=16)
def _of_rules(lines: tuple[str, ...]) -> tuple[Knob, ...]:
    rows = []
    for rule in parse_all(lines):
        rows.append(_switch(rule))
        if rule.condition.test != "not finite":
            rows.append(_limit(rule))
    return tuple(rows)


def _switch(rule: Rule) -> Knob:
    name = rule.name
    return switch(
        f"guard.{name}.on",
        "guards",
        f"Whether this rule is followed: {rule}",
        lambda state: state.guards.rule(name).on,
        lambda state, value: state.guards.switch(name, value),
        alone=True,
    )


def _limit(rule: Rule) -> Knob:
    name, limit, spike = rule.name, rule.condition.limit, rule.condition.test == "spike"
    around_one = all(value.rsplit(".", 1)[-1] in _AROUND_ONE for value in rule.condition.values)
    if around_one and not spike:
        low, high = min(0.0, limit), max(1.0, limit)
    elif limit > 0:
        low, high = limit / SPAN, limit * SPAN
    else:
        low, high = min(-1.0, limit * SPAN), max(1.0, -limit * SPAN)
    log = limit > 0 and low > 0
    return Knob(
        name=f"guard.{name}",
        group="guards",
        help=f"{'How many medians' if spike else 'What its values are compared with'}, in this rule: {rule}",
        read=lambda state: state.guards.rule(name).condition.limit,
        write=lambda state, value: state.guards.limit(name, value),
        scale="log" if log else "linear",
        low=low,
        high=high,
        step=1.1 if log else 0.01,
        alone=True,
    )
