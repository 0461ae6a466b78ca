"""Bilinear resizing of maps to the size of the image they belong to.

Half-pixel centers and clamped edges, as OpenCV's ``INTER_LINEAR`` and PyTorch's ``align_corners=False`` do it. The
other convention, aligned corners, moves a map by up to half a cell and is not offered.
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import F64, I64, Float
from spiral_core.errors import ArgumentError, ShapeError


def resize_bilinear(maps: Float, height: int, width: int) -> Float:
    r"""Resize the last two axes.

    Target row i reads the source at :math:`(i + 1/2)\, h / H - 1/2`, clamped to the first and last row.

    Parameters
    ----------
    maps : (..., h, w)
        h, w >= 1; not modified.
    height, width : int
        Of the result, >= 1.

    Returns
    -------
    (..., height, width)
        In the dtype of ``maps``; computed in float64.

    Raises
    ------
    ShapeError
        When ``maps`` has fewer than two axes or an empty one.
    ArgumentError
        When a target length is below 1.
    """
    if maps.ndim < 2 or min(maps.shape[-2:]) < 1:
        raise ShapeError(f"maps must be (..., h, w) with h and w at least 1, got {maps.shape}")
    if height < 1 or width < 1:
        raise ArgumentError(f"height and width must be at least 1, got {height} and {width}")
    values = maps.astype(np.float64)
    low, high, part = _neighbors(maps.shape[-2], height)
    values = values[..., low, :] * (1.0 - part)[:, None] + values[..., high, :] * part[:, None]
    low, high, part = _neighbors(maps.shape[-1], width)
    values = values[..., low] * (1.0 - part) + values[..., high] * part
    return values.astype(maps.dtype, copy=False)


def upsample_positive(maps: Float, height: int, width: int) -> Float:
    """Keep positive evidence and resize it: the ReLU comes first, or negative neighbors would eat the edge of a peak.

    Parameters
    ----------
    maps : (..., h, w)
        Signed raw maps; not modified.
    height, width : int
        Of the image.

    Returns
    -------
    (..., height, width)
        Not negative; NaN where a neighbor is NaN.
    """
    return resize_bilinear(np.maximum(maps, maps.dtype.type(0)), height, width)


def _neighbors(source: int, target: int) -> tuple[I64, I64, F64]:
    """Return for each of ``target`` places the two source places it lies between, and how far it is to the second."""
    position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0, source - 1.0)
    low = np.floor(position).astype(np.int64)
    return low, np.minimum(low + 1, source - 1), position - low
