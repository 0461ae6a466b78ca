"""What guards remember between steps, and how they follow the values: plain data, so that a checkpoint can carry it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

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

    def follow(self, step: int, values: Mapping[str, float]) -> Verdict:
        """Take in the values of a step."""
        names = tuple(values)
        alarms: list[Alarm] = []
        critical = False
        for rule in self.rules:
            for pattern in rule.condition.values:
                for name in matching(pattern, names):
                    usual = self._usual(rule, name)
                    due, holds = self._judge(rule, name, values[name], usual, step)
                    critical |= holds and rule.action.critical
                    if due:
                        alarms.append(Alarm(rule, pattern, name, values[name], usual))
        self._remember(values, names)
        return Verdict(tuple(alarms), critical)

    def _judge(self, rule: Rule, name: str, value: float, usual: float, step: int) -> tuple[bool, bool]:
        """Tell whether a rule is to act now, and whether its condition has held for as long as it asks."""
        key = f"{rule.name} {name}"
        if not rule.on or not _holds(rule, value, usual):
            self.streaks.pop(key, None)
            if key in self.spent:
                self.spent.remove(key)
            return False, False
        self.streaks[key] = self.streaks.get(key, 0) + 1
        if self.streaks[key] < rule.steps:
            return False, False
        if key in self.spent or (key in self.acted and step - self.acted[key] < rule.rest):
            return False, True
        self.spent.append(key)
        self.acted[key] = step
        return True, True

    def _usual(self, rule: Rule, name: str) -> float:
        """Give the median of the steps before; NaN where there are too few."""
        if rule.condition.test != "spike":
            return math.nan
        window = self.windows.get(f"{name} {rule.condition.window}", ())
        return median(window) if len(window) >= LEAST_WINDOW else math.nan

    def _remember(self, values: Mapping[str, float], names: tuple[str, ...]) -> None:
        wanted = {
            (name, rule.condition.window)
            for rule in self.rules
            if rule.condition.test == "spike"
            for pattern in rule.condition.values
            for name in matching(pattern, names)
        }
        for name, length in wanted:
            if math.isfinite(values[name]):
                window = self.windows.setdefault(f"{name} {length}", [])
                window.append(values[name])
                del window[:-length]

    def rearm(self) -> None:
        """Forget which conditions hold: the weights that they were seen with are gone."""
        self.streaks.clear()
        self.spent.clear()

    # Steering.

    def rule(self, name: str) -> Rule:
        """Return the rule of that name."""
        return next(rule for rule in self.rules if rule.name == name)

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
