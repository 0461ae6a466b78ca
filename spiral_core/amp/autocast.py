"""Matrix products on numbers of a narrow float type."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from numpy.typing import DTypeLike

from spiral_core.errors import ArgumentError, DtypeError
from spiral_core.nn import precision


class AutocastGuard:
    """Inside it, float32 layers round what they multiply to float16 or bfloat16; `autocast` makes one.

    Parameters
    ----------
    enabled : bool   False: full precision, also inside a guard that is enabled
    dtype : "float16", "bfloat16", or a NumPy dtype or scalar type of that name

    Attributes
    ----------
    enabled : bool
    dtype : str            ``"float16"`` or ``"bfloat16"``
    kernels : tuple        names of the kernels that the guard needs compiled besides those of the layers

    Raises
    ------
    ArgumentError
        ``enabled`` is neither True nor False.
    DtypeError
        Another type.
    StateError
        On leaving: an inner guard has not been left yet, or the guard was entered in another thread or task.

    Notes
    -----
    Rounded to nearest, ties to even, with subnormals; beyond the largest number (65504 in float16) the result is
    infinite, and NaN stays NaN:

    * the input and the weights of `Linear`, `Conv2d` and `Lstm`, whose hidden state is rounded at each time step too;
    * in their backward pass the gradient that arrives, and in `Lstm` that of the gates at each time step.

    Everything else stays float32: what products add up, the biases, outputs, gradients of parameters, the parameters
    themselves, activations, pooling, norms, losses and optimizers. A float64 layer is left alone, as PyTorch leaves it.
    So the numbers are those of hardware with narrow operands and wide sums; nothing becomes faster or smaller.

    Backward follows the forward pass that it belongs to, wherever it is called; calling it outside the guard is usual.

    What is in force belongs to the thread, or the asynchronous task. A guard has no state of its own: it may be
    entered again, inside itself too, and be shared between threads.

    Source: Micikevicius et al. 2018, section 3; the layers are those of PyTorch's list for lower precision.

    Examples
    --------
    >>> import numpy as np
    >>> from spiral_core import amp, nn
    >>> layer = nn.Linear("fc", 1, 1)
    >>> layer.weight.value[:] = 1.0
    >>> x = np.full((1, 1), 1.0001, np.float32)
    >>> with amp.autocast():
    ...     float(layer.forward(x)[0, 0])
    1.0
    """

    def __init__(self, enabled: bool = True, dtype: DTypeLike = "float16") -> None:
        if not isinstance(enabled, (bool, np.bool_)):
            raise ArgumentError(f"enabled must be True or False, got {enabled!r}; a type goes into dtype=")
        narrow = precision.narrow_name(dtype)
        if narrow is None:
            raise DtypeError(
                f"dtype must be float16 or bfloat16, got {dtype!r}; for full precision use autocast(enabled=False)"
            )
        self.enabled, self.dtype = bool(enabled), narrow

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels to warm; none where the guard is disabled."""
        return precision.KERNELS if self.enabled else ()

    def __enter__(self) -> AutocastGuard:
        precision.enter(self, self.dtype if self.enabled else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        precision.leave(self)

    def __repr__(self) -> str:
        return f"AutocastGuard(enabled={self.enabled}, dtype={self.dtype!r})"


def autocast(enabled: bool = True, dtype: DTypeLike = "float16") -> AutocastGuard:
    """Return a guard for a ``with`` statement; see `AutocastGuard`."""
    return AutocastGuard(enabled, dtype)
