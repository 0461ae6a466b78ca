"""Spiral's engine: hyperbolic ("Z-space") networks, trained on the CPU, watched and steered while they train.

The public packages are loaded when they are first used, because compiled kernels are costly to import: ``import
spiral_core`` loads neither NumPy's nor Numba's machinery.

Examples
--------
>>> import numpy as np
>>> from spiral_core import nn, optim
>>> model = nn.models.build("z_cam", classes=8, generator=np.random.default_rng(0))
>>> optimizer = optim.Adam(model.parameters(), 3e-3)
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spiral_core import amp as amp
    from spiral_core import data as data
    from spiral_core import nn as nn
    from spiral_core import optim as optim
    from spiral_core import xai as xai

__version__ = "0.1.0"

_PUBLIC = ("amp", "data", "nn", "optim", "xai")

__all__ = ["__version__", "amp", "data", "nn", "optim", "xai"]


def __getattr__(name: str) -> ModuleType:
    if name in _PUBLIC:
        return importlib.import_module(f"spiral_core.{name}")
    raise AttributeError(f"module 'spiral_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
