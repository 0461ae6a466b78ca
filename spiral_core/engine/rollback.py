"""Snapshots of what a run has learnt, kept in memory, and the way back to them.

A rollback after step s to the snapshot of step r < s brings back weights, running statistics, the optimizer's moments
and the loss scale as they were after update r. The count of steps goes on, so that every frame stays as it was and each
batch is still drawn by its own number; what a person has set stays set, except the learning rate, which is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spiral_core.arrays import AnyArray

if TYPE_CHECKING:
    from spiral_core.engine.state import RunState

EVERY = 25
"""Steps between snapshots."""
TRIAL = 5
"""Steps without a critical alarm after which a snapshot is trusted: harm shows only at the step after its cause."""
KEPT = 2
"""Trusted snapshots that are kept."""
_SET_BY_HAND = (".projector_gain", ".curvature")
_RATES = frozenset({"lr", "ratio", "mode", "mode_lr", "curvature"})


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a run had learnt after ``step`` updates.

    Parameters
    ----------
    step : int
    lr : float      the rate that the next update would have used
    mode : str      in which geometry the optimizer stepped: its moments have no meaning in another
    model, optimizer, scaler : mapping
        State dicts; copies.
    """

    step: int
    lr: float
    mode: str
    model: Mapping[str, AnyArray]
    optimizer: Mapping[str, AnyArray]
    scaler: Mapping[str, AnyArray]


@dataclass
class Snapshots:
    """The snapshots that a run may go back to, and one that is on trial."""

    trusted: list[Snapshot] = field(default_factory=list)
    """Oldest first."""
    trial: Snapshot | None = None

    def best(self, mode: str) -> Snapshot | None:
        """Return the newest trusted snapshot of a mode."""
        return next((one for one in reversed(self.trusted) if one.mode == mode), None)

    def at(self, step: int) -> Snapshot | None:
        """Return the trusted snapshot of a step."""
        return next((one for one in self.trusted if one.step == step), None)

    def trust(self, snapshot: Snapshot) -> None:
        """Keep a snapshot among the trusted ones, in place of the oldest."""
        self.trusted = [*self.trusted, snapshot][-KEPT:]

    def after_step(self, state: RunState, critical: bool) -> None:
        """Judge the snapshot on trial by the step just done, and take a new one where it is time."""
        if critical:
            self.trial = None
            return
        if self.trial is not None and state.step - self.trial.step >= TRIAL:
            self.trust(self.trial)
            self.trial = None
        if self.trial is None and (state.step % EVERY == 0 or self.best(state.optimizer.mode.name) is None):
            self.trial = capture(state)


def capture(state: RunState) -> Snapshot | None:
    """Copy what the run has learnt; None where a value is not finite, for nobody would go back there."""
    model, optimizer = state.model.state_dict(), state.optimizer.state_dict()
    if not all(np.isfinite(array).all() for part in (model, optimizer) for array in part.values()):
        return None
    return Snapshot(
        step=state.step,
        lr=state.rates.at(state.step + 1),
        mode=state.optimizer.mode.name,
        model=model,
        optimizer=optimizer,
        scaler=state.scaler.state_dict(),
    )


def restore(state: RunState, snapshot: Snapshot) -> None:
    """Go back to what a run had learnt; the snapshot must be of the optimizer's mode in force.

    Gains and curvatures stay as they are, for they are set by hand; so do the optimizer's rates and its mode, and the
    count of updates that the scaler has skipped.
    """
    held = state.model.state_dict()
    model = {name: held[name] if name.endswith(_SET_BY_HAND) else array for name, array in snapshot.model.items()}
    state.model.load_state_dict(model)
    now = state.optimizer.state_dict()
    moments = {name: now[name] if name in _RATES else array for name, array in snapshot.optimizer.items()}
    state.optimizer.load_state_dict(moments)
    skipped = state.scaler.state_dict()["skipped"]
    state.scaler.load_state_dict({**snapshot.scaler, "skipped": skipped})


_PARTS = ("model", "optimizer", "scaler")


def pack(snapshots: Snapshots) -> tuple[dict[str, AnyArray], list[dict[str, Any]]]:
    """Take snapshots apart into arrays, named ``NUMBER/PART/NAME``, and plain values: for a checkpoint's file.

    A run that is resumed must be able to go back to where one that never stopped would have gone.
    """
    every = [*snapshots.trusted, *([] if snapshots.trial is None else [snapshots.trial])]
    arrays = {
        f"{number}/{part}/{name}": array
        for number, one in enumerate(every)
        for part in _PARTS
        for name, array in getattr(one, part).items()
    }
    plain = [{"step": one.step, "lr": one.lr, "mode": one.mode, "trusted": one is not snapshots.trial} for one in every]
    return arrays, plain


def unpack(arrays: Mapping[str, AnyArray], plain: Sequence[Mapping[str, Any]]) -> Snapshots:
    """Put together what `pack` has taken apart.

    Raises
    ------
    KeyError
        A plain value is missing.
    """
    found = Snapshots()
    for number, told in enumerate(plain):
        parts: dict[str, dict[str, AnyArray]] = {part: {} for part in _PARTS}
        for name, array in arrays.items():
            place, part, rest = name.split("/", 2)
            if place == str(number):
                parts[part][rest] = array
        one = Snapshot(told["step"], told["lr"], told["mode"], **parts)
        if told["trusted"]:
            found.trust(one)
        else:
            found.trial = one
    return found
