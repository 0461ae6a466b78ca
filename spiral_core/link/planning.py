"""A journal as a plan: the configuration that trains a run again with no one steering."""

from __future__ import annotations

import msgspec

from spiral_core.engine.config import RunConfig, Steer, changed
from spiral_core.link.applied import History
from spiral_core.link.resume import checked_config
from spiral_core.link.rundir import RunDir


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
    """Put what was set into a configuration; what the old one planned has been applied, and stands in the log."""
    steering = [Steer(step=entry.step, sets=tuple(entry.sets)) for entry in history.entries if entry.verb == "set"]
    changes: dict[str, object] = {"steering": msgspec.to_builtins(steering)}
    stop = next((entry for entry in history.entries if entry.verb == "stop"), None)
    if stop is not None and stop.step > 1:
        # A schedule keeps the length that it was given.
        length = config.schedule_length if config.schedule != "constant" else 0
        changes |= {"steps": stop.step - 1, "schedule_steps": length}
    return changed(config, **changes)
