"""Every error that Spiral raises on purpose, as one tree.

::

    SpiralError
    ├── ArgumentError          a value that the caller passed (also a ValueError)
    │   ├── ShapeError         an array of the wrong shape
    │   ├── DtypeError         an array of the wrong dtype
    │   └── NonFiniteError     NaN or infinity where a finite number is needed
    ├── StateError             a call out of order, such as backward before forward (also a RuntimeError)
    ├── StateDictError         a state dict that does not fit; nothing was loaded
    ├── ConfigError            a run configuration that cannot be run
    ├── DataError              a data set that is missing, damaged or of the wrong form
    ├── DivergedError          a loss or gradient that is no longer finite
    ├── DecodeError            bytes that are no message
    ├── LocalError             our side of a connection broke the protocol: a bug of ours
    ├── RemoteError            the other side broke the protocol; carries a close code
    ├── RunLogError            a run directory or run log that cannot be used
    └── CheckpointError        a checkpoint that is missing, damaged or of another run

Each message names the argument and the remedy.
"""

from __future__ import annotations

from typing import ClassVar


class SpiralError(Exception):
    """Base of every error raised on purpose."""


class ArgumentError(SpiralError, ValueError):
    """A value passed by the caller cannot be used."""


class ShapeError(ArgumentError):
    """An array has the wrong shape."""


class DtypeError(ArgumentError):
    """An array has the wrong dtype."""


class NonFiniteError(ArgumentError):
    """A NaN or an infinity stands where a finite number is needed."""


class StateError(SpiralError, RuntimeError):
    """A call came out of order, such as ``backward`` before ``forward``."""


class StateDictError(SpiralError, ValueError):
    """A state dict does not fit the module; nothing was loaded."""


class ConfigError(SpiralError, ValueError):
    """A run configuration cannot be run.

    Parameters
    ----------
    message : str
        What is wrong, and the remedy.
    field : str
        The field of the configuration that it is about; empty where it is about none, or about several.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class DataError(SpiralError, ValueError):
    """A data set is missing, damaged or of the wrong form."""


class DivergedError(SpiralError, ArithmeticError):
    """A loss or a gradient is no longer finite.

    The trainer gives it as a value, in ``UpdateReport.divergence``, for a person may want to look before acting.

    Parameters
    ----------
    step : int
        Number of the update that was skipped.
    layer : str
        The first layer, in the order of computation, that has a value which is not finite; the model's name where only
        the loss overflowed, ``"input"`` where the batch itself is not finite.
    what : str
        ``"input"``, ``"parameter"``, ``"activation"``, ``"loss"`` or ``"gradient"``.
    """

    REMEDIES: ClassVar[dict[str, str]] = {
        "input": "mend the data",
        "parameter": "stop the run and start again with a lower optim.lr or with optim.clip_norm",
    }

    def __init__(self, step: int, layer: str, what: str) -> None:
        place = "the batch" if what == "input" else f"{what} of {layer}"
        remedy = self.REMEDIES.get(what, "lower optim.lr, set optim.clip_norm or stop the run")
        super().__init__(f"not finite at step {step}: {place}; the weights were left as they are; {remedy}")
        self.step = step
        self.layer = layer
        self.what = what


class DecodeError(SpiralError, ValueError):
    """Bytes from outside are not a message of the protocol."""


class LocalError(SpiralError, RuntimeError):
    """Our side of a connection tried what the protocol forbids: a bug of ours."""


class RemoteError(SpiralError):
    """The other side of a connection broke the protocol.

    Parameters
    ----------
    code : int
        The websocket close code to answer with (see `spiral_core.wire.limits`).
    reason : str
        One sentence for the log and for the peer.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (close code {code})")
        self.code = code
        self.reason = reason


class RunLogError(SpiralError, OSError):
    """A run directory or run log cannot be used."""


class CheckpointError(SpiralError):
    """A checkpoint is missing, damaged, cannot be written, or belongs to another run."""
