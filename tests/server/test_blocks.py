"""Frames to blocks and back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.arrays import F64
from spiral_core.errors import DecodeError
from spiral_core.wire.messages import Frame
from spiral_core.wire.parts import Array
from spiral_server.live.decimation import decimate, in_order
from spiral_server.live.merging import columns_of
from spiral_server.store import pyramid
from spiral_server.store.blocks import BLOCK_STEPS, CHUNK_COLUMNS, Columns, build, checksum, pack, unpack

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


def some(seq: int, series: list[int], step: int | None = None) -> Frame:
    """Give a frame of some series only; each number is one of a kind."""
    return msgspec.structs.replace(
        frame(seq, seq if step is None else step),
        index=Array.of(np.array(series), "<u2"),
        values=Array.of(np.array([1000.0 * seq + one for one in series]), "<f8"),
    )


def assert_same(columns: Columns, expected: Columns) -> None:
    assert columns.keys() == expected.keys()
    for index, pair in expected.items():
        assert [part.tobytes() for part in columns[index]] == [part.tobytes() for part in pair]


def mixed() -> list[Frame]:
    """Give a block of 3 series in each frame, 40 more in every fifth, and 2 more in every eighth."""
    return [
        some(seq, [*range(3), *range(3, 43 if seq % 5 == 0 else 3), *range(50, 52 if seq % 8 == 0 else 50)])
        for seq in range(BLOCK_STEPS)
    ]


@given(st.lists(st.lists(st.integers(0, 5), max_size=7), min_size=1, max_size=40))
def test_any_mixture_of_series_among_frames_makes_the_columns_of_its_frames(rows: list[list[int]]) -> None:
    frames = [some(seq, series) for seq, series in enumerate(rows)]
    block = build(frames)
    assert_same(block.columns, columns_of(frames))
    assert_same(unpack(block.data), columns_of(frames))


@pytest.mark.parametrize("most", [3, 12], ids=["few kinds of frames", "many kinds of frames"])
def test_columns_of_equal_steps_stand_together(most: int) -> None:
    frames = [some(seq, list(range(2 * (seq % most + 1)))) for seq in range(60)]
    _, chunks = msgspec.msgpack.decode(build(frames).data)
    assert [chunk[0] for chunk in chunks] == [[2 * pair, 2 * pair + 1] for pair in range(most)]
    _, chunks = msgspec.msgpack.decode(build(mixed()).data)
    assert [chunk[0] for chunk in chunks] == [[0, 1, 2], [*range(3, 19)], [*range(19, 35)], [*range(35, 43)], [50, 51]]
    assert [bool(chunk[1]) for chunk in chunks] == [False, True, True, True, True]
    assert max(len(chunk[0]) for chunk in chunks) == CHUNK_COLUMNS


@pytest.mark.parametrize("index", [0, 3, 18, 19, 42, 51])
def test_one_series_is_read_out_of_a_chunk_that_it_shares(index: int) -> None:
    frames = mixed()
    assert_same(unpack(build(frames).data, {index}), {index: columns_of(frames)[index]})


def test_a_block_with_a_chunk_for_each_series_that_some_frames_lack_is_read() -> None:
    """Such are those that were written before such series shared chunks."""
    columns, steps = build(mixed()).columns, np.arange(float(BLOCK_STEPS))
    packed = [msgspec.msgpack.decode(pack({index: column}, steps)) for index, column in columns.items()]
    old = msgspec.msgpack.encode([packed[0][0], [chunk for _, chunks in packed for chunk in chunks]])
    assert_same(unpack(old), columns)


def test_a_damaged_chunk_of_several_series_is_refused() -> None:
    data = build(mixed()).data
    steps, chunks = msgspec.msgpack.decode(data)
    for length in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            unpack(data[:length])
    for place, other in ((1, 4), (4, 1)):
        for part in (0, 1, 2):
            wrong = [list(chunk) for chunk in chunks]
            wrong[place][part] = chunks[other][part]
            with pytest.raises(DecodeError):
                unpack(msgspec.msgpack.encode([steps, wrong]))
    flipped = [list(chunk) for chunk in chunks]
    flipped[1][2] = flipped[1][2][:100] + bytes([flipped[1][2][100] ^ 1]) + flipped[1][2][101:]
    with pytest.raises(DecodeError):
        unpack(msgspec.msgpack.encode([steps, flipped]), {5})


@st.composite
def uneven(draw: st.DrawFn) -> Columns:
    """Series of their own steps each, some of which repeat, with values that are not finite."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns: Columns = {}
    for index in draw(st.sets(st.integers(0, 9), min_size=1)):
        # No longest one whose length is a multiple of the buckets: those are parted by place instead of step.
        length = draw(st.sampled_from([1, 7, 17, 35, 35, 117]))
        steps = np.cumsum(random.integers(draw(st.integers(0, 1)), 4, size=length)).astype(np.float64)
        values = random.normal(size=length) * 10.0 ** random.integers(-9, 9, size=length)
        odd = random.choice([np.nan, np.inf, -np.inf], size=length)
        columns[index] = steps, np.where(random.random(length) < draw(st.sampled_from([0, 0.2, 0.9])), odd, values)
    return columns


def kept(steps: F64, values: F64) -> tuple[F64, F64]:
    return decimate(steps, values, pyramid.NODE_POINTS, nonfinite=pyramid.NODE_NONFINITE)[:2]


@given(uneven())
def test_a_node_holds_of_each_series_what_it_would_of_that_alone(columns: Columns) -> None:
    node = pyramid.summed_up(columns)
    alone = {index: in_order([column]) for index, column in columns.items()}
    assert_same(node.points, {index: kept(*column) for index, column in alone.items()})
    for index, (_, values) in alone.items():
        finite = values[np.isfinite(values)]
        assert node.tallies[index] == (len(values), len(values) - len(finite), float(finite.sum()))
    assert node.tallies.keys() == columns.keys()


@given(st.lists(uneven(), min_size=1, max_size=pyramid.FANOUT))
def test_joined_nodes_hold_of_each_series_what_they_would_of_that_alone(parts: list[Columns]) -> None:
    nodes = [pyramid.summed_up(columns) for columns in parts]
    expected: Columns = {}
    for index in sorted({index for node in nodes for index in node.points}):
        own = [node.points[index] for node in nodes if index in node.points]
        expected[index] = kept(np.concatenate([one for one, _ in own]), np.concatenate([one for _, one in own]))
        total = 0.0
        for node in nodes:
            total += node.tallies[index].total if index in node.tallies else 0.0
        counts = [node.tallies[index][:2] for node in nodes if index in node.tallies]
        assert pyramid.joined(nodes).tallies[index] == (*np.sum(counts, axis=0).tolist(), total)
    assert_same(pyramid.joined(nodes).points, expected)


def test_nothing_joined_is_a_node_of_nothing() -> None:
    assert pyramid.joined([pyramid.Node({}, {})] * 4) == pyramid.Node({}, {})


def test_series_of_all_frames_and_of_some_are_summed_up_side_by_side() -> None:
    columns = build(mixed()).columns
    node = pyramid.summed_up(columns)
    assert node.points.keys() == node.tallies.keys() == columns.keys()
    for index, (steps, values) in columns.items():
        own, drawn = node.points[index]
        assert np.isin(own, steps).all()
        np.testing.assert_array_equal(drawn, 1000 * own + index)
        assert (own[0], own[-1]) == (steps[0], steps[-1])
        assert node.tallies[index] == (len(steps), 0, values.sum())
