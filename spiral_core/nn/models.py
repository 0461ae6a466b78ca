"""The models that can be trained by name."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import DTypeLike

from spiral_core.errors import ArgumentError
from spiral_core.nn.activation import ReLU
from spiral_core.nn.conv import Conv2d
from spiral_core.nn.linear import Flatten, Linear
from spiral_core.nn.module import Module
from spiral_core.nn.norm import ZSpaceBatchNorm2d
from spiral_core.nn.pooling import GlobalAveragePool2d, MaxPool2d
from spiral_core.nn.sequential import Sequential
from spiral_core.nn.steering import ZSpaceNorm

MODELS: Final = ("z_cam", "z_cnn")
"""Names for `build`."""


def build(
    name: str,
    *,
    classes: int,
    in_channels: int = 1,
    image: tuple[int, int] = (28, 28),
    curvature: float = -1.0,
    gain: float = 1.0,
    generator: np.random.Generator | None = None,
    dtype: DTypeLike = np.float32,
) -> Sequential:
    """Build a model with fresh weights.

    ``z_cnn``: two blocks of convolution (16, then 32 channels), Z-space batch norm, ReLU and max pooling, then a linear
    head over all pixels. ``z_cam``: three convolutions (16, 32, 32) with one pooling after the first, then the average
    over space and a linear head, so that Grad-CAM is exact.

    Parameters
    ----------
    name : str                    one of `MODELS`
    classes : int                 K
    in_channels : int             C of the images (N, H, W, C)
    image : (H, W)                only `z_cnn` depends on it; divisible by 4 there
    curvature, gain : float       of every Z-space layer
    generator : numpy Generator   draws the weights in order; without one, each layer is seeded by its name
    dtype : float32 or float64

    Raises
    ------
    ArgumentError
        An unknown name or a value out of bounds.
    """
    if name not in MODELS:
        raise ArgumentError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")

    def block(index: int, before: int, after: int) -> list[Module]:
        return [
            Conv2d(f"conv{index}", before, after, (3, 3), generator=generator, dtype=dtype),
            ZSpaceBatchNorm2d(f"zbn{index}", after, curvature, projector_gain=gain, dtype=dtype),
            ReLU(f"relu{index}", dtype),
        ]

    layers = [*block(1, in_channels, 16), MaxPool2d("pool1", (2, 2), dtype=dtype), *block(2, 16, 32)]
    if name == "z_cam":
        layers += [*block(3, 32, 32), GlobalAveragePool2d("gap", dtype)]
        features = 32
    else:
        height, width = image
        if height % 4 or width % 4:
            raise ArgumentError(f"image must have height and width divisible by 4 for z_cnn, got {image}")
        layers += [MaxPool2d("pool2", (2, 2), dtype=dtype), Flatten("flatten", dtype)]
        features = 32 * (height // 4) * (width // 4)
    layers.append(Linear("head", features, classes, generator=generator, dtype=dtype))
    return Sequential(name, layers)


def cam_target(model: Sequential) -> str:
    """Return the name of the layer that Grad-CAM looks at by default: the ReLU behind the last Z-space norm.

    Raises
    ------
    ArgumentError
        The model has no such layer.
    """
    behind: list[Module] = []
    for layer in model.layers:
        behind = [] if isinstance(layer, ZSpaceNorm) else [*behind, layer]
    if len(behind) < len(model.layers):
        for layer in behind:
            if isinstance(layer, ReLU):
                return layer.name
    raise ArgumentError(f"{model.name} has no ReLU behind a Z-space norm; name the layer to look at")
