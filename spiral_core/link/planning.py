"""A journal as a plan: the configuration that trains a run again with no one steering."""

from __future__ import annotations

import msgspec

from spiral_core.engine.config import RunConfig, Steer, changed
from spiral_core.errors import ConfigError
from spiral_core.link.applied import History
from spiral_core.link.resume import checked_config
from spiral_core.link.rundir import RunDir

GUARD_KNOBS = "guard."
"""How the names of the knobs begin that steer guards."""


def as_config(directory: RunDir, history: History) -> str:
    """Give the configuration of a run, as JSON, with everything that was set as its plan.

    Raises
    ------
    RunLogError
        The run's files are damaged, or are not of one run.
    """
    config = planned(checked_config(directory, history), history)
    return msgspec.json.format(msgspec.json.encode(config)).decode()


def planned(config: RunConfig, history: History) -> RunConfig:
    """Put what was set into a configuration; what the old one planned has been applied, and stands in the log.

    What guards have set is in the plan, so the new run has none, and none of the knobs that steer them.

    Raises
    ------
    ConfigError
        A guard has gone back to earlier weights.
    """
    back = next((entry for entry in history.entries if entry.verb == "rollback"), None)
    if back is not None:
        raise ConfigError(
            f"at step {back.step} a guard went back to the weights of step {back.to_step}, which no configuration can "
            "plan: use spiral replay, or train with the guards of the run's own configuration"
        )
    chosen = [
        (entry.step, [setting for setting in entry.sets if not setting.knob.startswith(GUARD_KNOBS)])
        for entry in history.entries
        if entry.verb == "set"
    ]
    steering = [Steer(step=step, sets=tuple(sets)) for step, sets in chosen if sets]
    changes: dict[str, object] = {"steering": msgspec.to_builtins(steering), "guards": ()}
    stop = next((entry for entry in history.entries if entry.verb == "stop"), None)
    if stop is not None and stop.step > 1:
        # A schedule keeps the length that it was given.
        length = config.schedule_length if config.schedule != "constant" else 0
        changes |= {"steps": stop.step - 1, "schedule_steps": length}
    return changed(config, **changes)
