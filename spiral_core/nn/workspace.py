"""Everything a forward and backward pass writes besides gradients and running statistics."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from spiral_core.arrays import AnyArray
from spiral_core.errors import StateError

T = TypeVar("T")

CACHE_LINE = 64
"""Bytes. A vector of sixteen float32 that starts elsewhere touches two lines, which halves the rate of loads and
stores."""


def _on_a_line(size: int, dtype: np.dtype[Any]) -> AnyArray:
    """Return an array without content that starts on a line of the cache, which NumPy does not promise."""
    raw = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size * dtype.itemsize].view(dtype)


class Workspace:
    """Holds outputs, caches and scratch of layers, so that layers hold only what they have learnt.

    The trainer, each probe and each evaluation own one. Buffers are kept and reused while shapes repeat, so a steady
    training loop allocates nothing large. An array that a layer returned lives here and is overwritten by the next
    pass through the same workspace: copy what you keep.

    Parameters
    ----------
    training : bool, optional
        True or False overrides the training flag of every layer; None uses the layer's own.
    accumulate : bool
        False makes ``backward`` leave every ``parameter.grad`` as it is, which is what probes need.
    fuse : bool
        True lets a chain run neighboring layers as one where it can (see `spiral_core.nn.fusion`): faster, but the
        outputs between them are not kept.
    """

    def __init__(self, training: bool | None = None, accumulate: bool = True, *, fuse: bool = False) -> None:
        self.training = training
        self.accumulate = accumulate
        self.fuse = fuse
        self._views: dict[tuple[object, str], AnyArray] = {}
        self._buffers: dict[tuple[object, str], AnyArray] = {}
        self._kept: dict[object, object] = {}
        self._cached: dict[tuple[object, str], tuple[object, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of a copy what is cached.

        Copies of an array and of a view of it have no memory in common, and an id in a key means nothing there.
        """
        return {**self.__dict__, "_cached": {}}

    def is_training(self, own: bool) -> bool:
        """Return the training flag in force for a layer whose own flag is ``own``."""
        return own if self.training is None else self.training

    def array(
        self, owner: object, role: str, shape: tuple[int, ...], dtype: DTypeLike, *, zero: bool = False
    ) -> AnyArray:
        """Return the buffer of ``owner`` for ``role``, C-contiguous and on a line of the cache, with old or no content.

        Parameters
        ----------
        owner : object
            The layer, usually.
        role : str
            Which of the owner's buffers.
        shape, dtype
            When they are those of the last call, so is the array.
        zero : bool
            Fill with zeros whenever the array is not the one returned last.
        """
        key = (owner, role)
        view = self._views.get(key)
        if view is not None and view.shape == shape and view.dtype == dtype:
            return view
        size = prod(shape)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = self._buffers[key] = _on_a_line(size, np.dtype(dtype))
        view = self._views[key] = buffer[:size].reshape(shape)
        if zero:
            view.fill(0)
        return view

    def cached(self, owner: object, role: str, key: object, make: Callable[[], T]) -> T:
        """Return what ``make`` gave for this key: arrays that belong together, views of them, and numbers.

        To ask for one array takes as long as a kernel takes to fill a small one. ``make`` is called again whenever the
        key is not that of the last call; for the arrays that it asks for nobody else may ask.

        Parameters
        ----------
        owner : object
            The layer, usually.
        role : str
            Which of the owner's sets.
        key : object
            All that the result depends on, such as a shape and the number of threads.
        make : callable
            Makes it.
        """
        place = (owner, role)
        known = self._cached.get(place)
        if known is not None and known[0] == key:
            found: T = known[1]
            return found
        made = make()
        self._cached[place] = key, made
        return made

    def keep(self, owner: object, value: object) -> None:
        """Remember what ``owner`` needs for its backward pass or telemetry, until its next forward pass."""
        self._kept[owner] = value

    def kept(self, owner: object, kind: type[T]) -> T:
        """Return what ``owner`` kept.

        Raises
        ------
        StateError
            ``owner`` has not run forward in this workspace.
        """
        value = self._kept.get(owner)
        if not isinstance(value, kind):
            name = getattr(owner, "name", owner)
            raise StateError(f"{name}: nothing to work from: run forward in this workspace first")
        return value

    def recall(self, owner: object, kind: type[T]) -> T | None:
        """Return what ``owner`` kept, or None where there is nothing of this kind."""
        value = self._kept.get(owner)
        return value if isinstance(value, kind) else None

    def forget(self, owner: object) -> None:
        """Drop what ``owner`` kept, if anything."""
        self._kept.pop(owner, None)

    def nbytes(self) -> int:
        """Return the memory held in buffers, in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())
