"""Slow float64 twins of `z_cam`, `z_cnn` and `z_lstm` in evaluation mode, with Grad-CAM of the predicted class.

Plain NumPy, written from the formulas; it shares no code with the engine. It takes the weights as a dict of arrays,
so that a checkpoint, a state dict or a test can feed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oracles import lstm_twin
from spiral_core.arrays import F64, I64, AnyArray

EPSILON = 1e-5


@dataclass(frozen=True)
class TwinCam:
    """What the twin computes for N images; fields as in `spiral_core.xai.CamResult`, all in float64."""

    maps: F64
    logits: F64
    predicted: I64
    activations: F64
    gradients: F64


def convolve(x: F64, weight: F64, bias: F64) -> F64:
    """3 x 3 cross-correlation with one pixel of zeros around (N, H, W, C_in); weight (3, 3, C_in, C_out)."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:3], weight.shape[3])) + bias
    for row in range(3):
        for column in range(3):
            out += padded[:, row : row + height, column : column + width] @ weight[row, column]
    return out


def project(normed: F64, gain: float, curvature: float) -> F64:
    """Blend the whitened value with its tanh on the ball of radius 1 / sqrt(-curvature)."""
    root = np.sqrt(-curvature)
    return (1.0 - gain) * normed + gain * np.tanh(root * normed) / root


def max_pool(x: F64) -> F64:
    """Largest of each 2 x 2 window."""
    count, height, width, channels = x.shape
    return x.reshape(count, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def max_unpool(x: F64, gradient: F64) -> F64:
    """Send each window's gradient to its first maximum in row order; loops on purpose."""
    out = np.zeros_like(x)
    for image, row, column, channel in np.ndindex(gradient.shape):
        window = x[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
        down, right = divmod(int(window.argmax()), 2)
        out[image, 2 * row + down, 2 * column + right, channel] = gradient[image, row, column, channel]
    return out


class _Network:
    def __init__(self, weights: Mapping[str, AnyArray]) -> None:
        self.weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}

    def block(self, x: F64, number: int) -> F64:
        """Convolution, Z-space batch norm with running statistics, ReLU."""
        conv, norm = f"conv{number}", f"zbn{number}"
        x = convolve(x, self.weights[f"{conv}.weight"], self.weights[f"{conv}.bias"])
        spread = np.sqrt(self.weights[f"{norm}.running_var"] + EPSILON)
        return self.rectified((x - self.weights[f"{norm}.running_mean"]) / spread, norm)

    def rectified(self, normed: F64, norm: str) -> F64:
        """Projector, scale and shift of a norm, then ReLU."""
        gain, curvature = self.weights[f"{norm}.projector_gain"].item(), self.weights[f"{norm}.curvature"].item()
        projected = project(normed, gain, curvature)
        return np.maximum(self.weights[f"{norm}.gamma"] * projected + self.weights[f"{norm}.beta"], 0.0)

    def memory(self, images: F64) -> F64:
        """Features (N, 1, W, H) of one image after the other, each walked through column by column."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = lstm_twin.Weights(*(self.weights[f"lstm.{name}"] for name in names))
        zeros = np.zeros(len(weights.hh))
        walks = []
        for image in images:
            columns = np.array([image[:, column].reshape(-1) for column in range(image.shape[1])])
            walks.append(lstm_twin.forward(columns, weights, zeros, zeros).y)
        features = np.array(walks)[:, None]
        root = np.sqrt(-self.weights["zln1.curvature"].item())
        spread = np.sqrt(features.var(axis=-1, keepdims=True) + EPSILON * (1 + 0.1 * root))
        return self.rectified((features - features.mean(axis=-1, keepdims=True)) / spread, "zln1")

    def head(self, features: F64) -> F64:
        """Logits (N, classes)."""
        return features @ self.weights["head.weight"] + self.weights["head.bias"]


def explain(name: str, weights: Mapping[str, AnyArray], images: AnyArray) -> TwinCam:
    """Recompute Grad-CAM of the predicted class at the last activation before the pooling.

    Parameters
    ----------
    name : str
        ``z_cam``, ``z_cnn`` or ``z_lstm``.
    weights : dict of arrays
        A state dict of the model; it tells gain and curvature too.
    images : (N, H, W, 1)
        H and W divisible by 2 (``z_cam``) or 4 (``z_cnn``).
    """
    network = _Network(weights)
    wide = np.asarray(images, dtype=np.float64)
    averaged = name in ("z_cam", "z_lstm")
    activations = network.memory(wide) if name == "z_lstm" else network.block(max_pool(network.block(wide, 1)), 2)
    if name == "z_cam":
        activations = network.block(activations, 3)
    if averaged:
        logits = network.head(activations.mean(axis=(1, 2)))
    else:
        pooled = max_pool(activations)
        logits = network.head(pooled.reshape(len(pooled), -1))
    predicted = logits.argmax(axis=1)
    # Shape: (N, features). The gradient of the chosen logit with respect to what enters the head.
    at_head = network.weights["head.weight"][:, predicted].T
    if averaged:
        places = activations.shape[1] * activations.shape[2]
        gradients = np.zeros_like(activations) + at_head[:, None, None, :] / places
    else:
        gradients = max_unpool(activations, at_head.reshape(pooled.shape))
    return TwinCam(weighted_maps(activations, gradients), logits, predicted, activations, gradients)


def weighted_maps(activations: AnyArray, gradients: AnyArray) -> F64:
    """Signed Grad-CAM maps (N, h, w) of (N, h, w, K) activations and gradients."""
    wide = np.asarray(gradients, dtype=np.float64)
    maps: F64 = (wide.mean(axis=(1, 2), keepdims=True) * np.asarray(activations, dtype=np.float64)).sum(axis=3)
    return maps


def cam_maps(name: str, weights: Mapping[str, AnyArray], images: AnyArray) -> F64:
    """Return only the maps of `explain`, (N, h, w)."""
    return explain(name, weights, images).maps
