"""Arrays of another program, reproduced through the norms; `tests/golden/README_golden.md` describes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracles.golden import Golden
from spiral_core import nn


def check_batch_norm(golden: Golden) -> None:
    layer = nn.BatchNorm1d("bn", 5, 0.1, 1e-5)
    layer.gamma.value[:], layer.beta.value[:] = golden["bn.gamma"][0], golden["bn.beta"][0]
    for index in (1, 2):
        golden.same(f"bn.y{index}", layer.forward(golden[f"bn.x{index}"]))
        golden.same(f"bn.running_mean{index}", layer.running_mean)
        golden.same(f"bn.running_var{index}", layer.running_var)
    golden.same("bn.gx2", layer.backward(golden["bn.x2"], golden["bn.go"]))
    golden.same("bn.ggamma2", layer.gamma.grad)
    golden.same("bn.gbeta2", layer.beta.grad)
    layer.eval()
    golden.same("bn.y3_eval", layer.forward(golden["bn.x3"]))


def check_reference_rule(golden: Golden, target: float, step: float) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 5, -1.0, projector_gain=0.5)
    gains, radii = [], []
    for _ in range(14):
        layer.forward(golden["bn.x1"])
        radii.append(layer.telemetry().radius.mean())
        gains.append(layer.adapt_projector_gain(target, step, signal="ball"))
        assert layer.projector_gain == gains[-1]
    golden.same(f"zbn.adapt.target{target}_smooth{step}.gain_after", np.array(gains))
    golden.same(f"zbn.adapt.target{target}_smooth{step}.mean_radius_before", np.array(radii))


def check_layer_norm(golden: Golden, curvature: float, epsilon: float) -> None:
    prefix = f"ln.k{curvature:g}_eps{epsilon:g}"
    layer = nn.LayerNorm("ln", 6, curvature, epsilon)
    layer.gamma.value[:], layer.beta.value[:] = golden["ln.gamma"][0], golden["ln.beta"][0]
    golden.same(f"{prefix}.y", layer.forward(golden["ln.x"]))
    golden.same(f"{prefix}.gx", layer.backward(golden["ln.x"], golden["ln.go"]))
    golden.same(f"{prefix}.ggamma", layer.gamma.grad)
    golden.same(f"{prefix}.gbeta", layer.beta.grad)


def check_z_space_layer_norm(golden: Golden, curvature: float, epsilon: float, gain: float) -> None:
    prefix = f"zln.k{curvature:g}_eps{epsilon:g}_g{gain:g}"
    layer = nn.ZSpaceLayerNorm("lnz", 6, curvature, epsilon, projector_gain=gain)
    layer.gamma.value[:], layer.beta.value[:] = golden["ln.gamma"][0], golden["ln.beta"][0]
    golden.same(f"{prefix}.y", layer.forward(golden["ln.x"]))
    telemetry = layer.telemetry()
    for field in ("batch", "features", "mean", "inv_std", "radius", "normed", "projected", "jacobian"):
        golden.same(f"{prefix}.tele.{field}", getattr(telemetry, field))
    golden.same(f"{prefix}.gx", layer.backward(golden["ln.x"], golden["ln.go"]))
    golden.same(f"{prefix}.ggamma", layer.gamma.grad)
    golden.same(f"{prefix}.gbeta", layer.beta.grad)


def check_reference_rule_by_sample(golden: Golden) -> None:
    layer = nn.ZSpaceLayerNorm("lnz", 6, projector_gain=0.5)
    gains = []
    for _ in range(6):
        layer.forward(golden["ln.x"])
        gains.append(layer.adapt_projector_gain(0.5, 0.3, signal="ball"))
    golden.same("zln.adapt.target0.5_smooth0.3.gain_after", np.array(gains))


def check_bound(golden: Golden, curvature: float) -> None:
    layer = nn.ZSpaceBatchNorm1d("z", 1, curvature, epsilon=1e-12, dtype=np.float64)
    layer.forward(np.array([[1.0], [-1.0]] * 8))
    golden.same(f"bound.max_mean_radius_training.k{curvature:g}", layer.observe().radius_mean, 1e-9)


def test_every_golden_array_of_the_norms_is_reproduced(record_property: Callable[[str, object], None]) -> None:
    golden = Golden(__file__)
    check_batch_norm(golden)
    for target, step in ((0.4, 0.5), (0.8, 0.5), (0.5, 0.05)):
        check_reference_rule(golden, target, step)
    for curvature in (-1.0, -0.25, -0.5, -0.79, -4.0):
        check_bound(golden, curvature)
    for curvature in (-1.0, -4.0):
        for epsilon in (1e-5, 1e-2):
            check_layer_norm(golden, curvature, epsilon)
            for gain in (1.0, 0.4, 0.0):
                check_z_space_layer_norm(golden, curvature, epsilon, gain)
    check_reference_rule_by_sample(golden)
    golden.settle(record_property)
