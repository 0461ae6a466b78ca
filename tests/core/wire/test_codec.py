"""Bytes give a message or DecodeError, and nothing else."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.limits import MAX_MESSAGE_BYTES
from spiral_core.wire.messages import CommandRequest, Frame, HeatMaps, Ping, RunStarted, StatusChanged, Strip, Watch
from spiral_core.wire.parts import Array


def frame(values: list[float], seq: int = 7) -> Frame:
    return Frame(
        run="r",
        incarnation=0,
        seq=seq,
        step=3,
        time=1.5,
        index=Array.of(np.arange(len(values)), "<u2"),
        values=Array.of(np.array(values), "<f8"),
    )


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_a_frame_comes_back_bit_for_bit_whatever_its_numbers(values: list[float]) -> None:
    sent = frame(values)
    received = codec.decode(codec.encode(sent))
    assert received == sent
    assert received.values.numpy().tobytes() == np.array(values, dtype="<f8").tobytes()


@given(st.binary(max_size=400))
@settings(max_examples=400)
def test_any_bytes_give_a_message_or_decode_error(data: bytes) -> None:
    for read in (codec.decode, codec.decode_packet):
        try:
            read(data)
        except DecodeError:
            continue


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_frame_gives_a_message_or_decode_error(position: int, value: int) -> None:
    data = bytearray(codec.encode(frame([1.0, math.nan])))
    data[position % len(data)] = value
    try:
        codec.decode(bytes(data))
    except DecodeError:
        return


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_message_is_refused(cut: int) -> None:
    with pytest.raises(DecodeError):
        codec.decode(codec.encode(frame([1.0, 2.0]))[:-cut])


def test_deeply_nested_bytes_are_refused() -> None:
    with pytest.raises(DecodeError):
        codec.decode(b"\x81\xa1a" * 100_000 + b"\x00")


def test_an_array_that_its_bytes_do_not_fill_is_refused_at_the_door() -> None:
    sent = frame([1.0, 2.0])
    broken = Frame(
        run="r",
        incarnation=0,
        seq=0,
        step=0,
        time=0.0,
        index=sent.index,
        values=Array(dtype="<f8", shape=(3,), data=b""),
    )
    with pytest.raises(DecodeError, match="cannot hold"):
        codec.decode(codec.encode(broken))


def test_a_negative_extent_is_refused() -> None:
    with pytest.raises(DecodeError, match="negative"):
        Array(dtype="<f8", shape=(-1, -1), data=b"x" * 8).numpy()


@pytest.mark.parametrize("shape", [(0, 2**40), (0, 2**63), (1,) * 70])
def test_an_array_that_numpy_cannot_make_is_refused_at_the_door(shape: tuple[int, ...]) -> None:
    sent = Strip(run="r", incarnation=0, seq=0, step=0, time=0.0, name="s", values=Array.of(np.ones(1), "<f4"))
    data = b"" if 0 in shape else b"1234"
    with pytest.raises(DecodeError, match=r"axes|extent"):
        codec.decode(codec.encode(replace(sent, values=Array(dtype="<f4", shape=shape, data=data))))


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (msgspec.msgpack.Ext(5, b"x"), "Ext"),
        (b"bytes", "bytes"),
        ({1: 2}, "no text"),
        (nested(400), "nested"),
        ({"a": [{"b": nested(30)}]}, "nested"),
    ],
)
def test_a_configuration_that_json_cannot_carry_on_is_refused_at_the_door(value: Any, why: str) -> None:
    sent = RunStarted(
        run="r",
        incarnation=0,
        seq=0,
        step=0,
        time=0.0,
        name="",
        model="",
        data="",
        total_steps=0,
        config={"lr": 0.1, "steer": [{"step": 3, "sets": {"optim.lr": 1.0, "x": None}}]},
        class_names=[],
        layers=[],
        environment={},
    )
    assert codec.decode(codec.encode(sent)) == sent
    with pytest.raises(DecodeError, match=why):
        codec.decode(codec.encode(replace(sent, config={"a": value})))


def test_unknown_fields_and_tags_are_refused() -> None:
    good = msgspec.to_builtins(Ping(time=1.0))
    for bad in ({**good, "extra": 1}, {**good, "type": "pingg"}, {"time": 1.0}, {"type": "ping"}):
        with pytest.raises(DecodeError):
            codec.decode(msgspec.msgpack.encode(bad))


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="exceeds"):
        codec.decode(b"\xc0" * (MAX_MESSAGE_BYTES + 1))


@given(st.lists(st.integers(0, 10), max_size=8))
def test_a_packet_gives_back_its_messages_in_order(counts: list[int]) -> None:
    sent = [frame([0.5] * count, seq=seq) for seq, count in enumerate(counts)]
    assert codec.decode_packet(codec.encode_packet(sent)) == sent


def test_a_length_that_runs_past_the_packet_is_refused() -> None:
    with pytest.raises(DecodeError, match="past the end"):
        codec.decode_packet(struct.pack("<I", 10) + b"abc")
    with pytest.raises(DecodeError, match="within a length"):
        codec.decode_packet(b"\x01\x00")


def test_json_writes_non_finite_numbers_as_words_and_arrays_as_lists() -> None:
    text = codec.to_json(frame([math.nan, math.inf, -math.inf, 1.5]))
    assert b'"values":["NaN","Infinity","-Infinity",1.5]' in text
    assert b'"type":"frame"' in text


def test_json_that_does_not_fit_names_the_field() -> None:
    with pytest.raises(DecodeError, match="verb"):
        codec.from_json(b'{"id":"a","verb":"explode"}', CommandRequest)
    with pytest.raises(DecodeError):
        codec.from_json(b'{"id":"a","verb":"set","sets":[{"knob":"x","value":NaN}]}', CommandRequest)


def test_every_array_in_a_heat_map_survives() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("<f4")
    sent = HeatMaps(
        run="r",
        incarnation=0,
        seq=0,
        step=1,
        time=0.0,
        method="gradcam",
        layer="relu3",
        maps=Array.of(maps, "<f4"),
        raw_min=[0.0, 1.0],
        raw_max=[1.0, math.nan],
        logit=[1.0, 2.0],
        probability=[0.5, 0.5],
        predicted=[1, 2],
        labels=[1, 2],
        pointing=None,
        energy_over_area=None,
    )
    received = codec.decode(codec.encode(sent))
    np.testing.assert_array_equal(received.maps.numpy(), maps)


def test_messages_cannot_be_changed_after_they_are_made() -> None:
    with pytest.raises(AttributeError):
        Watch(run="", width=3).width = 4
    assert StatusChanged(run="r", incarnation=0, seq=0, step=0, time=0.0, status="training", done=0, total=0, detail="")
