"""Replay: a run is trained again from its configuration and its applied log, and compared with what was written down.

No server, no courier, no telemetry, no clock. Whoever decided something then (a person, a guard, a plan) decides
nothing now: every entry of the applied log is applied again at its step, along the path that the resumptions have left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from spiral_core import kernels
from spiral_core.engine import guards, step
from spiral_core.engine.config import RunConfig
from spiral_core.engine.state import RunState, initial_state
from spiral_core.errors import RunLogError
from spiral_core.link import applied, environment, hashes
from spiral_core.link.applied import Entry
from spiral_core.link.hashes import Hashes
from spiral_core.link.resume import boundary, checked_config, contradiction, reapply
from spiral_core.link.rundir import RunDir

Listener = Callable[[int, int], None]
"""Called after each update with its number and the number of all."""


@dataclass(frozen=True)
class Difference:
    """Where a replay has first become another run."""

    step: int
    what: str
    """Name of the first tensor, or the value that a command has found or left."""
    same_until: int
    """The last step at which both were compared and the same; 0 for the beginning."""


@dataclass(frozen=True)
class Plan:
    """A run that is to be trained again."""

    directory: RunDir
    config: RunConfig
    entries: tuple[Entry, ...]
    recorded: tuple[Hashes, ...]

    @property
    def steps(self) -> int:
        """Updates until the last state that is compared."""
        return self.recorded[-1].step

    @property
    def commands(self) -> int:
        """Commands that are applied on the way."""
        return len(self.entries)

    @property
    def states(self) -> int:
        """States that are compared."""
        return len(self.recorded)


@dataclass
class Replay:
    """What came of training a run again."""

    compared: int = 0
    """States that were compared."""
    same_until: int = 0
    """The last step at which both were the same."""
    difference: Difference | None = None
    explanations: list[str] = field(default_factory=list)
    """In what the environments differ, where the runs do."""


def plan(directory: RunDir) -> Plan:
    """Read what a run was, up to its last digest.

    Raises
    ------
    RunLogError
        The run's files are missing or damaged, are not of one run, or hold no digest.
    """
    history = applied.read(directory.applied)
    config = checked_config(directory, history)
    recorded = hashes.read(directory.hashes, history)
    if not recorded:
        raise RunLogError(f"{directory.hashes} holds no digest yet: there is nothing to compare a replay with")
    last = (recorded[-1].step, recorded[-1].rev)
    entries = tuple(entry for entry in history.entries if (boundary(entry), entry.rev) <= last)
    return Plan(directory, config, entries, tuple(recorded))


def replay(planned: Plan, listen: Listener | None = None) -> Replay:
    """Train a run again and compare it with its digests, up to the last one or the first difference.

    Raises
    ------
    RunLogError
        Applied log and digests contradict each other.
    """
    state = initial_state(planned.config)
    guards.begin(state)
    kernels.warm(state.kernels, state.model.dtype)
    done = Replay()

    def trained(number: int) -> None:
        if listen is not None:
            listen(number, planned.steps)

    wanted = {entry.to_step for entry in planned.entries if entry.to_step is not None}
    _train(state, deque(planned.entries), deque(planned.recorded), done, wanted, trained)
    if done.difference is not None:
        incarnation = next(one.incarnation for one in planned.recorded if one.step >= done.difference.step)
        done.explanations = environment.differences(planned.directory.environment_of(incarnation))
    return done


def _train(
    state: RunState,
    entries: deque[Entry],
    recorded: deque[Hashes],
    done: Replay,
    wanted: set[int],
    trained: Callable[[int], None],
) -> None:
    while True:
        _compare(state, recorded, done)
        while done.difference is None and entries and boundary(entries[0]) == state.step:
            _apply(state, entries.popleft(), done)
            _compare(state, recorded, done)
        if done.difference is not None or not recorded:
            break
        step.update(state)
        guards.keep(state, wanted)
        trained(state.step)
    if entries and done.difference is None:
        raise RunLogError(f"applied.log has a command for step {entries[0].step} behind later ones")


def _apply(state: RunState, entry: Entry, done: Replay) -> None:
    _, outcome = reapply(state, entry)
    place = contradiction(entry, outcome)
    if place is not None:
        done.difference = Difference(step=entry.step, what=place, same_until=done.same_until)


def _compare(state: RunState, recorded: deque[Hashes], done: Replay) -> None:
    """Compare a state with what was written down of it, if anything was."""
    here = (state.step, state.rev)
    if done.difference is not None or not recorded or (recorded[0].step, recorded[0].rev) > here:
        return
    then = recorded.popleft()
    if (then.step, then.rev) != here:
        raise RunLogError(
            f"hashes.log knows revision {then.rev} at step {then.step}, and applied.log does not lead there: one of "
            "them is not of this run"
        )
    done.compared += 1
    name = _first_difference(then.tensors, hashes.hashes_of(state, then.incarnation).tensors)
    if name is None:
        done.same_until = state.step
    else:
        done.difference = Difference(step=state.step, what=name, same_until=done.same_until)


def _first_difference(then: dict[str, str], now: dict[str, str]) -> str | None:
    return next((name for name in (*now, *then) if then.get(name) != now.get(name)), None)
