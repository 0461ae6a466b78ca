"""Short words for tests that drive the engine: commands, and a digest of everything learnt."""

from __future__ import annotations

import hashlib

import numpy as np

from spiral_core.engine.state import RunState
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Setting, Value


def command(number: int = 1, **sets: Value) -> Command:
    """Make a command that sets knobs; two underscores stand for a dot."""
    settings = [Setting(knob=knob.replace("__", "."), value=value) for knob, value in sets.items()]
    return Command(run="r", number=number, id=str(number), verb="set", sets=settings, actor="", source="api", time=0.0)


def digest(state: RunState) -> str:
    """Digest the model's and the optimizer's state."""
    content = hashlib.sha256()
    for part in (state.model.state_dict(), state.optimizer.state_dict()):
        for name, array in sorted(part.items()):
            content.update(name.encode())
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
