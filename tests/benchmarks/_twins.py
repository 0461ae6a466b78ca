"""The same networks and layers in PyTorch, with the weights of ours."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch.nn import functional

from spiral_core import nn


class ZSpaceNorm(torch.nn.Module):
    """A norm without scale and shift, and what follows it in a Z-space norm."""

    def __init__(self, norm: torch.nn.Module, features: tuple[int, ...], gain: float = 1.0, s: float = 1.0) -> None:
        super().__init__()
        self.norm, self.gain, self.s = norm, gain, s
        self.gamma = torch.nn.Parameter(torch.ones(features))
        self.beta = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm(x)
        p = (1 - self.gain) * n + self.gain * torch.tanh(self.s * n) / self.s
        return self.gamma * p + self.beta


def z_space_norm_2d(channels: int) -> torch.nn.Module:
    return ZSpaceNorm(torch.nn.BatchNorm2d(channels, affine=False), (channels, 1, 1))


def convolutional(*, z_space: bool) -> torch.nn.Sequential:
    """Return the twin of `z_cnn`, or the same with plain batch norms."""
    norm = z_space_norm_2d if z_space else torch.nn.BatchNorm2d
    layers: list[torch.nn.Module] = []
    for before, after in ((1, 16), (16, 32)):
        layers += [torch.nn.Conv2d(before, after, 3, padding=1), norm(after), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(32 * 7 * 7, 10))


def our_convolutional(*, z_space: bool) -> nn.Sequential:
    """Return `z_cnn`, or the same with plain batch norms."""
    model = nn.models.build("z_cnn", classes=10, generator=np.random.default_rng(0))
    if z_space:
        return model
    layers = [
        nn.BatchNorm2d(layer.name, layer.features) if isinstance(layer, nn.ZSpaceBatchNorm2d) else layer
        for layer in model.layers
    ]
    return nn.Sequential("plain_cnn", layers)


def copy_weights(ours: nn.Sequential, twin: torch.nn.Sequential) -> None:
    """Give the twin our convolutions and our linear layer; norms start alike."""
    pairs = [
        (layer, place)
        for layer, place in zip(ours.layers, twin, strict=True)
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        for layer, place in pairs:
            weight = layer.weight.value
            if weight.ndim == 4:  # (kh, kw, in, out) to (out, in, kh, kw)
                turned = weight.transpose(3, 2, 0, 1)
            else:  # the flattened image is (h, w, c) here and (c, h, w) there
                turned = weight.reshape(7, 7, 32, 10).transpose(3, 2, 0, 1).reshape(10, -1)
            for target, values in ((place.weight, turned), (place.bias, layer.bias.value)):
                cast("torch.Tensor", target).copy_(torch.from_numpy(np.ascontiguousarray(values)))


class LayerNorm(torch.nn.Module):
    """Whitening of each row, with the widened epsilon of ours."""

    def __init__(self, features: int, epsilon: float) -> None:
        super().__init__()
        self.features, self.epsilon = features, epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (self.features,), eps=self.epsilon)
