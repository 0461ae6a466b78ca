"""The narrow float type that matrix products are fed with, and for whom: the floor of mixed precision.

Which type is asked for lies in a context variable, so each thread and each asynchronous task has its own. Users set it
with `spiral_core.amp.autocast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import numpy as np

from spiral_core import kernels
from spiral_core.arrays import Float
from spiral_core.errors import StateError
from spiral_core.kernels.elementwise import CHUNK
from spiral_core.nn.module import Module, Parameter
from spiral_core.nn.workspace import Workspace

Narrow: TypeAlias = Literal["float16", "bfloat16"]

KINDS: Final[dict[Narrow, int]] = {"float16": kernels.FLOAT16, "bfloat16": kernels.BFLOAT16}
"""Each narrow type and its number in kernels, where 0 stands for none."""

KERNELS: Final = ("narrow",)
"""What a narrow type needs compiled besides the layers' own kernels."""


@dataclass(frozen=True)
class Scope:
    """What is in force inside one guard, and around it.

    Parameters
    ----------
    owner : object           who entered, so that leaving in another order is noticed
    narrow : str or None     None: nothing is rounded
    outer : Scope or None
    """

    owner: object
    narrow: Narrow | None
    outer: Scope | None


_SCOPE: ContextVar[Scope | None] = ContextVar("spiral precision", default=None)


def enter(owner: object, narrow: Narrow | None) -> None:
    """Put a narrow type in force, or with None full precision, until ``owner`` leaves."""
    _SCOPE.set(Scope(owner, narrow, _SCOPE.get()))


def leave(owner: object) -> None:
    """Put in force what was before.

    Raises
    ------
    StateError
        ``owner`` is not the last that entered in this thread or task; nothing has changed.
    """
    scope = _SCOPE.get()
    if scope is None or scope.owner is not owner:
        raise StateError(
            "autocast: this guard is not the innermost one of this thread or task; leave guards in the reverse order, "
            "best with a with statement"
        )
    _SCOPE.set(scope.outer)


def in_force() -> Narrow | None:
    """Return the narrow type that a forward pass would use here, or None."""
    scope = _SCOPE.get()
    return None if scope is None else scope.narrow


def narrow_to(kind: int, array: Float, out: Float) -> Float:
    """Write ``array`` rounded to a narrow type and return ``out``; float32, contiguous, of one shape, or the same.

    Notes
    -----
    To nearest, ties to even; beyond the largest number infinite; see `spiral_core.kernels.narrow`.
    """
    bits, target = (one.reshape(-1).view(np.uint32) for one in (array, out))
    kernels.run(kernels.narrow, -(-array.size // CHUNK), kind, bits, target)
    return out


@dataclass(frozen=True)
class _Operands:
    """What one forward pass fed its matrix products with."""

    kind: int
    x: Float
    weights: tuple[Float, ...]


def operands(layer: Module, x: Float, weights: Sequence[Parameter], workspace: Workspace) -> tuple[Float, ...]:
    """Return what the matrix products of a forward pass shall use: the input, then the weights.

    In full precision these are the arrays themselves. Else they are rounded copies, which stay in the workspace for
    the backward pass; the weights themselves keep every bit. A float64 layer never rounds: it is there to be exact, as
    for gradient checks.

    Parameters
    ----------
    layer : Module
    x : array                         as `Module._forward` gets it
    weights : sequence of Parameter   those that the input, or a state, is multiplied by
    workspace : Workspace
    """
    narrow = in_force()
    if narrow is None or layer.dtype != np.float32:
        workspace.forget((layer, "operands"))
        return (x, *[weight.value for weight in weights])
    kind = KINDS[narrow]
    copies = tuple(
        narrow_to(kind, array, workspace.array(layer, f"narrow {role}", array.shape, layer.dtype))
        for role, array in (("input", x), *((weight.name, weight.value) for weight in weights))
    )
    workspace.keep((layer, "operands"), _Operands(kind, copies[0], copies[1:]))
    return copies


def operands_backward(
    layer: Module, x: Float, grad: Float, weights: Sequence[Parameter], workspace: Workspace
) -> tuple[Float, ...]:
    """Return what the matrix products of a backward pass shall use: the input, the output's gradient, the weights.

    The forward pass decides, not the place where backward is called: what that pass rounded is used again, and the
    gradient is rounded to the same type, so that it may overflow.

    Raises
    ------
    StateError
        The last forward pass rounded an input of another shape.
    """
    kept = workspace.recall((layer, "operands"), _Operands)
    if kept is None:
        return (x, grad, *[weight.value for weight in weights])
    if kept.x.shape != x.shape:
        raise StateError(f"{layer.name}: forward saw shape {kept.x.shape}, backward got {x.shape}")
    grad = narrow_to(kept.kind, grad, workspace.array(layer, "narrow grad", grad.shape, layer.dtype))
    return (kept.x, grad, *kept.weights)


def kind_of(layer: Module, workspace: Workspace) -> int:
    """Return the number, for kernels, of the type that the last forward pass of a layer rounded to; 0: none."""
    kept = workspace.recall((layer, "operands"), _Operands)
    return 0 if kept is None else kept.kind


def narrow_name(dtype: object) -> Narrow | None:
    """Return which narrow type is meant by a name, a NumPy dtype or a scalar type; None: no narrow one."""
    try:
        name = np.dtype(cast("str", dtype)).name
    except TypeError:
        # NumPy itself has no bfloat16, unless another package brings one.
        name = dtype if isinstance(dtype, str) else ""
    return next((narrow for narrow in KINDS if narrow == name), None)
