"""The models that can be trained by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

from spiral_core import choices
from spiral_core.errors import ArgumentError
from spiral_core.nn.activation import ReLU
from spiral_core.nn.conv import Conv2d
from spiral_core.nn.layer_norm import ZSpaceLayerNorm
from spiral_core.nn.layout import ImageToSequence, SequenceToImage
from spiral_core.nn.linear import Flatten, Linear
from spiral_core.nn.module import Module
from spiral_core.nn.norm import ZSpaceBatchNorm2d
from spiral_core.nn.pooling import GlobalAveragePool2d, MaxPool2d
from spiral_core.nn.recurrent import Lstm
from spiral_core.nn.sequential import Sequential
from spiral_core.nn.steering import ZSpaceNorm

MODELS: Final = tuple(choices.MODELS)
"""Names for `build`."""

MLP_HIDDEN: Final = 128
"""Units of each hidden layer of `z_mlp`."""

LSTM_HIDDEN: Final = 64
"""Units of the memory of `z_lstm`."""


@dataclass(frozen=True)
class _Plan:
    """What the layers of one model share: the image (H, W, C), the projector, where weights come from."""

    image: tuple[int, int, int]
    curvature: float
    gain: float
    generator: np.random.Generator | None
    dtype: DTypeLike

    def linear(self, name: str, before: int, after: int) -> Linear:
        return Linear(name, before, after, generator=self.generator, dtype=self.dtype)

    def row_norm(self, name: str, features: int) -> ZSpaceLayerNorm:
        return ZSpaceLayerNorm(name, features, self.curvature, projector_gain=self.gain, dtype=self.dtype)

    def convolutions(self, index: int, before: int, after: int) -> list[Module]:
        return [
            Conv2d(f"conv{index}", before, after, (3, 3), generator=self.generator, dtype=self.dtype),
            ZSpaceBatchNorm2d(f"zbn{index}", after, self.curvature, projector_gain=self.gain, dtype=self.dtype),
            ReLU(f"relu{index}", self.dtype),
        ]


def _z_cam(plan: _Plan) -> tuple[list[Module], int]:
    layers = plan.convolutions(1, plan.image[2], 16)
    layers += [MaxPool2d("pool1", (2, 2), dtype=plan.dtype), *plan.convolutions(2, 16, 32)]
    return [*layers, *plan.convolutions(3, 32, 32), GlobalAveragePool2d("gap", plan.dtype)], 32


def _z_cnn(plan: _Plan) -> tuple[list[Module], int]:
    height, width, channels = plan.image
    layers: list[Module] = []
    for index, (before, after) in enumerate(((channels, 16), (16, 32)), start=1):
        layers += [*plan.convolutions(index, before, after), MaxPool2d(f"pool{index}", (2, 2), dtype=plan.dtype)]
    return [*layers, Flatten("flatten", plan.dtype)], 32 * (height // 4) * (width // 4)


def _z_mlp(plan: _Plan) -> tuple[list[Module], int]:
    height, width, channels = plan.image
    layers: list[Module] = [Flatten("flatten", plan.dtype)]
    for index, before in enumerate((height * width * channels, MLP_HIDDEN), start=1):
        layers += [
            plan.linear(f"fc{index}", before, MLP_HIDDEN),
            plan.row_norm(f"zln{index}", MLP_HIDDEN),
            ReLU(f"relu{index}", plan.dtype),
        ]
    return layers, MLP_HIDDEN


def _z_lstm(plan: _Plan) -> tuple[list[Module], int]:
    height, _, channels = plan.image
    # Batches do not continue each other, so each pass starts from the zero state.
    memory = Lstm("lstm", height * channels, LSTM_HIDDEN, stateful=False, generator=plan.generator, dtype=plan.dtype)
    layers: list[Module] = [
        ImageToSequence("columns", plan.dtype),
        memory,
        SequenceToImage("steps", plan.dtype),
        plan.row_norm("zln1", LSTM_HIDDEN),
        ReLU("relu1", plan.dtype),
        GlobalAveragePool2d("gap", plan.dtype),
    ]
    return layers, LSTM_HIDDEN


_BODIES: Final[dict[str, Callable[[_Plan], tuple[list[Module], int]]]] = {
    "z_cam": _z_cam,
    "z_cnn": _z_cnn,
    "z_mlp": _z_mlp,
    "z_lstm": _z_lstm,
}
"""By name: everything before the head, and how many features that gives."""

_DEMANDS: Final[dict[str, tuple[Callable[[int], bool], str]]] = {
    "z_cam": (lambda size: size >= 2, "of at least 2"),
    "z_cnn": (lambda size: size % 4 == 0, "divisible by 4"),
}
"""What height and width of an image must be, because pooling halves them once or twice."""


def misfit(name: str, image: tuple[int, int]) -> str | None:
    """Tell why a model cannot take images of a size, and which models can; None where it can.

    Parameters
    ----------
    name : str       one of `MODELS`
    image : (H, W)
    """

    def fits(model: str) -> bool:
        return model not in _DEMANDS or all(_DEMANDS[model][0](size) for size in image)

    if fits(name):
        return None
    others = ", ".join(model for model in MODELS if fits(model))
    return f"image must have height and width {_DEMANDS[name][1]} for {name}, got {image}; models that fit: {others}"


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
    over space and a linear head, so that Grad-CAM is exact. ``z_mlp``: two fully connected layers of 128 units, each
    with Z-space layer norm and ReLU, then a linear head. ``z_lstm``: a memory of 64 units that walks through the
    columns of an image, which are the time steps of a sequence; Z-space layer norm and ReLU at each step, then the
    average over time and a linear head, so that Grad-CAM over time is exact too.

    Parameters
    ----------
    name : str                    one of `MODELS`
    classes : int                 K
    in_channels : int             C of the images (N, H, W, C)
    image : (H, W)                see `misfit`; `z_cam` alone takes images of other sizes afterwards
    curvature, gain : float       of every Z-space layer
    generator : numpy Generator   draws the weights in order; without one, each layer is seeded by its name
    dtype : float32 or float64

    Raises
    ------
    ArgumentError
        An unknown name, an image that the model cannot take, or a value out of bounds.
    """
    if name not in _BODIES:
        raise ArgumentError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    reason = misfit(name, image)
    if reason is not None:
        raise ArgumentError(reason)
    plan = _Plan((*image, in_channels), curvature, gain, generator, dtype)
    layers, features = _BODIES[name](plan)
    return Sequential(name, [*layers, plan.linear("head", features, classes)])


def cam_targets(model: Sequential) -> list[str]:
    """Return the names of the layers that Grad-CAM can look at: each ReLU whose input still has places.

    Behind a fully connected layer or an average over space there is nothing to map any more.
    """
    layers = model.layers
    end = next((at for at, layer in enumerate(layers) if isinstance(layer, (Flatten, Linear, GlobalAveragePool2d))), 0)
    return [layer.name for layer in layers[:end] if isinstance(layer, ReLU)]


def cam_target(model: Sequential) -> str | None:
    """Return the name of the layer that Grad-CAM looks at by default: the ReLU behind the last Z-space norm.

    None where there is no such layer, or where what reaches it has no places any more (see `cam_targets`).
    """
    layers = model.layers
    norms = [position for position, layer in enumerate(layers) if isinstance(layer, ZSpaceNorm)]
    behind = layers[norms[-1] + 1 :] if norms else []
    found = next((layer.name for layer in behind if isinstance(layer, ReLU)), None)
    return found if found in cam_targets(model) else None


@cache
def has_heat_maps(name: str) -> bool:
    """Tell whether Grad-CAM has something to map in a model, see `cam_target`."""
    return cam_target(build(name, classes=2, image=(4, 4))) is not None
