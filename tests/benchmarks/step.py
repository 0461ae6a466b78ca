"""A training step of `z_cnn`, and of its twin with plain batch norms, against PyTorch and the roofline.

    python tests/benchmarks/step.py [--pairs 40] [--steps 4] [--threads 2]

A step is: drop or clear the gradients, forward, softmax cross-entropy, backward, update by SGD with momentum 0.9, on
one batch of 64 images of 28 x 28 x 1 that both sides hold in memory. Ours also takes the norm of all gradients and the
telemetry sums of the Z-space norms, as the trainer does at every step; PyTorch does neither.

PyTorch runs in four ways: eager and `torch.compile`, each with channels first and channels last. Its optimizer is the
fused one, its fastest here: with it a step took 5 % less than with the default. `torch.compile` compiles the model,
forward and backward, in its default mode; "max-autotune-no-cudagraphs" and compiling the loss with it came to the same
within the spread. OpenMP is left as PyTorch sets it up, which is fastest for PyTorch, see `_pairs.py`. Budgets:

- `z_cnn` at most 0.30 of eager with channels first, and 0.45 of the fastest of the four;
- with plain batch norms at most 1.0 of the fastest of the four;
- `z_cnn` at least half as fast as the roofline of `_roofline.py` allows.

All sides start from the same weights, and their losses over the first steps are compared before anything is timed.
Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence

import _pairs
import _roofline
import numpy as np
import torch
from _twins import convolutional, copy_weights, our_convolutional
from torch.nn import functional

from spiral_core import nn, optim
from spiral_core.engine.optimization import GROUPS

LR, MOMENTUM = 0.01, 0.9
EAGER_BUDGET, BEST_BUDGET, PLAIN_BUDGET = 0.30, 0.45, 1.0
ROOFLINE_PERCENT = 50.0
AGREE_STEPS = 3
VARIANTS = ("eager", "eager, channels last", "compile", "compile, channels last")


def batch() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    images = generator.standard_normal((64, 28, 28, 1), dtype=np.float32)
    return images, generator.integers(0, 10, 64)


def our_step(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Return a function that does one step as the trainer does, and returns the loss."""
    workspace = nn.Workspace(training=True, fuse=True)
    optimizer = optim.ZSpaceOptimizer(LR, momentum=MOMENTUM, groups=GROUPS)
    optimizer.prepare_module(model)
    grad = np.empty((len(labels), 10), np.float32)

    def step() -> float:
        optimizer.zero_grad()
        logits = model.forward(images, workspace)
        loss, _ = nn.softmax_cross_entropy(logits, labels, grad)
        model.backward_in(images, grad, workspace, input_grad=False)
        optim.gradient_norm(model.parameters())
        optimizer.step()
        return loss

    return step


def torch_step(ours: nn.Sequential, variant: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], torch.Tensor]:
    """Return a function that does one step of the twin, which starts from the weights that ours has now."""
    twin = convolutional(z_space=isinstance(ours.layers[1], nn.ZSpaceBatchNorm2d))
    copy_weights(ours, twin)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    y = torch.from_numpy(labels)
    if "channels last" in variant:
        twin, x = twin.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    model = torch.compile(twin) if variant.startswith("compile") else twin
    optimizer = torch.optim.SGD(twin.parameters(), lr=LR, momentum=MOMENTUM, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def measure(
    ledger: _pairs.Ledger, steps: int, others: Sequence[_pairs.Side] = (), *, z_space: bool
) -> tuple[dict[str, list[float]], nn.Sequential]:
    """Return milliseconds per step of ours and of every variant of PyTorch that runs, and our model."""
    images, labels = batch()
    model = our_convolutional(z_space=z_space)
    sides: list[_pairs.Side] = []
    losses: dict[str, list[float]] = {}
    for variant in VARIANTS:
        step = torch_step(model, variant, images, labels)
        try:
            losses[variant] = [step().item() for _ in range(AGREE_STEPS)]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed and the others count
            print(f"{variant} failed, {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        sides.append(_pairs.Side(variant, step))
    own = our_step(model, images, labels)
    found = np.array([own() for _ in range(AGREE_STEPS)])
    for variant, wanted in losses.items():
        _pairs.require_agreement(f"losses, {variant}", found, np.array(wanted))
    return ledger.in_turns([_pairs.Side("ours", own), *sides, *others], steps), model


def compare(
    subject: str, taken: dict[str, list[float]], ledger: _pairs.Ledger, eager: float | None, best: float
) -> None:
    variants = [name for name in VARIANTS if name in taken]
    for name in variants:
        ledger.compare(f"{subject} / torch {name}", taken["ours"], taken[name], eager if name == "eager" else None)
    winner = _pairs.fastest(taken, variants)
    ledger.compare(f"{subject} / best torch ({winner})", taken["ours"], taken[winner], best)


def roofline(
    ledger: _pairs.Ledger, taken: dict[str, list[float]], calibration: _roofline.Calibration, parameters: int
) -> None:
    """Judge the step by the bound of each pair, and print the same of the fastest blocks of all."""
    ours = taken["ours"]
    bounds = [_roofline.bound(rates, parameters) for rates in calibration.rates(taken)]
    shares = [100 * least / spent for least, spent in zip(bounds, ours, strict=True)]
    low, share, high = statistics.quantiles(shares, n=4)
    print(
        f"z_cnn: roofline {statistics.median(bounds):.2f} ms, measured {statistics.median(ours):.2f} ms; "
        f"share per pair {low:.0f}..{high:.0f} %"
    )
    ledger.require("share of the roofline, median of the pairs", share, ROOFLINE_PERCENT)
    best = _roofline.Rates.of(*(min(taken[side.name]) for side in calibration.sides))
    _roofline.table(best, parameters)
    least = _roofline.bound(best, parameters)
    print(
        f"from the fastest blocks: roofline {least:.2f} ms, {100 * least / min(ours):.0f} % reached by our fastest "
        f"({min(ours):.2f} ms), {100 * least / statistics.median(ours):.0f} % by the median"
    )


def main() -> int:
    asked = _pairs.options(__doc__, steps=4)
    ledger = _pairs.Ledger(asked.pairs, asked.threads)
    ledger.open("a training step of z_cnn, batch 64, 28 x 28 x 1")
    calibration = _roofline.Calibration(asked.threads)
    taken, model = measure(ledger, asked.steps, calibration.sides, z_space=True)
    plain, _ = measure(ledger, asked.steps, z_space=False)
    ledger.heading()
    compare("z_cnn", taken, ledger, EAGER_BUDGET, BEST_BUDGET)
    compare("plain batch norm", plain, ledger, None, PLAIN_BUDGET)
    roofline(ledger, taken, calibration, sum(parameter.value.size for parameter in model.parameters()))
    return ledger.close()


if __name__ == "__main__":
    sys.exit(main())
