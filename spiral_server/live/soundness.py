"""What an engine may not send although it decodes.

One bad message must harm its sender alone: not the store, and not the viewers.
"""

from __future__ import annotations

import math

from spiral_core.wire.messages import Ack, CheckpointSaved, Frame, Logged, Thinned
from spiral_core.wire.requests import LARGEST

NEVER = 1e11
"""Seconds; a wall time beyond is no time."""


def unsound(message: Logged, *, run: str, incarnation: int) -> str | None:
    """Tell what is wrong with a message from the engine of a run; None when nothing is."""
    if message.run != run:
        return f"a message of run {message.run[:100]!r} on the connection of run {run!r}"
    if not 0 <= message.incarnation <= incarnation:
        return f"a message of incarnation {message.incarnation} on the connection of incarnation {incarnation}"
    if not (0 <= message.seq < LARGEST and 0 <= message.step < LARGEST):
        return f"sequence number {message.seq} or step {message.step} is out of range"
    if not math.isfinite(message.time) or abs(message.time) > NEVER:
        return f"wall time {message.time} is no time"
    if isinstance(message, Frame):
        index, values = message.index, message.values
        if index.dtype != "<u2" or values.dtype != "<f8" or len(index.shape) != 1 or index.shape != values.shape:
            return "a frame needs index (K,) <u2 and values (K,) <f8"
        return None
    if isinstance(message, Ack):
        # Engines number what they do by themselves below 0.
        for number in (abs(message.number), message.rev, abs(message.by or 0)):
            if not 0 <= number < LARGEST:
                return f"command number or revision {number} is out of range"
    if isinstance(message, CheckpointSaved) and not (0 <= message.size < LARGEST and 0 <= message.rev < LARGEST):
        return f"a checkpoint of {message.size} bytes at revision {message.rev} is out of range"
    if isinstance(message, Thinned):
        for number in (message.first_step, message.frames, message.stretch):
            if not 0 <= number < LARGEST:
                return f"a merging of {message.frames} frames from step {message.first_step} on is out of range"
    return None
