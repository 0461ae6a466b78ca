from __future__ import annotations

import copy

import numpy as np
import pytest

from spiral_core import nn
from spiral_core.arrays import Float
from spiral_core.errors import StateError


def test_a_buffer_comes_back_while_its_shape_repeats_and_grows_only_when_it_must() -> None:
    workspace = nn.Workspace()
    one = workspace.array("owner", "out", (4, 3), np.float32)
    assert workspace.array("owner", "out", (4, 3), np.float32) is one
    assert np.shares_memory(workspace.array("owner", "out", (2, 3), np.float32), one)
    assert workspace.nbytes() == 48
    assert not np.shares_memory(workspace.array("owner", "out", (5, 3), np.float32), one)
    assert workspace.nbytes() == 60


def test_roles_owners_and_dtypes_do_not_share_memory() -> None:
    workspace = nn.Workspace()
    arrays = [workspace.array(owner, role, (8,), np.float32) for owner in ("a", "b") for role in ("out", "grad")]
    for index, array in enumerate(arrays):
        array.fill(index)
    assert [array[0] for array in arrays] == [0, 1, 2, 3]
    assert workspace.array("a", "out", (8,), np.float64).dtype == np.float64


def test_a_zeroed_buffer_is_zeroed_when_it_is_new_and_whenever_its_shape_has_changed() -> None:
    workspace = nn.Workspace()
    one = workspace.array("a", "padded", (2, 4), np.float32, zero=True)
    assert not one.any()
    one.fill(7)
    assert (workspace.array("a", "padded", (2, 4), np.float32, zero=True) == 7).all()
    assert not workspace.array("a", "padded", (4, 2), np.float32, zero=True).any()


def test_what_was_not_kept_is_refused_by_the_owners_name() -> None:
    with pytest.raises(StateError, match="relu"):
        nn.Workspace().kept(nn.ReLU("relu"), int)


def test_every_buffer_starts_on_a_line_of_the_cache() -> None:
    workspace = nn.Workspace()
    for size in (1, 3, 16, 1000, 70_000):
        for dtype in (np.float32, np.float64, np.uint8):
            array = workspace.array(size, "out", (size,), dtype)
            assert array.ctypes.data % 64 == 0
            assert (array.size, array.flags.writeable, array.flags.c_contiguous) == (size, True, True)


def test_a_copy_makes_anew_what_was_cached() -> None:
    place = nn.Workspace()

    def make() -> tuple[Float, Float]:
        array = place.array("layer", "out", (4,), np.float32, zero=True)
        return array, array[:2]

    array, part = place.cached("layer", "outputs", 4, make)
    assert place.cached("layer", "outputs", 4, make)[0] is array
    array[:] = 3
    place = copy.deepcopy(place)
    other, part = place.cached("layer", "outputs", 4, make)
    assert other is not array
    part[:] = 5
    assert other.tolist() == [5, 5, 3, 3]
    assert array.tolist() == [3, 3, 3, 3]
