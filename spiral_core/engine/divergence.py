"""Where a run stopped being finite."""

from __future__ import annotations

import numpy as np

from spiral_core import nn
from spiral_core.arrays import AnyArray
from spiral_core.data import Batch
from spiral_core.engine.state import RunState
from spiral_core.errors import DivergedError


def find(state: RunState, batch: Batch, step: int) -> DivergedError:
    """Find the first value that is not finite, in the order in which the update computed them.

    Looks at every array of the pass, so it is called only once loss or gradient norm have shown that there is one.

    Parameters
    ----------
    state : RunState
        After forward and backward pass, with the parameters that these used.
    batch : Batch
        Its input.
    step : int
        Number of the update.
    """
    if not _finite(batch.images):
        return DivergedError(step, "input", "input")
    outputs = _outputs(state, batch)
    for layer in state.model.layers:
        if not all(_finite(parameter.value) for parameter in layer.parameters()):
            return DivergedError(step, layer.name, "parameter")
        if not _finite(outputs[layer.name]):
            return DivergedError(step, layer.name, "activation")
    for layer in reversed(state.model.layers):
        if not all(_finite(parameter.grad) for parameter in layer.parameters()):
            return DivergedError(step, layer.name, "gradient")
    return DivergedError(step, state.model.name, "loss")


def _outputs(state: RunState, batch: Batch) -> dict[str, AnyArray]:
    """Run forward again, layer by layer: the update may have run several as one and kept the last output only."""
    statistics = {name: values.copy() for name, values in state.model.buffers().items()}
    workspace = nn.Workspace(training=True, accumulate=False)
    state.model.forward(batch.images, workspace)
    for name, values in state.model.buffers().items():
        values[...] = statistics[name]
    return dict(state.model.outputs(workspace))


def _finite(array: AnyArray) -> bool:
    return bool(np.isfinite(array).all())
