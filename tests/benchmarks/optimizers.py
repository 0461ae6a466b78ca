"""One update of the parameters of `z_cnn`, against the `foreach` optimizers of PyTorch.

    python tests/benchmarks/optimizers.py [--pairs 40] [--steps 200] [--threads 2]

SGD with momentum 0.9 and Adam, each by the trainer's `ZSpaceOptimizer` and by the plain `SGD` and `Adam`, on the same
parameters and gradients in memory. Each must take at most the time of PyTorch with ``foreach=True``; its fused form is
printed for comparison. After the first updates both sides' weights are compared.

Exits with 1 when a ratio is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import _pairs
import numpy as np
import torch

from spiral_core import nn, optim
from spiral_core.engine.optimization import ADAM_BETAS, GROUPS

LR, MOMENTUM = 1e-3, 0.9
BUDGET = 1.0
AGREE_STEPS = 5


def fresh() -> nn.Sequential:
    """Return a `z_cnn` with gradients."""
    generator = np.random.default_rng(0)
    model = nn.models.build("z_cnn", classes=10, generator=generator)
    for parameter in model.parameters():
        parameter.grad[...] = generator.standard_normal(parameter.grad.shape)
    return model


def trainers(model: nn.Module, kind: str) -> Callable[[], None]:
    momentum, adam = (MOMENTUM, None) if kind == "SGD" else (0.0, ADAM_BETAS)
    optimizer = optim.ZSpaceOptimizer(LR, momentum=momentum, adam=adam, groups=GROUPS)
    optimizer.prepare_module(model)
    return optimizer.step


def plain(model: nn.Module, kind: str) -> Callable[[], None]:
    own = model.parameters()
    optimizer = optim.SGD(own, LR, momentum=MOMENTUM) if kind == "SGD" else optim.Adam(own, LR)
    return optimizer.step


def peers(start: list[nn.Parameter], kind: str, form: str) -> tuple[list[torch.Tensor], Callable[[], object]]:
    tensors = [torch.nn.Parameter(torch.from_numpy(parameter.value.copy())) for parameter in start]
    for tensor, parameter in zip(tensors, start, strict=True):
        tensor.grad = torch.from_numpy(parameter.grad.copy())
    if kind == "SGD":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(tensors, lr=LR, momentum=MOMENTUM, **{form: True})
    else:
        optimizer = torch.optim.Adam(tensors, lr=LR, **{form: True})
    return list(tensors), optimizer.step


def measure(kind: str, ledger: _pairs.Ledger, steps: int) -> None:
    start = fresh().parameters()
    weights: dict[str, list[np.ndarray]] = {}
    sides: list[_pairs.Side] = []
    for name, make in (("ZSpaceOptimizer", trainers), (kind, plain)):
        model = fresh()
        sides.append(_pairs.Side(name, make(model, kind)))
        weights[name] = [parameter.value for parameter in model.parameters()]
    for form in ("foreach", "fused"):
        tensors, step = peers(start, kind, form)
        sides.append(_pairs.Side(form, step))
        weights[form] = [tensor.detach().numpy() for tensor in tensors]
    for side in sides:
        for _ in range(AGREE_STEPS):
            side.run()
    for name in ("ZSpaceOptimizer", kind, "fused"):
        for ours, peer in zip(weights[name], weights["foreach"], strict=True):
            _pairs.require_agreement(f"{kind}, {name}", ours, peer)
    taken = ledger.in_turns(sides, steps)
    for name in ("ZSpaceOptimizer", kind):
        label = kind if name == kind else f"{name}, {'momentum' if kind == 'SGD' else kind}"
        ledger.compare(f"{label} / torch foreach", taken[name], taken["foreach"], BUDGET)
        ledger.compare(f"{label} / torch fused", taken[name], taken["fused"])


def main() -> int:
    asked = _pairs.options(__doc__, steps=200)
    ledger = _pairs.Ledger(asked.pairs, asked.threads)
    ledger.open("one update of the parameters of z_cnn")
    ledger.heading()
    for kind in ("SGD", "Adam"):
        measure(kind, ledger, asked.steps)
    return ledger.close()


if __name__ == "__main__":
    sys.exit(main())
