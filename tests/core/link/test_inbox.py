"""Commands reach the loop at once, in order, through a real pipe."""

from __future__ import annotations

import os
import struct
import threading
import time

import pytest

from spiral_core.errors import DecodeError
from spiral_core.link.inbox import Inbox
from spiral_core.wire import codec
from spiral_core.wire.messages import Command, Message, Ping


def command(number: int) -> Command:
    return Command(run="r", number=number, id=str(number), verb="pause", sets=[], actor="", source="api", time=0.0)


def framed(message: Message) -> bytes:
    data = codec.encode(message)
    return struct.pack("<I", len(data)) + data


def test_commands_arrive_in_order_and_once() -> None:
    inbox = Inbox()
    os.write(inbox.write_end, b"".join(framed(command(number)) for number in range(1, 6)))
    assert [got.number for got in inbox.drain()] == [1, 2, 3, 4, 5]
    assert inbox.drain() == []


def test_a_command_cut_in_two_waits_for_its_other_half() -> None:
    inbox = Inbox()
    data = framed(command(1))
    os.write(inbox.write_end, data[:7])
    assert inbox.drain() == []
    os.write(inbox.write_end, data[7:])
    assert [got.number for got in inbox.drain()] == [1]


def test_a_command_ends_the_wait() -> None:
    inbox = Inbox()
    threading.Timer(0.05, lambda: os.write(inbox.write_end, framed(command(1)))).start()
    begun = time.monotonic()
    inbox.wait(10.0)
    assert time.monotonic() - begun < 5.0
    assert len(inbox.drain()) == 1


def test_a_courier_that_is_gone_does_not_end_the_run_nor_burn_the_processor() -> None:
    inbox = Inbox()
    inbox.close_write_end()
    assert inbox.drain() == []
    begun = time.monotonic()
    inbox.wait(0.2)
    assert time.monotonic() - begun >= 0.15
    assert not inbox.interrupted


def test_the_death_of_the_parent_interrupts_the_run() -> None:
    read_end, write_end = os.pipe()
    inbox = Inbox(lifeline=read_end)
    inbox.wait(0.01)
    assert not inbox.interrupted
    os.close(write_end)
    inbox.wait(1.0)
    assert inbox.interrupted
    assert inbox.drain() == []


def test_a_message_that_is_no_command_is_refused() -> None:
    inbox = Inbox()
    os.write(inbox.write_end, framed(Ping(time=0.0)))
    with pytest.raises(DecodeError, match="Ping"):
        inbox.drain()
