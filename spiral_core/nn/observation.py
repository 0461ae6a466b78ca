"""What a Z-space norm says about its last pass: a full snapshot, and the short form for curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from spiral_core.arrays import F64, Float
from spiral_core.errors import StateError
from spiral_core.nn.module import Module
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import conformal_factor

QUANTILE_SAMPLE = 4096
"""Elements that quantiles are taken from. All elements would cost as much as three training steps of `z_cnn`."""


@dataclass(frozen=True, slots=True, eq=False)
class ZSpaceTelemetry:
    """What every Z-space norm tells of its last pass; the subclasses say along which axis each array runs."""

    batch: int
    features: int
    mean: F64
    inv_std: F64
    normed: Float
    projected: Float
    jacobian: Float
    radius: F64
    blended_radius: F64
    conformal: F64
    curvature: float
    gain: float


@dataclass(frozen=True, slots=True, eq=False)
class ZSpaceBatchNormTelemetry(ZSpaceTelemetry):
    """Everything about the last pass, as copies.

    Parameters
    ----------
    batch, features : int
        R rows (batch, or batch times pixels) and F features.
    mean, inv_std : (F,)
        The statistics used: of the batch in training, the running ones in evaluation.
    normed : (R, F)
        Whitened values n.
    projected : (R, F)
        Blended values p, before gamma and beta.
    jacobian : (R, F)
        J = dp/dn; includes neither the whitening nor gamma.
    radius : (F,)
        Ball radius r averaged over rows; zero at gain 0, where nothing is projected.
    blended_radius : (F,)
        abs(p) averaged over rows.
    conformal : (F,)
        Conformal factor 2 / (1 - (s r)^2) at each feature's mean r.
    curvature, gain : float
        In force during the pass.
    """


@dataclass(frozen=True, slots=True, eq=False)
class ZSpaceLayerNormTelemetry(ZSpaceTelemetry):
    """Everything about the last pass, as copies; the statistics are those of each sample.

    Parameters
    ----------
    batch, features : int
        B samples (all axes but the last) and F features.
    mean, inv_std : (B,)
        The statistics of each sample over its features.
    normed : (B, F)
        Whitened values n.
    projected : (B, F)
        Blended values p, before gamma and beta.
    jacobian : (B, F)
        J = dp/dn; includes neither the whitening nor gamma.
    radius : (B,)
        Ball radius r averaged over features; zero at gain 0, where nothing is projected.
    blended_radius : (B,)
        abs(p) averaged over features.
    conformal : (B,)
        Conformal factor 2 / (1 - (s r)^2) at each sample's mean r.
    curvature, gain : float
        In force during the pass, the same for all samples.
    """


@dataclass(frozen=True, slots=True, eq=False)
class ZSpaceObservation:
    """The last pass in a few numbers; means over all elements, quantiles over a fixed sample of `QUANTILE_SAMPLE`.

    Parameters
    ----------
    radius_* : float
        Ball radius r = abs(tanh(s n)) / s, in units of length, at every gain.
    radius_rel_* : float
        Relative radius s r in [0, 1].
    blended_mean : float
        Mean abs(p).
    jacobian_mean, jacobian_p05 : float
        J = dp/dn in [1 - g, 1].
    saturation : float
        Share of elements with s r > 0.99.
    conformal_mean : float
        2 / (1 - (s mean r)^2); a mean over elements would overflow.
    curvature, gain : float
        In force during the pass.
    feature_radius : (F,)
        Mean relative radius of each feature.
    sample_radius : (N,), or None
        Mean relative radius of each entry of the input's first axis, where the statistics are those of samples: of a
        sequence (N, 1, T, F) its mean over time.
    """

    radius_mean: float
    radius_p05: float
    radius_p50: float
    radius_p95: float
    radius_rel_mean: float
    radius_rel_p05: float
    radius_rel_p50: float
    radius_rel_p95: float
    blended_mean: float
    jacobian_mean: float
    jacobian_p05: float
    saturation: float
    conformal_mean: float
    curvature: float
    gain: float
    feature_radius: F64
    sample_radius: F64 | None


class WhitenedValues(Protocol):
    """The values n and t = tanh(s n) of a pass, flat."""

    def arrays(self) -> tuple[Float, Float]:
        """Return all of n and of t, each (E,)."""
        ...

    def tangents(self, stride: int) -> Float:
        """Return every stride-th t, at most `QUANTILE_SAMPLE` of them."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class StoredValues:
    """Values that the pass has written: ``normed`` and ``tangent``, each (E,)."""

    normed: Float
    tangent: Float

    def arrays(self) -> tuple[Float, Float]:
        """Return the two."""
        return self.normed, self.tangent

    def tangents(self, stride: int) -> Float:
        """Return every stride-th t, at most `QUANTILE_SAMPLE` of them."""
        return self.tangent[::stride][:QUANTILE_SAMPLE]


class RecomputedValues(NamedTuple):
    """Values of a pass that has kept its input only.

    Parameters
    ----------
    x : (E,)                 the input, which must not have changed since
    mean, inv_std : (F,)     of each feature, in the dtype of x
    s : float                sqrt(-curvature)
    """

    x: Float
    mean: Float
    inv_std: Float
    s: float

    def arrays(self) -> tuple[Float, Float]:
        """Compute all of n and of t."""
        with np.errstate(all="ignore"):
            n = ((self.x.reshape(-1, self.mean.size) - self.mean) * self.inv_std).reshape(-1)
            return n, np.tanh(n.dtype.type(self.s) * n)

    def tangents(self, stride: int) -> Float:
        """Compute every stride-th t, at most `QUANTILE_SAMPLE` of them."""
        sample = self.x[::stride][:QUANTILE_SAMPLE].copy()
        # The features of the sample come round in a fixed order.
        order = np.arange(0, self.mean.size * stride, stride) % self.mean.size
        mean, inv_std = self.mean[order], self.inv_std[order]
        whole = sample.size - sample.size % order.size
        with np.errstate(all="ignore"):
            for part in (sample[:whole].reshape(-1, order.size), sample[whole:]):
                part -= mean[: part.shape[-1]]
                part *= inv_std[: part.shape[-1]]
            sample *= sample.dtype.type(self.s)
            return np.tanh(sample, out=sample)


class Blend(NamedTuple):
    """Curvature and gain as set, s and g as the projector uses them, and these in the float type of the layer."""

    curvature: float
    gain: float
    s: float
    g: float
    s_number: float
    g_number: float


@dataclass(frozen=True, slots=True, eq=False)
class ZSpacePass:
    """One forward pass of a norm, as its backward pass and telemetry need it.

    The G groups share statistics each: the F features of a batch norm, or the R rows of a layer norm.

    Parameters
    ----------
    shape : tuple
        Of the input; F is its last entry.
    training : bool
        Whether the statistics were those of the input, so that gradients flow through them.
    mean, inv_std : (G,)
    values : WhitenedValues
        n and t = tanh(s n), flat; E = R F.
    totals : (4, G)
        Sums over a group's elements of abs(t), abs(n), t^2 and of the count abs(t) > 0.99.
    feature_tangents : (K, F)
        Sums over K parts of the rows of abs(t).
    s, g : float
        sqrt(-curvature) and the gain that the projector used.
    curvature, gain : float
        As set on the layer.
    by_sample : bool
        Whether the groups are rows.
    """

    shape: tuple[int, ...]
    training: bool
    mean: F64
    inv_std: F64
    values: WhitenedValues
    totals: F64
    feature_tangents: Float
    s: float
    g: float
    curvature: float
    gain: float
    by_sample: bool = False

    @property
    def features(self) -> int:
        """F, of each row."""
        return self.shape[-1]

    @property
    def elements(self) -> int:
        """E, of the input."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """R, over which the features' means are taken."""
        return self.elements // self.features

    @property
    def members(self) -> int:
        """Elements of one group."""
        return self.elements // self.mean.size


def pass_behind(layer: Module, shape: tuple[int, ...], workspace: Workspace) -> ZSpacePass:
    """Return the forward pass that a backward pass for an input of this shape belongs to.

    Raises
    ------
    StateError
        There was none, or it saw another shape.
    """
    one = workspace.kept(layer, ZSpacePass)
    if one.shape != shape:
        raise StateError(f"{layer.name}: backward for input {shape} after a forward of {one.shape}: run forward first")
    return one


def radius(one: ZSpacePass) -> F64:
    """Return the mean ball radius of each group, (G,); zero at gain 0, where nothing is projected."""
    return one.totals[0] / one.members / one.s if one.g > 0 else np.zeros(one.mean.size)


def reach(one: ZSpacePass) -> tuple[float, float]:
    """Return mean abs(n) and mean r over all elements: the mean abs(p) at gain 0 and at gain 1."""
    tangent, normed = one.totals[:2].sum(axis=1) / one.elements
    return float(normed), float(tangent) / one.s


Telemetry = TypeVar("Telemetry", ZSpaceBatchNormTelemetry, ZSpaceLayerNormTelemetry)


def snapshot(one: ZSpacePass, kind: type[Telemetry]) -> Telemetry:
    """Copy a pass out into the form that people read."""
    normed, tangent = one.values.arrays()
    n = normed.reshape(one.rows, one.features).copy()
    t = tangent.reshape(n.shape)
    mean_t, mean_n = one.totals[:2] / one.members
    ball = mean_t / one.s
    number = n.dtype.type
    # A diverged run may be looked at too: 0 * infinity is NaN here, as it was in the pass.
    with np.errstate(all="ignore"):
        projected = number(1 - one.g) * n + number(one.g / one.s) * t
        jacobian = number(1) - number(one.g) * t * t
        blended_radius = (1 - one.g) * mean_n + one.g * ball
    return kind(
        batch=one.rows,
        features=one.features,
        mean=one.mean.copy(),
        inv_std=one.inv_std.copy(),
        normed=n,
        projected=projected,
        jacobian=jacobian,
        radius=radius(one),
        blended_radius=blended_radius,
        conformal=np.array([conformal_factor(float(r), one.curvature) for r in ball]),
        curvature=one.curvature,
        gain=one.gain,
    )


def observe(one: ZSpacePass) -> ZSpaceObservation:
    """Boil a pass down to the numbers of its curves."""
    elements = one.elements
    mean_t, mean_n, mean_tt, saturation = (float(total) / elements for total in one.totals.sum(axis=1))
    p05, p50, p95 = quantiles(one.values.tangents(_stride(elements, one.features)), (0.05, 0.5, 0.95))
    return ZSpaceObservation(
        radius_mean=mean_t / one.s,
        radius_p05=p05 / one.s,
        radius_p50=p50 / one.s,
        radius_p95=p95 / one.s,
        radius_rel_mean=mean_t,
        radius_rel_p05=p05,
        radius_rel_p50=p50,
        radius_rel_p95=p95,
        blended_mean=(1 - one.g) * mean_n + one.g * mean_t / one.s,
        jacobian_mean=1 - one.g * mean_tt,
        # J falls as the radius grows, so its 5th percentile is J at the radius' 95th.
        jacobian_p05=1 - one.g * p95 * p95,
        saturation=saturation,
        conformal_mean=conformal_factor(mean_t / one.s, one.curvature),
        curvature=one.curvature,
        gain=one.gain,
        feature_radius=one.feature_tangents.sum(axis=0, dtype=np.float64) / one.rows,
        sample_radius=one.totals[0].reshape(one.shape[0], -1).mean(axis=1) / one.members if one.by_sample else None,
    )


def quantiles(values: Float, shares: tuple[float, ...]) -> list[float]:
    """Return quantiles of the absolute values, between two of them on the straight line; NaN when there is a NaN.

    The numbers are those of ``np.quantile``, which takes fifteen times as long on a sample of this size: its partial
    sort is not vectorized, and the whole sort is.
    """
    ordered = np.abs(values)
    ordered.sort()
    # A NaN is sorted behind everything.
    if math.isnan(ordered[-1]):
        return [math.nan] * len(shares)
    found = []
    for share in shares:
        place = share * (ordered.size - 1)
        below = int(place)
        low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
        # Infinite neighbors have no difference, and an infinite one above nothing to add where the place is exact.
        found.append(low if low == high or place == below else low + (high - low) * (place - below))
    return found


def _stride(elements: int, features: int) -> int:
    """Step of the sample through the flat array: prime to the number of features, or it would miss some of them.

    It is searched upwards: a smaller step would sample the first images of the batch alone.
    """
    stride = max(1, elements // QUANTILE_SAMPLE)
    while math.gcd(stride, features) != 1:
        stride += 1
    return stride
