"""The state of a run as arrays and plain values, and a state from them: what a checkpoint holds. No file is touched.

Everything that the next update depends on is in it, so that a run which is resumed computes the very bits of one that
never stopped. What is left out is made anew from the configuration (images, probe batch) or is memory that the next
pass writes over (workspaces, the last batch, gradients). Batches are functions of seed and step: ``step`` is the
position in the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, get_type_hints

import msgspec
import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.engine import rollback
from spiral_core.engine.config import RunConfig
from spiral_core.engine.optimization import Rates
from spiral_core.engine.state import RunState, initial_state
from spiral_core.errors import CheckpointError, SpiralError, StateError

FORMAT = 1
"""Of the metadata; another number is refused."""

_REBUILT = frozenset({"config", "probe", "batch", "training", "watching"})
"""Fields of `RunState` that come from the configuration, or are memory."""
_APART = frozenset({"dataset", "model", "optimizer", "scaler", "rates", "snapshots"})
"""Fields that are written down in their own way; every other one is a plain value."""


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, AnyArray]: ...

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None: ...


def _parts(state: RunState) -> dict[str, _Stateful]:
    return {"model": state.model, "optimizer": state.optimizer, "scaler": state.scaler, "data": state.dataset}


def _plain_fields(kind: type) -> dict[str, Any]:
    """Give the types of the fields of a dataclass that are written down as they are."""
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)} - _REBUILT - _APART
    return {name: hints[name] for name in sorted(names)}


def capture(state: RunState) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Copy out everything that the next update depends on.

    Returns
    -------
    arrays : dict
        ``model/<name>``, ``optimizer/<name>``, ``scaler/<name>``, ``data/<name>``, and ``snapshots/...`` of `rollback`.
    metadata : dict
        Numbers, words and lists, ready for JSON: configuration, step, revision, phase and every value in force.

    Raises
    ------
    StateError
        An array holds a value that is not finite: no run can go on from it, so it is worth nothing.
    """
    arrays = {
        f"{part}/{name}": array for part, held in _parts(state).items() for name, array in held.state_dict().items()
    }
    snapshots, told = rollback.pack(state.snapshots)
    arrays |= {f"snapshots/{name}": array for name, array in snapshots.items()}
    bad = next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)
    if bad is not None:
        raise StateError(
            f"the state after step {state.step} cannot be kept: {bad} has a value that is not finite; lower optim.lr"
        )
    metadata = {
        "format": FORMAT,
        "config": _as_json(state.config),
        "values": {name: msgspec.to_builtins(getattr(state, name)) for name in _plain_fields(RunState)},
        "rates": {name: msgspec.to_builtins(getattr(state.rates, name)) for name in _plain_fields(Rates)},
        "snapshots": told,
        "optimizer": {"momentum": state.optimizer.momentum, "weight_decay": state.optimizer.weight_decay},
    }
    return arrays, metadata


def restore(config: RunConfig, arrays: Mapping[str, AnyArray], metadata: Mapping[str, Any]) -> RunState:
    """Build the state that `capture` has copied out.

    Parameters
    ----------
    config : RunConfig
        That of the run.
    arrays, metadata
        What `capture` gave, also after a journey through JSON.

    Raises
    ------
    CheckpointError
        Another format, another configuration, or values that do not fit the model.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {metadata.get('format')!r}, this Spiral reads {FORMAT}: resume with the one "
            "that wrote it"
        )
    _check_config(config, metadata.get("config"))
    state = initial_state(config)
    try:
        _load(state, arrays, metadata)
    except (SpiralError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit model {config.model}: {error}") from error
    return state


def _load(state: RunState, arrays: Mapping[str, AnyArray], metadata: Mapping[str, Any]) -> None:
    _load_plain(state, metadata["values"])
    _load_plain(state.rates, metadata["rates"])
    # Before its arrays: setting a momentum may clear velocities.
    if state.config.optimizer == "sgd":
        state.optimizer.momentum = metadata["optimizer"]["momentum"]
    state.optimizer.weight_decay = metadata["optimizer"]["weight_decay"]
    for part, held in _parts(state).items():
        held.load_state_dict(_below(f"{part}/", arrays))
    state.snapshots = rollback.unpack(_below("snapshots/", arrays), metadata["snapshots"])


def _below(prefix: str, arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _load_plain(target: RunState | Rates, values: Mapping[str, Any]) -> None:
    for name, kind in _plain_fields(type(target)).items():
        setattr(target, name, msgspec.convert(values[name], kind))


def _as_json(config: RunConfig) -> dict[str, Any]:
    """Give a configuration as it comes back from a file: JSON knows no tuples."""
    return msgspec.json.decode(msgspec.json.encode(config), type=dict[str, Any])


def _check_config(config: RunConfig, held: object) -> None:
    asked = _as_json(config)
    if held == asked:
        return
    differing = [name for name in asked if not isinstance(held, dict) or held.get(name) != asked[name]]
    raise CheckpointError(
        f"the checkpoint belongs to another configuration: {', '.join(differing) or 'fields'} differ from config.json; "
        "put back the config.json that the run was started with"
    )
