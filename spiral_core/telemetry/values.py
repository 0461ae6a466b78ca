"""The numbers of one step, by series name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from statistics import fmean

import numpy as np

from spiral_core.arrays import F32
from spiral_core.nn import ZSpaceObservation
from spiral_core.wire.parts import Array, SeriesSpec

LAYER_FIELDS = (
    "radius_mean",
    "radius_p05",
    "radius_p50",
    "radius_p95",
    "radius_rel_mean",
    "radius_rel_p05",
    "radius_rel_p50",
    "radius_rel_p95",
    "blended_mean",
    "jacobian_mean",
    "jacobian_p05",
    "saturation",
    "conformal_mean",
    "curvature",
    "gain",
)
"""Fields of a layer's observation that are drawn as ``zspace/<layer>/<field>``."""


_fields = attrgetter(*LAYER_FIELDS)


@cache
def _names(layer: str) -> tuple[str, ...]:
    return tuple(f"zspace/{layer}/{name}" for name in LAYER_FIELDS)


def layer_values(observations: Mapping[str, ZSpaceObservation]) -> dict[str, float]:
    """Give the series of every Z-space layer that was observed."""
    values: dict[str, float] = {}
    for layer, observation in observations.items():
        values.update(zip(_names(layer), _fields(observation), strict=True))
    return values


def mean_gain(gains: Sequence[float]) -> float:
    """Mean gain of the layers; NaN when there are none.

    Layers that agree give their gain itself: a mean of three times 0.2 is not 0.2 in floating point.
    """
    if not gains:
        return math.nan
    return gains[0] if len(set(gains)) == 1 else fmean(gains)


def radius_strips(observations: Mapping[str, ZSpaceObservation]) -> dict[str, F32]:
    """Give the relative radius of each sample where a layer norms samples, else of each feature, by strip name."""
    strips = {}
    for layer, seen in observations.items():
        name, radii = (
            ("feature_radius", seen.feature_radius)
            if seen.sample_radius is None
            else ("sample_radius", seen.sample_radius)
        )
        strips[f"zspace/{layer}/{name}"] = np.asarray(radii, dtype=np.float32)
    return strips


def mean_finite(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN when there is none.

    An empty heat map has no energy ratio (NaN); one such image must not hide the other seven.
    """
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def pack(values: Mapping[str, float], series: Mapping[str, SeriesSpec]) -> tuple[Array, Array]:
    """Pack named values as the index and value arrays of a frame, index ascending.

    Raises
    ------
    KeyError
        A value has no declared series: a bug in the caller.
    """
    pairs = sorted((series[name].index, value) for name, value in values.items())
    index = np.array([pair[0] for pair in pairs], dtype=np.uint16)
    packed = np.array([pair[1] for pair in pairs], dtype=np.float64)
    return Array.of(index, "<u2"), Array.of(packed, "<f8")
