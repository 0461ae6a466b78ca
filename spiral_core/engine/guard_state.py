"""What guards remember between steps, and how they follow the values: plain data, so that a checkpoint can carry it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

from spiral_core.engine.guard_rules import LEAST_WINDOW, Rule, filled, matching


@dataclass(frozen=True)
class Alarm:
    """A rule whose time has come, for one value.

    Parameters
    ----------
    rule : Rule
    pattern, name : str     the name in the rule, and the one that it stands for
    value : float           at this step
    usual : float           the median that a spike was compared with; else NaN
    """

    rule: Rule
    pattern: str
    name: str
    value: float
    usual: float = math.nan

    def __str__(self) -> str:
        condition = self.rule.condition
        what = f"{self.name} = {self.value:.4g}"
        match condition.test:
            case "above":
                return f"{what}, above {condition.limit:g}"
            case "below":
                return f"{what}, below {condition.limit:g}"
            case "spike":
                return f"{what}, {self.value / self.usual:.3g} times its median {self.usual:.4g}"
            case "not finite":
                return f"{what} is not finite"

    @property
    def knob(self) -> str:
        """The knob that the rule sets."""
        return filled(self.rule.action.knob, self.pattern, self.name)


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one step: who is to act, and whether a critical condition holds."""

    alarms: tuple[Alarm, ...]
    critical: bool


class _Pair(NamedTuple):
    """A rule and one of the values that it looks at."""

    rule: Rule
    pattern: str
    name: str
    key: str
    window: str
    """Key of the window whose median the value is compared with; empty where it is not."""


@dataclass(frozen=True)
class _Watched:
    """All pairs of these rules and names."""

    rules: tuple[Rule, ...]
    names: tuple[str, ...]
    pairs: tuple[_Pair, ...]
    windows: Mapping[str, tuple[str, int]]
    """Name and length of each window."""


def _watched(rules: tuple[Rule, ...], names: tuple[str, ...]) -> _Watched:
    pairs: list[_Pair] = []
    windows: dict[str, tuple[str, int]] = {}
    for rule in rules:
        length = rule.condition.window
        for pattern in rule.condition.values:
            for name in matching(pattern, names):
                window = f"{name} {length}" if rule.condition.test == "spike" else ""
                pairs.append(_Pair(rule, pattern, name, f"{rule.name} {name}", window))
                if window:
                    windows[window] = (name, length)
    return _Watched(rules, names, tuple(pairs), windows)


@dataclass
class GuardState:
    """The rules in force and all that they remember.

    Keys are the rule's name and the value's, with a space between; windows have the value's name and the length.
    """

    rules: tuple[Rule, ...] = ()
    streaks: dict[str, int] = field(default_factory=dict)
    """Steps in a row, this one included, that a condition has held."""
    spent: list[str] = field(default_factory=list)
    """Conditions that hold still and were acted on: they must fail before they act again."""
    acted: dict[str, int] = field(default_factory=dict)
    """The step at which a rule acted last."""
    windows: dict[str, list[float]] = field(default_factory=dict)
    """The last finite values, for medians."""
    tries: dict[str, int] = field(default_factory=dict)
    """Rollbacks by rule."""
    _watched: _Watched | None = field(default=None, repr=False, compare=False)
    """Follows from the rules; kept, because to match names with patterns takes longer than to judge values."""

    def follow(self, step: int, values: Mapping[str, float]) -> Verdict:
        """Take in the values of a step."""
        names = tuple(values)
        if self._watched is None or self._watched.rules is not self.rules or self._watched.names != names:
            self._watched = _watched(self.rules, names)
        alarms: list[Alarm] = []
        critical = False
        for rule, pattern, name, key, window in self._watched.pairs:
            value = values[name]
            usual = self._usual(window)
            if not rule.on or not _holds(rule, value, usual):
                self._rest(key)
                continue
            due, holds = self._judge(rule, key, step)
            critical |= holds and rule.action.critical
            if due:
                alarms.append(Alarm(rule, pattern, name, value, usual))
        self._remember(values, self._watched.windows)
        return Verdict(tuple(alarms), critical)

    def _rest(self, key: str) -> None:
        self.streaks.pop(key, None)
        if key in self.spent:
            self.spent.remove(key)

    def _judge(self, rule: Rule, key: str, step: int) -> tuple[bool, bool]:
        """Tell whether a rule whose condition holds is to act now, and whether it has held for as long as it asks."""
        self.streaks[key] = self.streaks.get(key, 0) + 1
        if self.streaks[key] < rule.steps:
            return False, False
        if key in self.spent or (key in self.acted and step - self.acted[key] < rule.rest):
            return False, True
        self.spent.append(key)
        self.acted[key] = step
        return True, True

    def _usual(self, window: str) -> float:
        """Give the median of the steps before; NaN where there are too few, or none is asked for."""
        held = self.windows.get(window, ())
        return median(held) if len(held) >= LEAST_WINDOW else math.nan

    def _remember(self, values: Mapping[str, float], windows: Mapping[str, tuple[str, int]]) -> None:
        for key, (name, length) in windows.items():
            if math.isfinite(values[name]):
                window = self.windows.setdefault(key, [])
                window.append(values[name])
                del window[:-length]

    def rearm(self) -> None:
        """Forget which conditions hold: the weights that they were seen with are gone."""
        self.streaks.clear()
        self.spent.clear()

    # Steering.

    def rule(self, name: str) -> Rule:
        """Return the rule of that name."""
        # Asked dozens of times while a command is applied; a generator takes two to six times as long.
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)

    def switch(self, name: str, on: bool) -> None:
        """Turn a rule on or off."""
        self._exchange(replace(self.rule(name), on=on))

    def limit(self, name: str, limit: float) -> None:
        """Set what a rule compares its values with."""
        rule = self.rule(name)
        self._exchange(replace(rule, condition=replace(rule.condition, limit=limit)))

    def _exchange(self, new: Rule) -> None:
        self.rules = tuple(new if rule.name == new.name else rule for rule in self.rules)


def _holds(rule: Rule, value: float, usual: float) -> bool:
    limit = rule.condition.limit
    match rule.condition.test:
        case "above":
            return value > limit
        case "below":
            return value < limit
        case "spike":
            # A median of 0 has no multiples, and a value that is not finite is the matter of another rule.
            return usual > 0 and limit * usual < value < math.inf
        case "not finite":
            return not math.isfinite(value)
