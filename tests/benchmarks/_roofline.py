"""The least time that a training step of `z_cnn` can take on this machine, by the roofline model.

Each operation takes at least its arithmetic at the machine's best rate, and at least the time to move what it must
read and write; the larger of the two is its bound, and the bound of the step is the sum over its operations.

- The best rate is that of a float32 matrix product of 1024 x 1024, the best bandwidth that of a copy between arrays
  as large as the activations (they stay in cache), each on the threads of the step, timed in turns with it as a peer
  would be: a pair is a block of each, and what the host took from one it mostly took from its neighbors as well.
- Arithmetic counts an addition, a multiplication, a division, a comparison as one each, so a vector of fused
  multiply-adds as two per element. tanh is the rational form of `spiral_core.kernels.real`: 22.
- Products are those of a direct convolution, also where `spiral_core.kernels.winograd` does with fewer.
- Bytes count each array that must go in or out once: no caches, no scratch, no im2col. Operations are those that must
  be apart. A norm needs the whole batch before it can be applied, but its statistics can be taken of each image that a
  convolution has just written; its backward pass needs sums over the batch first, but the gradient of its input can
  go into the two products of the convolution image by image. ReLU and pooling go with the norm, bias with the product.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import _pairs
import numpy as np
import torch

BATCH, SIDE, CLASSES = 64, 28, 10
CHANNELS = (1, 16, 32)
WORD = 4
TANH = 22
PRODUCT = 1024
COPY_NUMBERS = 750_000
"""3 MB, as the activations of the first convolution."""
COPIES = 60


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
        # whitening 2, s n 1, maximum 3 / 4; of winners only: blend 3, gamma and beta 2, ReLU 1
        Operation(f"norm, ReLU, pool {index}", (3.75 + TANH) * full + 6 * pooled, WORD * (full + 2 * pooled) + pooled),
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


@dataclass(frozen=True)
class Rates:
    """What the machine reaches: FLOP/s of the matrix product, and bytes read and written per second."""

    peak: float
    bandwidth: float

    @classmethod
    def of(cls, product_ms: float, copies_ms: float) -> Rates:
        """Give the rates from the times of the two sides of `Calibration`."""
        return cls(2 * PRODUCT**3 / product_ms * 1e3, 2 * WORD * COPY_NUMBERS * COPIES / copies_ms * 1e3)


class Calibration:
    """What is timed in turns with the step: the matrix product, and copies of which each thread has its share.

    A thread copies its own arrays over and over without waiting for the others: a copy that PyTorch shares out among
    threads each time reached three quarters of that.
    """

    def __init__(self, threads: int) -> None:
        self._matrices = [torch.rand(PRODUCT, PRODUCT) for _ in range(3)]
        self._shares = [[np.ones(COPY_NUMBERS // threads, np.float32) for _ in range(2)] for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)
        self.sides = [_pairs.Side("matrix product", self._multiply), _pairs.Side("copies", self._copy)]

    def rates(self, taken: dict[str, list[float]]) -> list[Rates]:
        """Give the rates in each block."""
        return [Rates.of(*times) for times in zip(*(taken[side.name] for side in self.sides), strict=True)]

    def _multiply(self) -> None:
        a, b, out = self._matrices
        torch.mm(a, b, out=out)

    def _copy(self) -> None:
        for _ in self._pool.map(_copied, self._shares):
            pass


def _copied(pair: list[np.ndarray]) -> None:
    for _ in range(COPIES):
        np.copyto(*pair)


def bound(rates: Rates, parameters: int) -> float:
    """Return the bound of the step in ms."""
    return 1e3 * sum(operation.seconds(rates.peak, rates.bandwidth) for operation in z_cnn_step(parameters))


def table(rates: Rates, parameters: int) -> None:
    """Print the operations and what bounds each."""
    print(f"matrix product {rates.peak / 1e9:.0f} GFLOP/s; copies of 3 MB {rates.bandwidth / 1e9:.1f} GB/s")
    print(f"{'operation':34}{'MFLOP':>9}{'MB':>8}{'compute':>11}{'memory':>11}{'bound':>11}")
    for operation in z_cnn_step(parameters):
        seconds = operation.seconds(rates.peak, rates.bandwidth)
        print(
            f"{operation.name:34}{operation.flops / 1e6:9.2f}{operation.nbytes / 1e6:8.2f}"
            f"{operation.flops / rates.peak * 1e6:8.0f} us{operation.nbytes / rates.bandwidth * 1e6:8.0f} us"
            f"{seconds * 1e6:8.0f} us"
        )
