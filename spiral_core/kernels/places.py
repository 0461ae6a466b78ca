"""Arrays that compiled code finds by their addresses, so that one call can go through any number of them.

A call from Python costs a microsecond and more for each array it is given, which is most of the time of an update of a
small parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba
import numba.extending
from numba import types

from spiral_core.arrays import I64, Float
from spiral_core.kernels.accelerate import compiled, kernel
from spiral_core.kernels.update import sgd_update

VALUE, GRAD, VELOCITY, SIZE = range(4)
"""Columns of a table of places: three addresses and a number of elements."""

# Numba has no types.
_carray, _CPointer = cast("Any", numba).carray, cast("Any", types).CPointer
_emitted = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", cast("Any", numba.extending).intrinsic)


@_emitted
def _pointer(_context: Any, address: Any, like: Any) -> Any:  # noqa: ANN401
    """Return the address as a pointer to numbers of the type of ``like``."""
    del address
    kind = _CPointer(like)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return kind(types.int64, like), emit


@compiled
def _at(address: int, size: int, like: float) -> Any:  # noqa: ANN401
    return _carray(_pointer(address, like), (size,))


@kernel("void(int64[:,::1], {f}[::1], {f}, {f})")
def sgd_update_all(places: I64, decays: Float, lr: float, momentum: float) -> None:
    """Apply `sgd_update` to all parameters of a table, which keep their arrays where the table says.

    Parameters
    ----------
    places : (K, 4)     addresses of w, g and v of the dtype of ``decays``, each C-contiguous, and their elements
    decays : (K,)       lambda of each
    lr, momentum        eta and mu
    """
    for k in range(places.shape[0]):
        size = places[k, SIZE]
        sgd_update(
            _at(places[k, VALUE], size, lr),
            _at(places[k, GRAD], size, lr),
            _at(places[k, VELOCITY], size, lr),
            lr,
            momentum,
            decays[k],
        )
