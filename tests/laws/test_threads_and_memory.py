"""A step does not depend on the number of threads, and in the long run it allocates nothing large."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from spiral_core import kernels, nn, optim
from spiral_core.optim import Optimizer

SMALL = 16 * 1024
"""Bytes that a step of the built-in models may allocate for a moment: Python's own numbers and views."""

IMAGES = 40
"""Not a multiple of a chunk of 16 images, so that the last chunk is a short one."""


class Training:
    """A model, its optimizer and one batch."""

    def __init__(self, name: str, images: int = IMAGES) -> None:
        draws = np.random.default_rng(0)
        self.model = nn.models.build(name, classes=8, generator=draws)
        parameters = self.model.parameters()
        self.optimizer: Optimizer = (
            optim.Adam(parameters, 3e-3) if name == "z_cam" else optim.SGD(parameters, 0.05, weight_decay=1e-4)
        )
        self.x = draws.standard_normal((images, 28, 28, 1)).astype(np.float32)
        self.labels = draws.integers(0, 8, images)
        self.grad = np.empty((images, 8), np.float32)
        self.workspace = nn.Workspace()

    def step(self) -> list[bytes]:
        """Return everything that a step computes, to the last bit."""
        self.optimizer.zero_grad()
        logits = self.model.forward(self.x, self.workspace)
        loss, _ = nn.softmax_cross_entropy(logits, self.labels, self.grad)
        grad_x = self.model.backward_in(self.x, self.grad, self.workspace, input_grad=True)
        self.optimizer.step()
        assert grad_x is not None
        state = {**self.model.state_dict(), **self.optimizer.state_dict()}
        arrays = [logits, grad_x, *(p.grad for p in self.model.parameters()), *state.values()]
        return [np.float64(loss).tobytes(), *(array.tobytes() for array in arrays)]


@pytest.mark.parametrize("name", nn.models.MODELS)
def test_three_steps_are_bit_identical_on_one_two_and_three_threads(threads: None, name: str) -> None:
    results = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        training = Training(name)
        results.append([training.step() for _ in range(3)])
    assert results[0][0] != results[0][2], "nothing was learnt"
    assert results[0] == results[1] == results[2]


NORMS = [nn.BatchNorm1d, nn.LayerNorm, nn.ZSpaceBatchNorm1d, nn.ZSpaceLayerNorm]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", NORMS)
def test_the_norms_run_the_kernels_that_they_name_as_these_were_warmed(
    kind: type[nn.Module], dtype: type[np.floating]
) -> None:
    layer = kind("it", 4, dtype=dtype)
    kernels.warm(layer.kernels(), dtype)
    compiled = {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()}
    x = np.ones((3, 4), dtype)
    for training in (True, False):
        workspace = nn.Workspace(training)
        layer.forward(x, workspace)
        layer.backward(x, x, workspace)
    assert {name: len(entry.dispatcher.signatures) for name, entry in kernels.registered().items()} == compiled


@pytest.mark.parametrize("kind", NORMS)
def test_steady_passes_of_a_norm_allocate_nothing_large(kind: type[nn.Module]) -> None:
    layer, workspace = kind("it", 64), nn.Workspace()
    # 2 MiB; one number per row is 64 KiB in float64.
    x = np.random.default_rng(0).standard_normal((8192, 64)).astype(np.float32)

    def passes() -> None:
        layer.forward(x, workspace)
        layer.backward_in(x, x, workspace, input_grad=True)

    passes()
    tracemalloc.start()
    try:
        passes()
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        passes()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - held < SMALL


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", NORMS)
def test_the_norms_are_bit_identical_on_one_two_and_three_threads(
    threads: None, kind: type[nn.Module], dtype: type[np.floating]
) -> None:
    draws = np.random.default_rng(0)
    # Several chunks of either kind, the last one short.
    x, grad = draws.standard_normal((2, 1100, 70)).astype(dtype)
    results = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        layer = kind("it", 70, dtype=dtype)
        arrays = [layer.forward(x), layer.backward(x, grad), *(p.grad for p in layer.parameters())]
        arrays += layer.state_dict().values()
        if isinstance(layer, nn.ZSpaceNorm):
            seen = layer.observe()
            arrays += [seen.feature_radius, np.array([seen.blended_mean, seen.jacobian_mean, seen.radius_p95])]
            arrays += [np.array(layer.adapt_projector_gain(0.7))]
        results.append([array.tobytes() for array in arrays])
    assert results[0] == results[1] == results[2]


def test_the_number_of_threads_may_change_between_steps(threads: None) -> None:
    results = []
    for counts in ((1, 1, 1), (3, 1, 2)):
        training = Training("z_cam", images=20)
        steps = []
        for count in counts:
            kernels.set_num_threads(count)
            steps.append(training.step())
        results.append(steps)
    assert results[0] == results[1]


@pytest.mark.parametrize("name", nn.models.MODELS)
def test_a_steady_step_allocates_nothing_large(name: str) -> None:
    # Rows of 128 numbers are the activations of `z_mlp`: many, so that one array of them is large as well.
    training = Training(name, 640 if name == "z_mlp" else IMAGES)

    def lean_step() -> None:
        training.optimizer.zero_grad()
        logits = training.model.forward(training.x, training.workspace)
        nn.softmax_cross_entropy(logits, training.labels, training.grad)
        training.model.backward_in(training.x, training.grad, training.workspace, input_grad=False)
        training.optimizer.step()

    tracemalloc.start()
    try:
        lean_step()
        first, _ = tracemalloc.get_traced_memory()
        assert first > training.workspace.nbytes() > 2**20, "the workspace is not seen"
        lean_step()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        lean_step()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - held < SMALL
    assert after - held < SMALL // 2


def test_a_smaller_batch_reuses_the_memory_of_a_larger_one() -> None:
    training = Training("z_cnn")
    training.model.forward(training.x, training.workspace)
    held = training.workspace.nbytes()
    part = training.model.forward(training.x[:7], training.workspace)
    assert part.shape == (7, 8)
    assert training.workspace.nbytes() == held
    workspace = nn.Workspace(training=False)
    whole = training.model.forward(training.x, workspace)[:7].copy()
    np.testing.assert_allclose(training.model.forward(training.x[:7], workspace), whole, rtol=1e-5, atol=1e-5)
