"""Arrays of another program, reproduced through our layers; `tests/golden/README_golden.md` describes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from oracles.golden import Golden
from spiral_core import nn, optim
from spiral_core.arrays import Float

CONV_WEIGHT_TOLERANCE = 3e-5


def linear(golden: Golden) -> nn.Linear:
    layer = nn.Linear("l", 4, 3)
    layer.weight.value[...] = golden["linear.w"]
    layer.bias.value[...] = golden["linear.b"][0]
    return layer


def check_linear(golden: Golden) -> None:
    layer, x = linear(golden), golden["linear.x"]
    golden.same("linear.y", layer.forward(x))
    golden.same("linear.gx", layer.backward(x, golden["linear.go"]))
    golden.same("linear.gw", layer.weight.grad)
    golden.same("linear.gb", layer.bias.grad)
    golden.same("linear.w_default_init", nn.Linear("ramp", 4, 3, init="ramp").weight.value, 0.0)


def check_descent(golden: Golden) -> None:
    layer, weights, biases = linear(golden), [], []
    optimizer = optim.SGD(layer.parameters(), 0.1, momentum=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        layer.backward(golden["linear.x"], golden["linear.go"])
        optimizer.step()
        weights.append(layer.weight.value.copy())
        biases.append(layer.bias.value.copy())
    golden.same("opt.euclid_lr0.1.w_after_1_2_3", np.array(weights))
    golden.same("opt.euclid_lr0.1.b_after_1_2_3", np.array(biases))
    layer = linear(golden)
    for _ in range(2):
        layer.backward(golden["linear.x"], golden["linear.go"])
    optim.SGD(layer.parameters(), 0.05, momentum=0.0).step()
    golden.same("opt.accumulate_two_backward_then_step_lr0.05.euclid.w", layer.weight.value)


def check_telemetry(golden: Golden, prefix: str, layer: nn.ZSpaceBatchNorm1d) -> None:
    telemetry = layer.telemetry()
    for field in ("batch", "features", "mean", "inv_std", "radius", "normed", "projected", "jacobian"):
        golden.same(f"{prefix}.{field}", getattr(telemetry, field))


def check_norm(golden: Golden, curvature: float, gain: float) -> None:
    prefix = f"zbn.k{curvature:g}_g{gain:g}"
    layer = nn.ZSpaceBatchNorm1d("z", 5, curvature, 0.1, 1e-5, projector_gain=gain)
    layer.gamma.value[:], layer.beta.value[:] = golden["bn.gamma"][0], golden["bn.beta"][0]
    golden.same(f"{prefix}.y1", layer.forward(golden["bn.x1"]))
    check_telemetry(golden, f"{prefix}.tele1", layer)
    golden.same(f"{prefix}.gx1", layer.backward(golden["bn.x1"], golden["bn.go"]))
    golden.same(f"{prefix}.ggamma1", layer.gamma.grad)
    golden.same(f"{prefix}.gbeta1", layer.beta.grad)
    golden.same(f"{prefix}.running_mean1", layer.running_mean)
    golden.same(f"{prefix}.running_var1", layer.running_var)
    layer.eval()
    golden.same(f"{prefix}.y3_eval", layer.forward(golden["bn.x3"]))
    check_telemetry(golden, f"{prefix}.tele3_eval", layer)


def check_corners_of_the_norm(golden: Golden) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 1, -400.0)
    golden.same("zbn.saturated.y", layer.forward(golden["zbn.saturated.x"]))
    check_telemetry(golden, "zbn.saturated.tele", layer)
    layer = nn.ZSpaceBatchNorm1d("z", 2)
    layer.forward(np.array([[1, 1000], [-1, -1000]] * 8, np.float32))
    golden.same("zbn.pm1_bound.radius", layer.telemetry().radius, 1e-6)
    layer = nn.ZSpaceBatchNorm1d("z", 3)
    golden.same("zbn.batch1.y", layer.forward(np.array([[1.0, -2.0, 5.0]], np.float32)))
    golden.same("zbn.batch1.radius", layer.telemetry().radius)


class Layout:
    """Turns flat images into ours (N, H, W, C) and back."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.first = config["layout"] == "NCHW"

    def inward(self, flat: Float, channels: int, size: tuple[int, int]) -> Float:
        if self.first:
            return np.ascontiguousarray(flat.reshape(-1, channels, *size).transpose(0, 2, 3, 1))
        return flat.reshape(-1, *size, channels)

    def outward(self, images: Float) -> Float:
        return (images.transpose(0, 3, 1, 2) if self.first else images).reshape(len(images), -1)


def check_convolution(golden: Golden, case: str) -> None:
    name = f"conv.{case}"
    config = json.loads(str(golden[f"{name}.cfg"]))
    layout = Layout(config)
    inputs, outputs, taps = config["i"], config["o"], config["k"]
    pairs = {"stride": tuple(config["s"]), "padding": tuple(config["p"]), "dilation": tuple(config["d"])}
    layer = nn.Conv2d("c", inputs, outputs, tuple(taps), **pairs)
    layer.weight.value[...] = golden[f"{name}.w"].reshape(outputs, inputs, *taps).transpose(2, 3, 1, 0)
    layer.bias.value[...] = golden[f"{name}.b"][0]
    x = layout.inward(golden[f"{name}.x"], inputs, config["hw"])
    y = layer.forward(x)
    golden.same(f"{name}.out_hw", np.array(y.shape[1:3]))
    golden.same(f"{name}.y", layout.outward(y))
    grad = layout.inward(golden[f"{name}.go"], outputs, y.shape[1:3])
    golden.same(f"{name}.gx", layout.outward(layer.backward(x, grad)))
    golden.same(f"{name}.gw", layer.weight.grad.transpose(3, 2, 0, 1), CONV_WEIGHT_TOLERANCE)
    golden.same(f"{name}.gb", layer.bias.grad)
    ramp = nn.Conv2d("ramp", inputs, outputs, tuple(taps), init="ramp")
    golden.same(f"{name}.w_default_init", ramp.weight.value.transpose(3, 2, 0, 1), 0.0)


def check_pooling(golden: Golden, case: str, kind: type[nn.MaxPool2d | nn.AvgPool2d], short: str) -> None:
    name = f"pool.{case}"
    config = json.loads(str(golden[f"{name}.cfg"]))
    layout = Layout(config)
    stride = None if config["s"] is None else tuple(config["s"])
    layer = kind("p", tuple(config["k"]), stride=stride, padding=tuple(config["p"] or (0, 0)))
    x = layout.inward(golden[f"{name}.x"], config["c"], config["hw"])
    y = layer.forward(x)
    golden.same(f"{name}.{short}.y", layout.outward(y))
    grad = layout.inward(golden[f"{name}.go"], config["c"], y.shape[1:3])
    golden.same(f"{name}.{short}.gx", layout.outward(layer.backward(x, grad)))


def test_every_golden_array_is_reproduced(record_property: Callable[[str, object], None]) -> None:
    golden = Golden(__file__)
    check_linear(golden)
    check_descent(golden)
    for curvature in (-1.0, -0.25, -4.0):
        for gain in (1.0, 0.6, 0.0):
            check_norm(golden, curvature, gain)
    check_corners_of_the_norm(golden)
    for case in "abc":
        check_convolution(golden, case)
        check_pooling(golden, case, nn.MaxPool2d, "max")
        check_pooling(golden, case, nn.AvgPool2d, "avg")
    golden.settle(record_property)
