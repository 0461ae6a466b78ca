"""Forward and backward of the Z-space norms on 256 x 512, against PyTorch and the wheel `spiraltorch`.

    python tests/benchmarks/norms.py [--pairs 40] [--steps 30] [--threads 2]

Each must take at most a quarter of the time of the same formulas in eager PyTorch, and at most a thirtieth of that of
`spiraltorch`, which is the one other package with these layers. `torch.compile` of the same twin is printed for
comparison. All three sides start from an array in memory and end with the gradient of the input and those of gamma
and beta; that they agree is checked first. PyTorch's gradients are dropped before each step, as its optimizers do.

`spiraltorch` hands norms of this size to any GPU adapter that it finds, a software one included, which is far slower
than its loops for the processor. So the adapters are hidden: this script starts itself again with stand-ins for their
libraries first in the search path. The number of its threads is set in the same way.

Exits with 1 when a ratio is missed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import _pairs
import numpy as np
import torch
from _twins import LayerNorm, ZSpaceNorm

from spiral_core import nn

ROWS, FEATURES = 256, 512
EAGER_BUDGET = 0.25
WHEEL_BUDGET = 1 / 30
ADAPTERS = ("libEGL.so.1", "libEGL.so", "libvulkan.so.1", "libvulkan.so")
HIDDEN = "SPIRAL_BENCH_ADAPTERS_HIDDEN"


def hide_adapters(threads: int) -> None:
    """Start this script again, with no GPU to be found; return where that has been done."""
    if os.environ.get(HIDDEN) == str(threads):
        return
    folder = Path(tempfile.gettempdir()) / f"spiral-no-adapters-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in ADAPTERS:
        (folder / name).write_text("no library\n", encoding="ascii")
    path = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    own = {HIDDEN: str(threads), "LD_LIBRARY_PATH": path, "RAYON_NUM_THREADS": str(threads)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **own})


def our_layer(kind: str) -> nn.Module:
    return nn.ZSpaceBatchNorm1d(kind, FEATURES) if kind == "ZSpaceBatchNorm1d" else nn.ZSpaceLayerNorm(kind, FEATURES)


def twin_of(ours: nn.Module) -> torch.nn.Module:
    if isinstance(ours, nn.ZSpaceLayerNorm):
        return ZSpaceNorm(LayerNorm(FEATURES, ours.effective_epsilon), (FEATURES,))
    return ZSpaceNorm(torch.nn.BatchNorm1d(FEATURES, affine=False), (FEATURES,))


class Sides:
    """The same layer on every side, and the last results of each."""

    def __init__(self, kind: str, x: np.ndarray, grad: np.ndarray) -> None:
        self.x, self.grad = x, grad
        self.results: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.kind = kind
        self.ours = our_layer(kind)

    def our_step(self) -> Callable[[], object]:
        layer, workspace = self.ours, nn.Workspace(training=True)

        def step() -> None:
            layer.zero_grad()
            y = layer.forward(self.x, workspace)
            self.results["ours"] = y, layer.backward(self.x, self.grad, workspace)

        return step

    def torch_step(self, name: str, *, compiled: bool) -> Callable[[], object]:
        twin = twin_of(self.ours)
        call = torch.compile(twin) if compiled else twin
        x = torch.from_numpy(self.x.copy()).requires_grad_()
        grad = torch.from_numpy(self.grad)
        parameters = [x, *twin.parameters()]

        def step() -> None:
            for parameter in parameters:
                parameter.grad = None
            y = call(x)
            y.backward(grad)
            self.results[name] = y.detach().numpy(), x.grad.numpy()  # type: ignore[union-attr]

        return step

    def wheel_step(self) -> Callable[[], object]:
        import spiraltorch

        layer = getattr(spiraltorch.nn, self.kind)("peer", FEATURES, -1.0, *self._numbers())
        x, grad = spiraltorch.Tensor.from_dlpack(self.x), spiraltorch.Tensor.from_dlpack(self.grad)

        def step() -> None:
            layer.zero_accumulators()
            y = layer.forward(x)
            self.results["wheel"] = y, layer.backward(x, grad)

        return step

    def _numbers(self) -> tuple[float, ...]:
        return (0.1, 1e-5) if self.kind == "ZSpaceBatchNorm1d" else (1e-5,)


def measure(kind: str, ledger: _pairs.Ledger, steps: int) -> None:
    generator = np.random.default_rng(0)
    x, grad = (generator.standard_normal((ROWS, FEATURES), dtype=np.float32) for _ in range(2))
    sides = Sides(kind, x, grad)
    chosen = [
        _pairs.Side("ours", sides.our_step()),
        _pairs.Side("eager", sides.torch_step("eager", compiled=False)),
        _pairs.Side("wheel", sides.wheel_step()),
    ]
    compiled = _pairs.Side("compile", sides.torch_step("compile", compiled=True))
    for side in chosen:
        side.run()
    try:
        compiled.run()
        chosen.append(compiled)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is printed and the others count
        print(f"{kind}: torch.compile failed, {type(error).__name__}: {str(error).splitlines()[0]}")
    for side in chosen[1:]:
        for ours, peer in zip(sides.results["ours"], sides.results[side.name], strict=True):
            values = np.from_dlpack(peer) if side.name == "wheel" else peer  # type: ignore[arg-type]
            _pairs.require_agreement(f"{kind}, {side.name}", ours, values)
    fast = ledger.in_turns([side for side in chosen if side.name != "wheel"], steps)
    # The wheel's step is a hundred times as long as ours, so few of them make a block.
    slow = ledger.in_turns([side for side in chosen if side.name in ("ours", "wheel")], 3)
    ledger.compare(f"{kind} / torch eager", fast["ours"], fast["eager"], EAGER_BUDGET)
    if "compile" in fast:
        ledger.compare(f"{kind} / torch.compile", fast["ours"], fast["compile"])
    ledger.compare(f"{kind} / spiraltorch", slow["ours"], slow["wheel"], WHEEL_BUDGET)


def main() -> int:
    asked = _pairs.options(__doc__, steps=30)
    hide_adapters(asked.threads)
    try:
        import spiraltorch
    except ImportError:
        sys.exit("this benchmark compares with spiraltorch: run `make bench`, or pip install 'spiral[dev,bench]'")
    ledger = _pairs.Ledger(asked.pairs, asked.threads)
    ledger.open(f"Z-space norms of ({ROWS}, {FEATURES}), forward and backward; spiraltorch {spiraltorch.__version__}")
    ledger.heading()
    for kind in ("ZSpaceBatchNorm1d", "ZSpaceLayerNorm"):
        measure(kind, ledger, asked.steps)
    return ledger.close()


if __name__ == "__main__":
    sys.exit(main())
