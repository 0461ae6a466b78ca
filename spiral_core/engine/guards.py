"""Guard rails: what declared rules make of a step, and how that is carried out.

Deciding and carrying out are two things: a run that trains decides after each update and carries out at once, a replay
carries out what the applied log says and decides nothing. Both are functions of the run's state.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from spiral_core.engine import controls, guard_values, knobs, rollback
from spiral_core.engine.controls import Outcome
from spiral_core.engine.guard_rules import Action, Rule, matching
from spiral_core.engine.guard_state import Alarm
from spiral_core.engine.knobs import Knob
from spiral_core.engine.state import RunState
from spiral_core.engine.step import UpdateReport
from spiral_core.errors import ConfigError, StateError
from spiral_core.wire import knobs as bounds
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Change, Setting, Value, Verb

ACTOR = "guard"
"""Who acts, and by which way: the words of the journal."""
RATE = "optim.lr"


@dataclass(frozen=True)
class Decision:
    """What a rule wants done between two steps.

    Parameters
    ----------
    rule : str
    step : int
        The update that it was decided after.
    verb : "mark", "pause", "set" or "rollback"
    reason : str
        In words, with the values that were seen.
    sets : list of Setting
        Of a rollback the learning rate to go on with, if it is cut.
    to_step : int, optional
        The snapshot that a rollback goes back to.
    """

    rule: str
    step: int
    verb: Verb
    reason: str
    sets: list[Setting] = field(default_factory=list)
    to_step: int | None = None

    @property
    def id(self) -> str:
        """Tell it from all others of a run."""
        return f"{ACTOR}-{self.step}-{self.rule}"


# Deciding.


def begin(state: RunState) -> None:
    """Keep the weights that a run begins with, unless it has some already: the first ones need no trial."""
    first = None if state.snapshots.trusted else rollback.capture(state)
    if first is not None:
        state.snapshots.trust(first)


def decide(state: RunState, report: UpdateReport) -> list[Decision]:
    """Take in the update just done; give what is to be done before the next one, in the order of the rules.

    At most one of the decisions is a rollback: the weights that the others would mend are gone. Of a run that is over
    nothing but marks are made. Snapshots are judged and taken here as well, so call it after every update.
    """
    verdict = state.guards.follow(state.step, guard_values.step_values(state, report))
    groups: dict[str, list[Alarm]] = {}
    for alarm in verdict.alarms:
        groups.setdefault(alarm.rule.name, []).append(alarm)
    decisions: list[Decision] = []
    back = False
    for alarms in groups.values():
        action = alarms[0].rule.action
        if action.deed != "mark" and (state.phase == "finished" or (back and action.deed == "rollback")):
            continue
        decision = _decision(state, alarms)
        if decision is not None:
            decisions.append(decision)
            back |= decision.verb == "rollback"
    state.snapshots.after_step(state, verdict.critical)
    if back:
        state.guards.rearm()
    return decisions


def _decision(state: RunState, alarms: list[Alarm]) -> Decision | None:
    rule = alarms[0].rule
    reason = f"{rule.name}: {'; '.join(map(str, alarms))}"
    match rule.action.deed:
        case "mark":
            return Decision(rule.name, state.step, "mark", reason)
        case "pause":
            return Decision(rule.name, state.step, "pause", reason)
        case "set":
            in_force = knobs.in_force(state)
            wanted = dict.fromkeys(alarm.knob for alarm in alarms)
            rows = knobs.table(state)
            sets = [Setting(knob=knob, value=_value(rows[knob], rule.action)) for knob in wanted]
            sets = [setting for setting in sets if in_force.get(setting.knob) != setting.value]
            return Decision(rule.name, state.step, "set", reason, sets) if sets else None
        case "rollback":
            return _back(state, rule, reason)


def _value(knob: Knob, action: Action) -> Value:
    """Give what a rule sets a knob to; a switch is ``on`` or ``off`` in a rule."""
    if knob.type == "bool" and action.setting in ("on", "off"):
        return action.setting == "on"
    return action.setting


def _back(state: RunState, rule: Rule, reason: str) -> Decision:
    """Decide to go back, or to pause where there is no way back, or where it did not help.

    A person who lets the run go on after such a pause gives the rule its tries again.
    """
    guards, action = state.guards, rule.action
    target = state.snapshots.best(state.optimizer.mode.name)
    tries = guards.tries.get(rule.name, 0)
    if target is None or tries >= action.times:
        why = "nothing to go back to" if target is None else f"went back {tries} times and it came again"
        guards.tries.pop(rule.name, None)
        guards.rearm()
        return Decision(rule.name, state.step, "pause", f"{reason}; {why}")
    guards.tries[rule.name] = tries + 1
    words = f"{reason}; back to the weights of step {target.step}, try {tries + 1} of {action.times}"
    # The lower of the two, for the rate in force may be what did the harm, and a second rollback to one snapshot is to
    # cut once more. A schedule that has come down to 0 needs no cut.
    rate = action.factor * min(state.rates.at(state.step + 1), target.lr)
    sets = [Setting(knob=RATE, value=rate)] if rate > 0 else []
    return Decision(rule.name, state.step, "rollback", words, sets, to_step=target.step)


# Carrying out.


def carry_out(state: RunState, decision: Decision) -> tuple[Command, Outcome]:
    """Do what was decided, wholly or not at all; give it in the form of a command and its outcome.

    The engine numbers what it does by itself -1, -2 and so on; commands of the journal count up from 1.

    Raises
    ------
    StateError
        A rollback to a step of which there is no snapshot; nothing was changed.
    """
    command = Command(
        # The run log knows the run, and nobody sends this command anywhere.
        run="",
        number=-(state.own_entries + 1),
        id=decision.id,
        verb=decision.verb,
        sets=decision.sets,
        actor=ACTOR,
        source=ACTOR,
        time=0.0,
    )
    match decision.verb:
        case "mark":
            outcome = Outcome("applied", decision.step, state.rev, [], decision.reason)
        case "rollback":
            outcome = go_back(state, decision.sets, decision.to_step, decision.reason)
        case _:
            done = controls.apply(state, command)
            reason = f"{decision.reason}; {done.reason}" if done.reason else decision.reason
            outcome = replace(done, reason=reason)
    state.own_entries += 1
    return command, outcome


def go_back(state: RunState, sets: list[Setting], to_step: int | None, reason: str) -> Outcome:
    """Bring back the weights of a snapshot, and set the rate to go on with.

    Raises
    ------
    StateError
        There is no snapshot of that step; nothing was changed.
    """
    target = None if to_step is None else state.snapshots.at(to_step)
    if target is None:
        raise StateError(
            f"cannot roll back after step {state.step}: no snapshot of step {to_step} was kept; see guards.keep"
        )
    before = knobs.in_force(state)
    rollback.restore(state, target)
    step = state.step + 1
    for setting in sets:
        state.rates.steer(step, float(setting.value))
    state.rev += 1
    after = knobs.in_force(state)
    changes = [
        Change(knob=name, old=before[name], in_force=after[name]) for name in after if after[name] != before[name]
    ]
    state.since.update((change.knob, step) for change in changes)
    return Outcome("applied", step, state.rev, changes, reason, to_step=to_step)


def keep(state: RunState, wanted: Container[int]) -> None:
    """Keep a snapshot of the step just done if it is wanted: what a replay does where a run that trains decides.

    Parameters
    ----------
    state : RunState
    wanted : container of int
        The steps that the log's rollbacks go back to.
    """
    if state.step in wanted and (snapshot := rollback.capture(state)) is not None:
        state.snapshots.trust(snapshot)


# Checking.


def check(state: RunState) -> None:
    """See that every rule speaks of values that the run has, and sets knobs to what they may hold.

    Raises
    ------
    ConfigError
        A rule does not; names it and what there is.
    """
    names = guard_values.names([layer.name for layer in state.z_layers])
    for rule in state.guards.rules:
        for pattern in rule.condition.values:
            # A model without Z-space layers has none that a * could stand for, and that is no mistake.
            if not matching(pattern, names) and ("*" not in pattern or state.z_layers):
                raise ConfigError(
                    f"guard {rule.name}: this run has no value {pattern}; it has {', '.join(names)}", field="guards"
                )
        if rule.action.deed == "set" and (reason := _unsettable(state, rule.action)) is not None:
            raise ConfigError(f"guard {rule.name}: {reason}", field="guards")


def _unsettable(state: RunState, action: Action) -> str | None:
    rows = knobs.table(state)
    targets = matching(action.knob, tuple(rows))
    if not targets and ("*" not in action.knob or state.z_layers):
        return f"this run has no knob {action.knob}; it has {', '.join(rows)}"
    reasons = (bounds.refusal(rows[target].spec(state), _value(rows[target], action)) for target in targets)
    return next((reason for reason in reasons if reason is not None), None)


def notable(decisions: Iterable[Decision]) -> str:
    """Join the reasons of decisions for the strip above the page."""
    return "; ".join(f"guard {decision.reason}" for decision in decisions)
