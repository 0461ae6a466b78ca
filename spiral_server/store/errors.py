"""What can go wrong with a directory of runs."""

from __future__ import annotations

from spiral_core.errors import SpiralError


class StoreError(SpiralError, OSError):
    """A run or the directory of runs cannot be read or written."""


class LogdirInUseError(StoreError):
    """Another server holds the directory of runs."""


class BusyRunError(SpiralError):
    """A run is being trained, and so cannot be deleted."""


class UnknownRunError(StoreError, LookupError):
    """There is no run of this id."""
