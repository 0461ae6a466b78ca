"""Forward and backward of `nn.Lstm` over 64 time steps of 32 sequences, against `torch.nn.LSTM`.

    python tests/benchmarks/recurrent.py [--pairs 40] [--steps 4] [--threads 2]

128 input features, 128 hidden units, the state starts from zero. Both sides start from an array in memory and end with
the gradients of the input and of every parameter, and their results are compared first. Ours must take at most the time
of the faster of eager PyTorch, which walks through time in its own compiled loop, and `torch.compile`.

Exits with 1 when the ratio is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import _pairs
import numpy as np
import torch

from spiral_core import nn

TIME, SEQUENCES, INPUTS, HIDDEN = 64, 32, 128, 128
BUDGET = 1.0

Results = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def our_step(layer: nn.Lstm, x: np.ndarray, grad: np.ndarray, results: Results) -> Callable[[], None]:
    workspace = nn.Workspace(training=True)

    def step() -> None:
        layer.zero_grad()
        y = layer.forward(x, workspace)
        results["ours"] = y, layer.backward(x, grad, workspace), layer.weight_hh.grad

    return step


def torch_step(
    name: str, ours: nn.Lstm, values: np.ndarray, upstream: np.ndarray, results: Results
) -> Callable[[], None]:
    twin = torch.nn.LSTM(INPUTS, HIDDEN)
    with torch.no_grad():
        for target, parameter in zip(twin.parameters(), ours.parameters(), strict=True):
            target.copy_(torch.from_numpy(np.ascontiguousarray(parameter.value.T)))
    call = torch.compile(twin) if name == "compile" else twin
    x, grad = torch.from_numpy(values.copy()).requires_grad_(), torch.from_numpy(upstream)
    parameters = [x, *twin.parameters()]

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        y, _ = call(x)
        y.backward(grad)
        results[name] = y.detach().numpy(), x.grad.numpy(), twin.weight_hh_l0.grad.numpy().T  # type: ignore[union-attr]

    return step


def main() -> int:
    asked = _pairs.options(__doc__, steps=4)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((TIME, SEQUENCES, INPUTS), dtype=np.float32)
    grad = generator.standard_normal((TIME, SEQUENCES, HIDDEN), dtype=np.float32)
    layer = nn.Lstm("lstm", INPUTS, HIDDEN, stateful=False, generator=generator)
    results: Results = {}
    ledger = _pairs.Ledger(asked.pairs, asked.threads)
    ledger.open(f"LSTM, T={TIME} N={SEQUENCES} I={INPUTS} H={HIDDEN}, forward and backward")
    sides = [_pairs.Side("ours", our_step(layer, x, grad, results))]
    sides[0].run()
    for name in ("eager", "compile"):
        side = _pairs.Side(name, torch_step(name, layer, x, grad, results))
        try:
            side.run()
        except Exception as error:
            if name == "eager":
                raise
            print(f"torch.compile failed, {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        sides.append(side)
        for ours, peer in zip(results["ours"], results[name], strict=True):
            _pairs.require_agreement(f"Lstm, {name}", ours, peer)
    taken = ledger.in_turns(sides, asked.steps)
    ledger.heading()
    best = _pairs.fastest(taken, [side.name for side in sides[1:]])
    ledger.compare(f"Lstm / best torch ({best})", taken["ours"], taken[best], BUDGET)
    return ledger.close()


if __name__ == "__main__":
    sys.exit(main())
