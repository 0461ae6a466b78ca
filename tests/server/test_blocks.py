"""Frames to blocks and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.errors import DecodeError
from spiral_server.store import pyramid
from spiral_server.store.blocks import BLOCK_STEPS, build, checksum, unpack

from .saying import frame

ROWS = st.lists(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=4), min_size=1, max_size=80
)


@given(ROWS)
def test_a_block_gives_back_every_number_of_its_frames(rows: list[list[float]]) -> None:
    frames = [frame(seq, 2 * seq, values) for seq, values in enumerate(rows)]
    columns = unpack(build(frames).data)
    for index in range(4):
        expected = [(2.0 * seq, values[index]) for seq, values in enumerate(rows) if index < len(values)]
        steps, values = columns.get(index, (np.zeros(0), np.zeros(0)))
        np.testing.assert_array_equal(steps, [step for step, _ in expected])
        np.testing.assert_array_equal(values, [value for _, value in expected])


@given(ROWS)
def test_the_node_of_a_block_holds_its_extremes_and_counts_its_points(rows: list[list[float]]) -> None:
    block = build([frame(seq, seq, values) for seq, values in enumerate(rows)])
    full, node = unpack(block.data), pyramid.unpack(pyramid.pack(pyramid.summed_up(block.columns)))
    for index, (_, values) in full.items():
        finite = values[np.isfinite(values)]
        kept = node.points[index][1][np.isfinite(node.points[index][1])]
        assert len(kept) <= pyramid.NODE_POINTS
        if len(finite):
            assert (kept.min(), kept.max()) == (finite.min(), finite.max())
        assert node.tallies[index][:2] == (len(values), len(values) - len(finite))


def test_a_full_block_of_many_series_keeps_the_extremes_of_each_bucket() -> None:
    values = np.random.default_rng(2).normal(size=(BLOCK_STEPS, 5))
    values[100, 3] = np.nan
    node = pyramid.summed_up(build([frame(seq, 3 * seq, row.tolist()) for seq, row in enumerate(values)]).columns)
    for index in range(5):
        steps, kept = node.points[index]
        np.testing.assert_array_equal(kept, values[(steps / 3).astype(int), index])
        assert node.tallies[index][:2] == (BLOCK_STEPS, int(index == 3))
        assert node.tallies[index].total == pytest.approx(np.nansum(values[:, index]))
        width = BLOCK_STEPS // pyramid.BUCKETS
        for start in range(0, BLOCK_STEPS, width) if index != 3 else ():
            part = values[start : start + width, index]
            own = kept[(steps >= 3 * start) & (steps < 3 * (start + width))]
            assert (own.min(), own.max()) == (part.min(), part.max())
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(values[:, index]), np.nanmax(values[:, index]))


def test_only_the_wanted_series_are_unpacked() -> None:
    block = build([frame(seq, seq, [1.0, 2.0, 3.0]) for seq in range(10)])
    assert list(unpack(block.data, {1})) == [1]


@given(st.binary(max_size=200))
def test_any_bytes_are_columns_or_a_decode_error(data: bytes) -> None:
    try:
        unpack(data)
    except DecodeError:
        return


def test_truncated_blocks_are_refused() -> None:
    data = build([frame(seq, seq) for seq in range(10)]).data
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            unpack(data[:length])


def test_the_checksum_covers_what_the_bytes_are_as_well_as_the_bytes() -> None:
    assert len({checksum(b"a", 1, 2), checksum(b"a", 2, 1), checksum(b"b", 1, 2), checksum(b"a", 1)}) == 4
