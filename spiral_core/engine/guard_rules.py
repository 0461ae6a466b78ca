"""Guard rules: one line of text each, and the same as data.

The grammar, with words in capitals to be filled in and brackets around what may be left out::

    RULE      = [NAME:] [off] when VALUE [or VALUE]... TEST [for STEPS] ACTION [, rest STEPS]
    TEST      = > NUMBER  |  < NUMBER  |  is not finite  |  > NUMBER x its median of STEPS
    ACTION    = mark [critical]  |  pause  |  set KNOB = SETTING  |  roll back, lr x FACTOR, at most TIMES times

A VALUE is a curve's name with dots, such as ``train.loss`` or ``zspace.zbn1.saturation``; ``zspace.*.saturation`` is
that of every layer, each followed for itself. In the KNOB a ``*`` is the layer whose value made the rule act.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from spiral_core.errors import ConfigError

Test = Literal["above", "below", "not finite", "spike"]
Deed = Literal["mark", "pause", "set", "rollback"]

MOST_STEPS = 10**6
"""Longest count in a rule."""
LEAST_WINDOW, MOST_WINDOW = 10, 1000
"""Values that a median is taken of: fewer are no median, and more would be sorted at every step."""
MOST_TIMES = 100

_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
_DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.([a-z0-9_]+|\*))*")
_TOKENS = re.compile(r"[^\s,]+|,")
_FORM = "a rule reads like: when train.loss is not finite roll back, lr x 0.5, at most 3 times"

DEFAULTS = (
    "not_finite: when train.loss or optim.gradient_norm is not finite roll back, lr x 0.5, at most 3 times",
    "explosion: when train.loss_over_chance > 10 roll back, lr x 0.5, at most 3 times",
    "spike: when train.loss > 4 x its median of 50 mark, rest 50",
    "saturating: when zspace.*.saturation_excess > 0.1 for 5 mark, rest 100",
    "saturated: when zspace.*.saturation > 0.5 for 5 mark critical, rest 100",
    "flat: when zspace.*.jacobian_mean < 0.2 for 5 mark, rest 100",
    "flat_out: when zspace.*.jacobian_mean < 0.02 for 5 mark critical, rest 100",
    "collapsing: when zspace.*.radius_ratio < 0.5 for 5 mark, rest 100",
    "collapsed: when zspace.*.radius_ratio < 0.1 for 5 mark critical, rest 100",
    "windup: when zspace.*.windup > 0 for 50 mark, rest 500",
    "windup_long: when zspace.*.windup > 0 for 500 mark critical, rest 500",
)
"""The rules that every run begins with, unless told otherwise; all are on."""


@dataclass(frozen=True)
class Condition:
    """Which values are looked at, and for what.

    Parameters
    ----------
    values : tuple of str
        Names; a part of a name may be ``*``.
    test : "above", "below", "not finite" or "spike"
    limit : float
        What a value is compared with; of a spike, how many times the median. Without meaning for "not finite".
    window : int
        Values that the median of a spike is taken of.
    """

    values: tuple[str, ...]
    test: Test
    limit: float = 0.0
    window: int = 0

    def __str__(self) -> str:
        values = " or ".join(self.values)
        match self.test:
            case "above":
                return f"{values} > {_plain(self.limit)}"
            case "below":
                return f"{values} < {_plain(self.limit)}"
            case "spike":
                return f"{values} > {_plain(self.limit)} x its median of {self.window}"
            case "not finite":
                return f"{values} is not finite"


@dataclass(frozen=True)
class Action:
    """What a rule does.

    Parameters
    ----------
    deed : "mark", "pause", "set" or "rollback"
    critical : bool
        Whether weights of steps at which the rule's condition holds are not good enough to roll back to.
    knob, setting
        What is set to what.
    factor : float
        What a rollback multiplies the learning rate by.
    times : int
        Rollbacks before the rule pauses the run instead.
    """

    deed: Deed
    critical: bool = False
    knob: str = ""
    setting: float | str = 0.0
    factor: float = 1.0
    times: int = 0

    def __str__(self) -> str:
        match self.deed:
            case "mark":
                return "mark critical" if self.critical else "mark"
            case "pause":
                return "pause"
            case "set":
                setting = self.setting if isinstance(self.setting, str) else _plain(self.setting)
                return f"set {self.knob} = {setting}"
            case "rollback":
                return f"roll back, lr x {_plain(self.factor)}, at most {self.times} times"


@dataclass(frozen=True)
class Rule:
    """A guard rule; ``str(rule)`` is its line, and `parse` reads that line back.

    Parameters
    ----------
    name : str
        Empty where the line gives none; `parse_all` then numbers it.
    condition : Condition
    steps : int
        For how many steps in a row the condition must hold.
    action : Action
    rest : int
        Least number of steps between two acts for the same value.
    on : bool
    """

    name: str
    condition: Condition
    action: Action
    steps: int = 1
    rest: int = 0
    on: bool = True

    def __str__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        steps = f" for {self.steps}" if self.steps > 1 else ""
        rest = f", rest {self.rest}" if self.rest else ""
        return f"{name}{'' if self.on else 'off '}when {self.condition}{steps} {self.action}{rest}"


def defaults(layer: str) -> tuple[str, ...]:
    """Return the lines of `DEFAULTS`, and as an example the migration guide's own rule for a layer, which is off."""
    return (*DEFAULTS, f"guide: off when zspace.{layer}.radius_rel_mean > 0.8 set zspace.{layer}.gain = 0.5")


def parse(line: str) -> Rule:
    """Read one rule.

    Raises
    ------
    ConfigError
        The line does not follow the grammar, or a number in it is out of its bounds.
    """
    return _Reader(line).rule()


def parse_all(lines: Sequence[str]) -> tuple[Rule, ...]:
    """Read rules; those without a name are called ``rule_1`` and so on, by their place in the list.

    Raises
    ------
    ConfigError
        A line cannot be read, or two rules have one name.
    """
    rules: list[Rule] = []
    for place, line in enumerate(lines, start=1):
        rule = parse(line)
        rules.append(rule if rule.name else replace(rule, name=f"rule_{place}"))
        if [known.name for known in rules].count(rules[-1].name) > 1:
            raise ConfigError(
                f"guard {line!r}: another rule is called {rules[-1].name}; give each its own name", field="guards"
            )
    return tuple(rules)


def merged(lines: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Add lines to others; a rule replaces the one that has its name, in its place."""
    place = {parse(line).name: number for number, line in enumerate(lines) if parse(line).name}
    together = list(lines)
    for line in more:
        name = parse(line).name
        if name in place:
            together[place[name]] = line
        else:
            together.append(line)
    return tuple(together)


@lru_cache(maxsize=256)
def matching(pattern: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a pattern stands for, in their order."""
    if "*" not in pattern:
        return (pattern,) if pattern in names else ()
    expression = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+"))
    return tuple(name for name in names if expression.fullmatch(name))


def filled(knob: str, pattern: str, name: str) -> str:
    """Put what ``*`` stands for in ``name``, which matches ``pattern``, into the name of a knob."""
    parts = [part for part, place in zip(name.split("."), pattern.split("."), strict=True) if place == "*"]
    for part in parts:
        knob = knob.replace("*", part, 1)
    return knob


class _Reader:
    """Reads the tokens of one line from left to right."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._tokens = _TOKENS.findall(line)
        self._at = 0

    def rule(self) -> Rule:
        name = ""
        if self._next().endswith(":"):
            name = self._take()[:-1]
            if not _NAME.fullmatch(name):
                raise self._wrong(f"{name!r} is no name: 1 to 24 small letters, digits and underscores")
        on = not self._skip("off")
        self._expect("when")
        values = [self._dotted("value")]
        while self._skip("or"):
            values.append(self._dotted("value"))
        condition = self._test(tuple(values))
        steps = self._count("for", 1, MOST_STEPS) if self._skip("for") else 1
        action = self._action()
        rest = 0
        if self._skip(","):
            self._expect("rest")
            rest = self._count("rest", 1, MOST_STEPS)
        if self._at < len(self._tokens):
            raise self._wrong(f"{self._next()!r} is too much")
        if action.knob.count("*") > min(value.count("*") for value in values):
            raise self._wrong(f"{action.knob} has a * where not every value has one; name the layer")
        return Rule(name, condition, action, steps, rest, on)

    def _test(self, values: tuple[str, ...]) -> Condition:
        if self._skip("is"):
            self._expect("not")
            self._expect("finite")
            return Condition(values, "not finite")
        if self._skip("<"):
            return Condition(values, "below", self._number("limit"))
        self._expect(">", "> NUMBER, < NUMBER or is not finite")
        limit = self._number("limit")
        if not self._skip("x"):
            return Condition(values, "above", limit)
        for word in ("its", "median", "of"):
            self._expect(word)
        if limit <= 0:
            raise self._wrong(f"a spike is a positive number of medians, not {_plain(limit)}")
        return Condition(values, "spike", limit, self._count("median of", LEAST_WINDOW, MOST_WINDOW))

    def _action(self) -> Action:
        if self._skip("mark"):
            return Action("mark", critical=self._skip("critical"))
        if self._skip("pause"):
            return Action("pause", critical=True)
        if self._skip("set"):
            knob = self._dotted("knob")
            self._expect("=")
            return Action("set", knob=knob, setting=self._setting())
        self._expect("roll", "mark, pause, set KNOB = VALUE or roll back")
        for word in ("back", ",", "lr", "x"):
            self._expect(word)
        factor = self._number("factor")
        if not 0 < factor <= 1:
            raise self._wrong(f"a rollback multiplies the learning rate by more than 0 and at most 1, not {factor:g}")
        for word in (",", "at", "most"):
            self._expect(word)
        times = self._count("at most", 1, MOST_TIMES)
        self._expect("times")
        return Action("rollback", critical=True, factor=factor, times=times)

    # Tokens.

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self._at += 1
        return token

    def _skip(self, word: str) -> bool:
        found = self._next() == word
        self._at += found
        return found

    def _expect(self, word: str, wanted: str = "") -> None:
        if not self._skip(word):
            raise self._wrong(f"{wanted or repr(word)} must stand {self._where()}")

    def _where(self) -> str:
        return f"where {self._next()!r} stands" if self._next() else "at the end"

    def _dotted(self, what: str) -> str:
        if not _DOTTED.fullmatch(self._next()):
            raise self._wrong(f"the name of a {what} must stand {self._where()}")
        return self._take()

    def _number(self, what: str) -> float:
        number = _finite(self._next())
        if number is None:
            raise self._wrong(f"a finite number ({what}) must stand {self._where()}")
        self._at += 1
        return number

    def _setting(self) -> float | str:
        number = _finite(self._next())
        if number is not None:
            self._at += 1
            return number
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self._next()) or self._next() in ("nan", "inf", "infinity"):
            raise self._wrong(f"a number or a choice must stand {self._where()}")
        return self._take()

    def _count(self, what: str, least: int, most: int) -> int:
        token = self._take()
        if not re.fullmatch(r"[0-9]{1,9}", token) or not least <= int(token) <= most:
            raise self._wrong(f"after {what!r} a whole number between {least} and {most} must stand, not {token!r}")
        return int(token)

    def _wrong(self, problem: str) -> ConfigError:
        return ConfigError(f"guard {self._line!r}: {problem}; {_FORM}", field="guards")


def _finite(token: str) -> float | None:
    """Read a number as people write it; underscores and words such as ``nan`` are none."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", token):
        return None
    number = float(token)
    return number if math.isfinite(number) else None


def _plain(number: float) -> str:
    """Write a number with as few digits as read back exactly."""
    return repr(float(number)).removesuffix(".0")
