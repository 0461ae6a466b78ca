"""What every data set hands out: images with labels and, where they are known, masks of the object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spiral_core.arrays import F32, I64, U8
from spiral_core.data.streams import check_count
from spiral_core.errors import ArgumentError, DtypeError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images with what is known about them.

    Parameters
    ----------
    images : (N, H, W, C) float32
        Channels last, C-contiguous, writable; no other batch shares the memory, unless it was drawn into this one. A
        sequence of T steps and F features is an image of height 1: (N, 1, T, F), with masks (N, 1, T).
    labels : (N,) int64
        Class indices.
    masks : (N, H, W) uint8 or None
        1 on the object that decides the class, else 0; None where nobody knows.

    Raises
    ------
    ShapeError, DtypeError
        When the arrays do not fit each other or this description.
    """

    images: F32
    labels: I64
    masks: U8 | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ShapeError(f"images must be (N, H, W, C), got shape {self.images.shape}; add the missing axis")
        if self.images.dtype != np.float32:
            raise DtypeError(f"images must be float32, got {self.images.dtype}; convert with astype(np.float32)")
        if not self.images.flags.c_contiguous:
            raise ShapeError("images must be C-contiguous; pass np.ascontiguousarray(images)")
        if self.labels.shape != self.images.shape[:1]:
            raise ShapeError(f"labels must be ({self.images.shape[0]},), one per image, got {self.labels.shape}")
        if self.labels.dtype != np.int64:
            raise DtypeError(f"labels must be int64, got {self.labels.dtype}; convert with astype(np.int64)")
        if self.masks is not None and self.masks.shape != self.images.shape[:3]:
            raise ShapeError(f"masks must be {self.images.shape[:3]}, one per image, got {self.masks.shape}")
        if self.masks is not None and self.masks.dtype != np.uint8:
            raise DtypeError(f"masks must be uint8, got {self.masks.dtype}; convert with astype(np.uint8)")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def pick(self, indices: I64 | slice) -> Batch:
        """Return a batch with copies of the chosen images, in the order of ``indices``.

        Parameters
        ----------
        indices : (M,) int64 or slice
            Positions in this batch.
        """
        masks = None if self.masks is None else self.masks[indices].copy()
        return Batch(self.images[indices].copy(), self.labels[indices].copy(), masks)

    def split(self, batch_size: int) -> Iterator[Batch]:
        """Yield copies of consecutive parts of at most ``batch_size`` images; the last one may be smaller."""
        step = check_count("batch_size", batch_size, 1)
        for start in range(0, len(self), step):
            yield self.pick(slice(start, start + step))

    def one_per_class(self, count: int) -> Batch:
        """Return ``count`` images that go through the classes in turn: the first of each, then the second of each.

        Parameters
        ----------
        count : int
            Between 1 and ``len(self)``.

        Raises
        ------
        ArgumentError
            When there are fewer images than ``count``.
        """
        count = check_count("count", count, 1)
        if count > len(self):
            raise ArgumentError(f"count must be at most {len(self)}, the number of held-out images, got {count}")
        rank = np.zeros(len(self), dtype=np.int64)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            rank[members] = np.arange(members.size)
        return self.pick(np.lexsort((self.labels, rank))[:count].astype(np.int64))
