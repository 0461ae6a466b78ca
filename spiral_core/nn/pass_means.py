"""What a pass of a Z-space norm comes to on average, from the sums that it has left."""

from __future__ import annotations

from dataclasses import dataclass

from spiral_core.nn.observation import ZSpacePass


@dataclass(frozen=True, slots=True)
class PassMeans:
    """Means over all elements of a pass; the fields are those of `ZSpaceObservation`."""

    radius_mean: float
    radius_rel_mean: float
    blended_mean: float
    jacobian_mean: float
    saturation: float
    curvature: float
    gain: float


def means(one: ZSpacePass) -> PassMeans:
    """Give the means of a pass; looks at none of its values again."""
    mean_t, mean_n, mean_tt, saturation = (float(total) / one.elements for total in one.totals.sum(axis=1))
    return PassMeans(
        radius_mean=mean_t / one.s,
        radius_rel_mean=mean_t,
        blended_mean=(1 - one.g) * mean_n + one.g * mean_t / one.s,
        jacobian_mean=1 - one.g * mean_tt,
        saturation=saturation,
        curvature=one.curvature,
        gain=one.gain,
    )
