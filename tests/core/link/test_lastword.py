"""What a log lacks when its engine has died."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spiral_core.link.applied import Entry
from spiral_core.link.lastword import LastWord
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Frame, KnobsDeclared, Logged, StatusChanged
from spiral_core.wire.parts import Array, RunStatus


def entry(number: int, rev: int) -> Entry:
    told: dict[str, Any] = {"verb": "pause", "steps": 1, "changes": [], "actor": "", "source": "ui", "instead_of": []}
    return Entry(number=number, id=f"c{number}", step=5, rev=rev, **told)


def head(seq: int, step: int = 0) -> dict[str, Any]:
    return {"run": "r", "incarnation": 2, "seq": seq, "step": step, "time": 1.0}


def ack(seq: int, number: int, rev: int, step: int) -> Ack:
    told: dict[str, Any] = {"changes": [], "reason": "", "actor": "", "source": "ui"}
    return Ack(**head(seq, step), number=number, id=f"c{number}", verb="pause", state="applied", rev=rev, **told)


def status(seq: int, word: RunStatus) -> StatusChanged:
    return StatusChanged(**head(seq), status=word, done=0, total=0, detail="")


def lacking(said: list[Logged], applied: list[Entry]) -> list[Logged]:
    follower = LastWord("r", 2)
    for message in said:
        follower.follow(message.seq, codec.encode(message))
    return follower.missing(applied, time=9.0)


@pytest.mark.parametrize("word", ["finished", "stopped", "failed"])
def test_a_log_whose_end_was_said_lacks_nothing(word: RunStatus) -> None:
    assert lacking([status(0, "training"), status(1, word)], [entry(1, 1)]) == []


def test_what_was_acknowledged_or_belongs_to_what_the_run_began_with_is_not_said_again() -> None:
    said: list[Logged] = [KnobsDeclared(**head(0), knobs=[], rev=1), ack(1, 2, 2, 8)]
    (last,) = lacking(said, [entry(1, 1), entry(2, 2)])
    assert isinstance(last, StatusChanged)
    assert (last.seq, last.incarnation, last.step, last.status) == (2, 2, 7, "failed")


def test_what_was_applied_and_not_acknowledged_is_said_before_the_end() -> None:
    frame = Frame(**head(3, 6), index=Array.of(np.zeros(1), "<u2"), values=Array.of(np.ones(1), "<f8"))
    missing = lacking([ack(2, 1, 1, 5), frame], [entry(1, 1), entry(3, 2)])
    assert [(type(one), one.seq, one.time) for one in missing] == [(Ack, 4, 9.0), (StatusChanged, 5, 9.0)]
    assert isinstance(missing[0], Ack)
    assert (missing[0].number, missing[0].state, missing[0].rev) == (3, "applied", 2)
    assert missing[1].step == 6


def test_an_engine_that_never_said_a_word_is_said_to_have_failed() -> None:
    (last,) = lacking([], [])
    assert (last.seq, last.step) == (0, 0)


def test_a_log_that_is_read_again_from_the_start_is_followed_once() -> None:
    follower = LastWord("r", 2)
    for message in [status(0, "training"), status(1, "stopped"), status(0, "training")]:
        follower.follow(message.seq, codec.encode(message))
    assert follower.missing([], time=9.0) == []
