r"""Grad-CAM: which places of a feature map speak for a class.

.. math:: w_k = \frac{1}{hw} \sum_{ij} G_{kij}, \qquad M_{ij} = \sum_k w_k A_{kij}

with the activations A of a layer and the gradient G of a score with respect to them. This module knows arrays only;
`spiral_core.xai.probe` gets them from a network. Source: Selvaraju et al. 2017, equations 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from spiral_core.arrays import F32, F64, Float
from spiral_core.errors import ArgumentError, ShapeError

DEFAULT_EPSILON: Final = 1e-6
"""A map whose values spread no wider than this counts as constant when normalizing, in units of the score."""


@dataclass(frozen=True, slots=True)
class GradCamConfig:
    """How `GradCam.attribute` lays out and finishes a map.

    Parameters
    ----------
    height, width : int
        Of the feature map, >= 1. Features of a sequence, (H, T), are a map of height 1 and width T.
    apply_relu : bool
        Keep positive evidence only.
    epsilon : float
        Finite, >= 0. Where the spread of the map is not above it, normalizing gives zeros.
    normalise : bool
        Stretch the map to 0 .. 1 by its minimum and maximum.

    Raises
    ------
    ArgumentError
        When a value is out of its range.
    """

    height: int
    width: int
    apply_relu: bool = True
    epsilon: float = DEFAULT_EPSILON
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ArgumentError(f"height and width must be at least 1, got {self.height} and {self.width}")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0.0):
            raise ArgumentError(f"epsilon must be finite and not negative, got {self.epsilon}")

    def with_relu(self, apply_relu: bool) -> GradCamConfig:
        """Return a copy with ``apply_relu`` set."""
        return replace(self, apply_relu=apply_relu)

    def with_epsilon(self, epsilon: float) -> GradCamConfig:
        """Return a copy with ``epsilon`` set; the same range holds."""
        return replace(self, epsilon=epsilon)

    def with_normalise(self, normalise: bool) -> GradCamConfig:
        """Return a copy with ``normalise`` set."""
        return replace(self, normalise=normalise)


class GradCam:
    """Grad-CAM of one image in the layout (channels, places), or of a batch in channels-last layout."""

    @staticmethod
    def attribute(activations: Float, gradients: Float, config: GradCamConfig) -> Float:
        """Return the map of one image.

        Parameters
        ----------
        activations, gradients : (K, h*w)
            K >= 1 channels; the gradient of the explained score with respect to the activations. Not modified.
        config : GradCamConfig
            ``height * width`` must be the number of places.

        Returns
        -------
        (height, width)
            In the dtype of ``activations``. Normalized by minimum and maximum, not divided by the maximum: a constant
            map becomes zeros, even when it is strongly positive. NaN entries stay NaN and do not move the range.

        Raises
        ------
        ShapeError
            When the shapes differ from each other or from the configuration.

        Notes
        -----
        Sums run in float64. No upsampling: see `spiral_core.xai.resize`.
        """
        places = config.height * config.width
        if activations.ndim != 2 or activations.shape[0] < 1 or activations.shape[1] != places:
            raise ShapeError(
                f"activations must be (channels, {config.height} * {config.width}), got {activations.shape}; "
                "flatten one image, or use attribute_batch for (N, h, w, K)"
            )
        if gradients.shape != activations.shape:
            raise ShapeError(f"gradients must have the shape of activations {activations.shape}, got {gradients.shape}")
        weights = gradients.mean(axis=1, dtype=np.float64)
        # The products are formed in float64: einsum casts both operands to the wider type.
        cam = np.einsum("k,kp->p", weights, activations).reshape(config.height, config.width)
        if config.apply_relu:
            cam = np.maximum(cam, 0.0)
        if config.normalise:
            cam = _stretched(cam, config.epsilon)
        finished: Float = cam.astype(activations.dtype, copy=False)
        return finished

    @staticmethod
    def attribute_batch(activations: Float, gradients: Float) -> F32:
        """Return the signed raw maps of a batch: weighted channel sums before any ReLU.

        Parameters
        ----------
        activations, gradients : (N, h, w, K)
            Channels last, all axes but N at least 1; not modified.

        Returns
        -------
        (N, h, w) float32
            In units of the score per place; summed in float64 and rounded once.

        Raises
        ------
        ShapeError
            When the shapes differ or have no four axes.
        """
        if activations.ndim != 4 or min(activations.shape[1:]) < 1:
            raise ShapeError(f"activations must be (N, h, w, K), got {activations.shape}; for one image add an axis")
        if gradients.shape != activations.shape:
            raise ShapeError(f"gradients must have the shape of activations {activations.shape}, got {gradients.shape}")
        weights = gradients.mean(axis=(1, 2), dtype=np.float64)
        maps: F32 = np.einsum("nk,nhwk->nhw", weights, activations).astype(np.float32)
        return maps


def _stretched(cam: F64, epsilon: float) -> F64:
    # fmin and fmax skip NaN, so that one bad place does not blank the whole map.
    low, high = np.fmin.reduce(cam, axis=None), np.fmax.reduce(cam, axis=None)
    spread = abs(high - low)
    if spread <= epsilon:
        return np.where(np.isnan(cam), cam, 0.0)
    with np.errstate(invalid="ignore"):
        stretched: F64 = (cam - low) / spread
    return stretched
