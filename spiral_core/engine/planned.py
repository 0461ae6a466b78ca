"""Steering that the configuration plans: what a journal becomes when its run is to be trained with no one steering."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from spiral_core.engine import controls
from spiral_core.engine.config import RunConfig
from spiral_core.engine.state import RunState
from spiral_core.errors import ConfigError
from spiral_core.wire.messages import Command

SOURCE = "config"


def due(config: RunConfig, update: int) -> list[Command]:
    """Give the commands that are planned for an update, in order; their ids tell them from all others."""
    plan, step = config.steering, attrgetter("step")
    places = range(bisect_left(plan, update, key=step), bisect_right(plan, update, key=step))
    return [_command(config, place) for place in places]


def _command(config: RunConfig, place: int) -> Command:
    return Command(
        run="",
        number=0,
        id=f"{SOURCE}:{place}",
        verb="set",
        sets=list(config.steering[place].sets),
        actor="",
        source=SOURCE,
        time=0.0,
    )


def check(state: RunState) -> None:
    """See that everything planned can be set, before anything is trained.

    Parameters
    ----------
    state : RunState
        Before the first step; it is used up.

    Raises
    ------
    ConfigError
        A knob that the run does not have, a value out of bounds, or one that contradicts another.
    """
    for place, steer in enumerate(state.config.steering):
        outcome = controls.apply(state, _command(state.config, place))
        if outcome.state != "applied":
            raise ConfigError(f"steering at step {steer.step}: {outcome.reason}")
