"""Columns of images become time steps, and features over time become images of height one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core import nn
from spiral_core.errors import ShapeError

SIZES = st.integers(1, 4)


@given(SIZES, SIZES, SIZES, SIZES)
def test_a_time_step_is_a_column_with_its_pixels_from_top_to_bottom(n: int, h: int, w: int, c: int) -> None:
    x = np.arange(n * h * w * c, dtype=np.float32).reshape(n, h, w, c)
    y = nn.ImageToSequence("columns").forward(x)
    assert y.shape == (w, n, h * c)
    for image, row, column, channel in np.ndindex(x.shape):
        assert y[column, image, row * c + channel] == x[image, row, column, channel]


@given(SIZES, SIZES, SIZES)
def test_a_sequence_comes_back_as_an_image_of_height_one(steps: int, n: int, features: int) -> None:
    x = np.arange(steps * n * features, dtype=np.float64).reshape(steps, n, features)
    there, back = nn.SequenceToImage("steps", np.float64), nn.ImageToSequence("columns", np.float64)
    image = there.forward(x)
    assert image.shape == (n, 1, steps, features)
    for step, one, feature in np.ndindex(x.shape):
        assert image[one, 0, step, feature] == x[step, one, feature]
    np.testing.assert_array_equal(back.forward(image), x)
    np.testing.assert_array_equal(there.backward(x, image), x)
    np.testing.assert_array_equal(back.backward(image, x), image)


@pytest.mark.parametrize("kind", [nn.ImageToSequence, nn.SequenceToImage])
def test_steady_passes_write_into_the_same_memory(kind: Callable[[str], nn.Module]) -> None:
    layer, workspace = kind("it"), nn.Workspace()
    x = np.ones((2, 3, 4, 5) if kind is nn.ImageToSequence else (2, 3, 4), np.float32)
    seen = set()
    for _ in range(3):
        y = layer.forward(x, workspace)
        seen.add((y.ctypes.data, layer.backward(x, y.copy(), workspace).ctypes.data))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ImageToSequence("it"), (2, 3, 4)),
        (nn.ImageToSequence("it"), (2, 0, 3, 1)),
        (nn.SequenceToImage("it"), (2, 3)),
        (nn.SequenceToImage("it"), (2, 3, 4, 5)),
        (nn.SequenceToImage("it"), (2, 3, 0)),
    ],
)
def test_an_input_of_another_form_is_refused_with_the_one_expected(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"it: input must have shape \((N, H, W, C|T, N, F)\)"):
        layer.forward(np.zeros(shape, np.float32))
