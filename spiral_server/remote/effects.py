"""What a command that was applied has led to a moment later: the checkpoint on disk, the numbers of the evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from spiral_core.wire.messages import CommandRecord
from spiral_server.remote.client import LAST_LOOK_SECONDS, Client, LostError

_FIRST_LOOK_SECONDS = 0.05
_EVALUATED = ("val/loss", "val/accuracy")


def await_effect(client: Client, record: CommandRecord, seconds: float) -> dict[str, Any] | None:
    """Wait for what an applied ``checkpoint`` or ``evaluate`` has made; None when it did not come in time.

    Raises
    ------
    LostError
        The engine could not make it, or the server is gone.
    """
    look = _checkpoint if record.verb == "checkpoint" else _evaluation
    deadline = time.monotonic() + seconds if seconds > 0 else math.inf
    pause = _FIRST_LOOK_SECONDS
    while (found := look(client, record, (record.step or 1) - 1)) is None:
        if time.monotonic() + pause > deadline:
            return None
        time.sleep(pause)
        pause = min(1.5 * pause, LAST_LOOK_SECONDS)
    return found


def _checkpoint(client: Client, record: CommandRecord, step: int) -> dict[str, Any] | None:
    run = f"/runs/{quote(record.run, safe='')}"
    for saved in client.get(f"{run}/checkpoints")["checkpoints"]:
        if saved["step"] == step and saved["rev"] >= (record.rev or 0):
            return {"type": "checkpoint-saved", **saved}
    detail = str(client.get(run)["detail"])
    if detail.startswith(f"no checkpoint at step {step}:"):
        raise LostError(detail)
    return None


def _evaluation(client: Client, record: CommandRecord, step: int) -> dict[str, Any] | None:
    path = f"/runs/{quote(record.run, safe='')}/series?names={','.join(_EVALUATED)}&from={step}&to={step}"
    numbers = {one["name"]: one["values"][-1] for one in client.get(path)["series"] if one["values"]}
    if len(numbers) < len(_EVALUATED):
        return None
    return {"type": "evaluation", "run": record.run, "step": step, **numbers}


def _said_of_evaluation(told: dict[str, Any]) -> str:
    # What is not finite is a text in JSON.
    numbers = (f"{name} {number if isinstance(number, str) else f'{number:.4g}'}" for name, number in _numbers(told))
    return f"{', '.join(numbers)} after step {told['step']}"


def _numbers(told: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, told[name]) for name in _EVALUATED]


SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "checkpoint": lambda told: f"checkpoint {told['file']}, {told['size']} bytes, after step {told['step']}",
    "evaluate": _said_of_evaluation,
}
"""What is said of an effect, by the verb that led to it."""
