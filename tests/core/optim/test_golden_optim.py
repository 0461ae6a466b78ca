"""Arrays of other programs, reproduced; `tests/golden/README_golden.md` describes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from oracles.golden import Golden
from spiral_core import nn, optim
from spiral_core.arrays import Float
from spiral_core.optim import hypergrad

CASES: dict[str, optim.OptimizerMode | None] = {
    "euclid_lr0.1": None,
    "real_lr0.05": optim.OptimizerMode.realgrad(0.05),
    "hyper_k-1_lr0.05": optim.OptimizerMode.hypergrad(-1.0, 0.05),
    "hyper_k-0.5_lr0.05": optim.OptimizerMode.hypergrad(-0.5, 0.05),
    "hyper_k-2.5_lr0.05": optim.OptimizerMode.hypergrad(-2.5, 0.05),
}


def ready(golden: Golden, mode: optim.OptimizerMode | None, lr: float) -> tuple[nn.Linear, optim.ZSpaceOptimizer]:
    layer = nn.Linear("l", 4, 3)
    layer.weight.value[...] = golden["linear.w"]
    layer.bias.value[...] = golden["linear.b"][0]
    optimizer = optim.ZSpaceOptimizer(lr, groups=())
    if mode is not None:
        optimizer.set_mode(mode)
    optimizer.prepare_module(layer)
    return layer, optimizer


def backward(golden: Golden, layer: nn.Linear) -> None:
    layer.forward(golden["linear.x"])
    layer.backward(golden["linear.x"], golden["linear.go"])


def check_steps(golden: Golden) -> None:
    for case, mode in CASES.items():
        layer, optimizer = ready(golden, mode, 0.1)
        weights, biases = [], []
        for _ in range(3):
            optimizer.zero_grad(layer)
            backward(golden, layer)
            optimizer.step(layer)
            weights.append(layer.weight.value.copy())
            biases.append(layer.bias.value.copy())
        golden.same(f"opt.{case}.w_after_1_2_3", np.stack(weights))
        golden.same(f"opt.{case}.b_after_1_2_3", np.stack(biases))
    for case, mode in (("euclid", None), ("hyper_k-1", CASES["hyper_k-1_lr0.05"])):
        layer, optimizer = ready(golden, mode, 0.05)
        for _ in range(2):
            backward(golden, layer)
            optimizer.accumulate(layer)
        optimizer.step(layer)
        golden.same(f"opt.accumulate_two_backward_then_step_lr0.05.{case}.w", layer.weight.value)


def check_drift(golden: Golden) -> None:
    for curvature in ("-4", "-1", "-0.25"):
        layer, optimizer = ready(golden, optim.OptimizerMode.hypergrad(float(curvature), 0.05), 0.1)
        layer.weight.value[...] = 0.1
        seen = []
        for _ in range(8):
            optimizer.step()
            seen.append(float(layer.weight.value[0, 0]))
        golden.same(f"opt.zero_gradient_hyper_drift.k{curvature}.w00_after_1_to_8", seen)
    golden.same("opt.zero_gradient_hyper_gamma256_after_1", pulled(np.ones((1, 256), np.float32), -1.0))


def pulled(value: Float, curvature: float) -> Float:
    """Step without a gradient: the rows are pulled in all the same."""
    value = value.copy()
    hypergrad.step(value, np.zeros_like(value), curvature, 0.1)
    return value


def compressed(grad: Float, curvature: float) -> Float:
    tape = hypergrad.HypergradTape(np.zeros_like(grad), curvature)
    tape.accumulate(grad)
    return tape.total


def check_tape(golden: Golden) -> None:
    for curvature in ("-1", "-0.3", "-3"):
        name = f"tape.hyper.k{curvature}"
        tape = hypergrad.HypergradTape(np.zeros((2, 3), np.float32), float(curvature))
        for wave, gradient in (("wave1", "g1"), ("wave2", "g2")):
            tape.accumulate(golden[f"tape.{gradient}"])
            golden.same(f"{name}.grad_after_{wave}", tape.total)
        tape.accumulate_pair(golden["tape.pred"], golden["tape.target"])
        golden.same(f"{name}.grad_after_pair", tape.total)
        value = golden["tape.w"].copy()
        tape.apply(value, 0.07)
        golden.same(f"{name}.w_after_apply", value)
        golden.same(f"{name}.grad_after_apply", tape.total)
        golden.same(f"tape.project_to_poincare.k{curvature}", pulled(golden["tape.w"], float(curvature)))
    parameter = nn.Linear("l", 2, 3)
    parameter.weight.value[...] = golden["tape.w"]
    optimizer = optim.ZSpaceOptimizer(1.0)
    optimizer.set_mode(optim.OptimizerMode.realgrad(0.07))
    optimizer.prepare_module(parameter)
    for part in (golden["tape.g1"], golden["tape.g2"], golden["tape.pred"] - golden["tape.target"]):
        parameter.weight.grad[...] = part
        optimizer.accumulate()
    golden.same("tape.real.grad", optimizer.slots()["tape.l.weight"])
    optimizer.step()
    golden.same("tape.real.w_after_apply", parameter.weight.value)
    tape = hypergrad.HypergradTape(np.zeros(1, np.float32), -1.0)
    trace = []
    for _ in range(4):
        tape.accumulate_pair(np.float32([1e6]), np.float32([-1e6]))
        trace.append(float(tape.total[0]))
    golden.same("tape.hyper.saturation_trace_pair_2e6", trace, tolerance=0, relative=1e-5)
    golden.same("tape.hyper.compression_out", compressed(golden["tape.hyper.compression_in"], -1.0))


def check_schedules(golden: Golden) -> None:
    for name in [key.split(".")[1] for key in golden.arrays if key.startswith("schedule.") and key.endswith(".args")]:
        base, minimum, warmup, total = golden[f"schedule.{name}.args"]
        schedule = optim.WarmupCosineScheduler(float(base), float(minimum), int(warmup), int(total))
        key = f"schedule.{name}.lr_call_1_to_n"
        golden.same(key, [schedule.step() for _ in golden[key]], tolerance=1e-17, relative=1e-14)


def test_every_array_of_the_optimizers_is_reproduced(record_property: Callable[[str, object], None]) -> None:
    golden = Golden(__file__)
    for check in (check_steps, check_drift, check_tape, check_schedules):
        check(golden)
    golden.settle(record_property)


def test_reading_with_a_wrong_value_is_seen() -> None:
    golden = Golden(__file__)
    with pytest.raises(AssertionError):
        golden.same("tape.hyper.compression_out", compressed(golden["tape.hyper.compression_in"], -1.1))
