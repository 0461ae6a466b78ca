"""The least time that a training step of `z_cnn` can take on this machine, by the roofline model.

Each operation takes at least its arithmetic at the machine's best rate, and at least the time to move what it must
read and write; the larger of the two is its bound, and the bound of the step is the sum over its operations.

- The best rate is that of a float32 matrix product of 1024 x 1024, the best bandwidth that of a copy between arrays
  as large as the activations (they stay in cache), each on the threads of the step and the best of many.
- Arithmetic counts an addition, a multiplication, a division, a comparison as one each, so a vector of fused
  multiply-adds as two per element. tanh is the rational form of `spiral_core.kernels.real`: 22.
- Bytes count each array that must go in or out once: no caches, no scratch, no im2col. Operations are those that must
  be apart. A norm needs the whole batch before it can be applied, but its statistics can be taken of each image that a
  convolution has just written; its backward pass needs sums over the batch first, but the gradient of its input can
  go into the two products of the convolution image by image. ReLU and pooling go with the norm, bias with the product.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

BATCH, SIDE, CLASSES = 64, 28, 10
CHANNELS = (1, 16, 32)
WORD = 4
TANH = 22
COPY_MB = (3, 6)
"""Sizes of the activations of the two convolutions and what is read beside them."""


@dataclass(frozen=True)
class Operation:
    """What an operation computes and must move."""

    name: str
    flops: float
    nbytes: float

    def seconds(self, peak: float, bandwidth: float) -> float:
        return max(self.flops / peak, self.nbytes / bandwidth)


def block(index: int, image: int, full: int, products: float, *, input_grad: bool) -> tuple[list[Operation], ...]:
    """Return forward and backward operations of a convolution, Z-space norm, ReLU and 2 x 2 maximum.

    ``image`` and ``full`` count the elements before and behind the convolution. What is kept for the backward pass is
    the winner of each window and its place, one byte.
    """
    pooled = full // 4
    forward = [
        # mean and squared deviations 4
        Operation(f"convolution {index}, statistics", products + 4 * full, WORD * (image + full)),
        # whitening 2, s n 1, blend 3, gamma and beta 2, ReLU 1, maximum 3 / 4
        Operation(f"norm, ReLU, pool {index}", (9.75 + TANH) * full, WORD * (full + 2 * pooled) + pooled),
    ]
    ways = 2 if input_grad else 1
    backward = [
        # ReLU 1, n 2, p 3, J 4, four sums 7, of winners only
        Operation(f"sums backward {index}", (17 + TANH) * pooled, WORD * 2 * pooled),
        Operation(
            f"norm and convolution {index} backward",
            5 * full + (6 + TANH) * pooled + ways * products,
            WORD * (full + pooled + ways * image) + pooled,
        ),
    ]
    return forward, backward


def z_cnn_step(parameters: int) -> list[Operation]:
    """List the operations of a step, in order."""
    first, second = (
        BATCH * (SIDE // scale) ** 2 * channels for scale, channels in zip((1, 2), CHANNELS[1:], strict=True)
    )
    image, between, flat = BATCH * SIDE * SIDE, first // 4, second // 4
    product1, product2 = 2 * 9 * CHANNELS[0] * first, 2 * 9 * CHANNELS[1] * second
    head = 2 * flat * CLASSES
    weights = WORD * flat // BATCH * CLASSES
    block1, block1_back = block(1, image, first, product1, input_grad=False)
    block2, block2_back = block(2, between, second, product2, input_grad=True)
    return [
        Operation("zero gradients", 0, WORD * parameters),
        *block1,
        *block2,
        Operation("linear", head, WORD * flat + weights),
        Operation("loss", 0, WORD * 2 * BATCH * CLASSES),
        Operation("linear, weight gradient", head, WORD * flat + weights),
        Operation("linear, input gradient", head, WORD * flat + weights),
        *block2_back,
        *block1_back,
        Operation("gradient norm", 2 * parameters, WORD * parameters),
        Operation("momentum", 4 * parameters, WORD * 5 * parameters),
    ]


def matrix_peak(repeats: int = 60) -> float:
    """Return the rate of a float32 matrix product of 1024 x 1024 on PyTorch's threads, in FLOP/s."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    out = torch.empty(1024, 1024)
    return 2 * 1024**3 / best(lambda: torch.mm(a, b, out=out), repeats)


def copy_bandwidth(megabytes: float, threads: int, repeats: int = 15) -> float:
    """Return bytes read and written per second while each thread copies its share of an array of this size."""
    size = int(megabytes * 1e6 / WORD / threads)
    laps = max(1, int(200 / megabytes))  # long enough that starting together does not matter
    arrays = [(np.ones(size, np.float32), np.ones(size, np.float32)) for _ in range(threads)]
    finest = float("inf")
    for _ in range(repeats):
        gate = threading.Barrier(threads + 1)

        def copy(source: np.ndarray, target: np.ndarray, gate: threading.Barrier = gate) -> None:
            gate.wait()
            for _ in range(laps):
                np.copyto(target, source)
            gate.wait()

        workers = [threading.Thread(target=copy, args=pair) for pair in arrays]
        for worker in workers:
            worker.start()
        gate.wait()
        begun = time.perf_counter()
        gate.wait()
        finest = min(finest, time.perf_counter() - begun)
        for worker in workers:
            worker.join()
    return 2 * WORD * size * threads * laps / finest


def best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def bound(parameters: int, threads: int) -> float:
    """Measure peak and bandwidth, print the table of operations, and return the bound of the step in ms."""
    peak = matrix_peak()
    copies = {megabytes: copy_bandwidth(megabytes, threads) for megabytes in (*COPY_MB, 256)}
    bandwidth = max(copies[megabytes] for megabytes in COPY_MB)
    speeds = ", ".join(f"{value / 1e9:.1f} GB/s at {megabytes} MB" for megabytes, value in copies.items())
    print(f"matrix product {peak / 1e9:.0f} GFLOP/s; copy {speeds}")
    print(f"{'operation':34}{'MFLOP':>9}{'MB':>8}{'compute':>11}{'memory':>11}{'bound':>11}")
    total = 0.0
    for operation in z_cnn_step(parameters):
        seconds = operation.seconds(peak, bandwidth)
        total += seconds
        print(
            f"{operation.name:34}{operation.flops / 1e6:9.2f}{operation.nbytes / 1e6:8.2f}"
            f"{operation.flops / peak * 1e6:8.0f} us{operation.nbytes / bandwidth * 1e6:8.0f} us{seconds * 1e6:8.0f} us"
        )
    return total * 1e3
