"""Inspection dumps: what one step really held, as NumPy files for a second opinion.

Written every N steps, and for the first step after each change by steering. ``dumps/step-00000400.npz`` holds, written
after update 400:

- ``weights/<name>``: the state dict after the update (parameters, running statistics, gains, curvatures);
- ``normed/<layer>``: the whitened activations n of the training batch of this update, (N*H*W, F), and
  ``gain/<layer>``, ``curvature/<layer>`` that it used;
- ``probe/images``, ``probe/activations``, ``probe/gradients``, ``probe/maps``: when a Grad-CAM probe ran at this step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.engine.state import RunState
from spiral_core.engine.step import Probe
from spiral_core.errors import RunLogError


def write(folder: Path, state: RunState, probe: Probe | None) -> Path:
    """Write the dump of the update just done; give its path.

    Raises
    ------
    RunLogError
        The disk is full or gone.
    """
    arrays: dict[str, AnyArray] = {f"weights/{name}": value for name, value in state.model.state_dict().items()}
    for layer in state.z_layers:
        snapshot = layer.telemetry(state.training)
        arrays[f"normed/{layer.name}"] = snapshot.normed
        arrays[f"gain/{layer.name}"] = np.asarray(snapshot.gain)
        arrays[f"curvature/{layer.name}"] = np.asarray(snapshot.curvature)
    if probe is not None:
        arrays["probe/images"] = state.probe.images
        arrays["probe/activations"] = probe.cam.activations
        arrays["probe/gradients"] = probe.cam.gradients
        arrays["probe/maps"] = probe.cam.maps
    path = folder / f"step-{state.step:08d}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed when whole, so that whoever waits for the file never reads half of it.
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)
    except OSError as error:
        raise RunLogError(f"cannot write the dump {path}: {error.strerror}") from error
    return path
