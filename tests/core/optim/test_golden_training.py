"""Twenty steps of training by another program, reproduced; `tests/golden/README_golden.md` describes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracles.golden import Golden
from spiral_core import nn, optim

STEPS, RATE = 20, 0.02
MODES = {
    "euclid": optim.OptimizerMode.euclidean(),
    "real": optim.OptimizerMode.realgrad(RATE),
    "hyper": optim.OptimizerMode.hypergrad(-1.0, RATE),
}


def network(golden: Golden) -> tuple[nn.Sequential, nn.Linear, nn.ZSpaceBatchNorm1d, nn.Linear]:
    first, norm, last = nn.Linear("a", 4, 8), nn.ZSpaceBatchNorm1d("z", 8, projector_gain=0.7), nn.Linear("b", 8, 2)
    for layer, number in ((first, 1), (last, 2)):
        layer.weight.value[...] = golden[f"train.W{number}"]
        layer.bias.value[:] = golden[f"train.b{number}"][0]
    return nn.Sequential("net", [first, norm, last]), first, norm, last


def check_training(golden: Golden, kind: str) -> None:
    model, first, norm, last = network(golden)
    # Norms and biases too take bent steps there.
    optimizer = optim.ZSpaceOptimizer(RATE, groups=())
    optimizer.set_mode(MODES[kind])
    optimizer.prepare_module(model)
    x, target, losses = golden["train.X"], golden["train.Y"], []
    for _ in range(STEPS):
        optimizer.zero_grad(model)
        pred = model.forward(x)
        grad = np.empty_like(pred)
        losses.append(nn.mse_loss(pred, target, grad))
        model.backward(x, grad)
        optimizer.step(model)
    golden.same(f"train.{kind}.losses", losses)
    golden.same(f"train.{kind}.W1_final", first.weight.value)
    golden.same(f"train.{kind}.W2_final", last.weight.value)
    golden.same(f"train.{kind}.gamma_final", norm.gamma.value)
    golden.same(f"train.{kind}.running_var_final", norm.running_var)


def test_every_golden_array_of_training_is_reproduced(record_property: Callable[[str, object], None]) -> None:
    golden = Golden(__file__)
    for kind in MODES:
        check_training(golden, kind)
    golden.settle(record_property)
