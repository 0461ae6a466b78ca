"""How well a heat map finds an object whose place is known.

Two scores, always shown together: pointing is sharp but all or nothing, energy over area is smooth. Chance is the
mask's share of the area for pointing and 1 for energy over area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from spiral_core.arrays import F32, U8, AnyArray, Float
from spiral_core.errors import ShapeError
from spiral_core.xai.resize import upsample_positive

ZERO_PEAK: Final = 1e-30
"""A map whose peak is not above this shows nothing. Far below any real score: a trained network's gradients are easily
under 1e-6, so a larger threshold would erase true maps."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalizationScores:
    """Scores of N maps.

    Parameters
    ----------
    pointing : (N,) float32
        1 where the highest place lies on the object, else 0.
    energy_over_area : (N,) float32
        Share of the map's sum on the object divided by the object's share of the area; NaN for maps without
        positive evidence, so average with `numpy.nanmean` and say how many there were.
    zero_maps : int
        Maps without positive evidence.
    """

    pointing: F32
    energy_over_area: F32
    zero_maps: int


def score_localization(raw_maps: Float, masks: U8) -> LocalizationScores:
    """Score signed raw maps against object masks at the size of the masks.

    Parameters
    ----------
    raw_maps : (N, h, w)
        As `GradCam.attribute_batch` returns them.
    masks : (N, H, W) uint8
        Not 0 on the object.

    Raises
    ------
    ShapeError
        When the two are not three-dimensional with the same N.
    """
    if raw_maps.ndim != 3 or masks.ndim != 3 or raw_maps.shape[0] != masks.shape[0]:
        raise ShapeError(f"raw_maps and masks must be (N, h, w) and (N, H, W), got {raw_maps.shape} and {masks.shape}")
    maps = upsample_positive(raw_maps, masks.shape[1], masks.shape[2])
    return LocalizationScores(
        pointing=pointing_game(maps, masks),
        energy_over_area=energy_over_area(maps, masks),
        zero_maps=int((~_shows_something(maps)).sum()),
    )


def pointing_game(maps: Float, masks: U8) -> F32:
    """Tell whether the highest place of each map lies on its object.

    Parameters
    ----------
    maps : (N, H, W)
        Positive maps at image size.
    masks : (N, H, W) uint8
        Not 0 on the object.

    Returns
    -------
    (N,) float32
        1 or 0. Of several equal maxima the first in row order counts. 0 for a map without positive evidence, whose
        first maximum is the corner and means nothing, and for one that is not finite.

    Raises
    ------
    ShapeError
        When the shapes differ.

    Notes
    -----
    Source: Zhang et al. 2018, without their tolerance of 15 pixels, which would cover half of a small image.
    """
    _check_same_shape(maps, masks)
    peak = maps.reshape(len(maps), -1).argmax(axis=1)
    hit = masks.reshape(len(masks), -1)[np.arange(len(masks)), peak] != 0
    points: F32 = (hit & _shows_something(maps)).astype(np.float32)
    return points


def energy_over_area(maps: Float, masks: U8) -> F32:
    r"""Return how many times more relevance lies on the object than its size would get by chance.

    .. math:: \frac{\sum L m / \sum L}{\sum m / HW}

    Parameters
    ----------
    maps : (N, H, W)
        Positive maps at image size.
    masks : (N, H, W) uint8
        Not 0 on the object.

    Returns
    -------
    (N,) float32
        1 is chance, 1 / area share is the most. NaN for a map without positive evidence, for one that is not finite
        and for an empty mask: none of them is a poor localization, they are none at all.

    Raises
    ------
    ShapeError
        When the shapes differ.

    Notes
    -----
    Source: the energy-based pointing game of Wang et al. 2020 (Score-CAM), divided by the area. Sums in float64.
    """
    _check_same_shape(maps, masks)
    on_object = masks != 0
    area = on_object.mean(axis=(1, 2))
    usable = _shows_something(maps) & (area > 0)
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = np.where(on_object, maps, 0).sum(axis=(1, 2), dtype=np.float64)
    ratio = np.full(len(maps), np.nan)
    np.divide(inside, total * area, out=ratio, where=usable)
    return ratio.astype(np.float32)


def _shows_something(maps: Float) -> AnyArray:
    # Shape: (N,). A NaN peak compares false.
    peak = maps.max(axis=(1, 2))
    shows: AnyArray = (peak > ZERO_PEAK) & (peak < np.inf)
    return shows


def _check_same_shape(maps: Float, masks: U8) -> None:
    if maps.ndim != 3 or min(maps.shape[1:]) < 1 or maps.shape != masks.shape:
        raise ShapeError(f"maps and masks must both be (N, H, W), got {maps.shape} and {masks.shape}; resize the maps")
