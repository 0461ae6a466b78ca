"""Messages that decode and are refused all the same."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from spiral_core.wire.parts import Array
from spiral_server.live.soundness import unsound

from .saying import ack, checkpoint, frame


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "r2"},
        {"incarnation": 1},
        {"incarnation": -1},
        {"seq": -1},
        {"step": 2**60},
        {"time": float("nan")},
        {"time": 1e300},
        {"values": Array.of(np.zeros(3), "<f8")},
        {"values": Array.of(np.zeros(2), "<f4")},
        {"index": Array.of(np.zeros(2), "<i4")},
        {"index": Array.of(np.zeros((2, 1)), "<u2"), "values": Array.of(np.zeros((2, 1)), "<f8")},
    ],
)
def test_a_message_that_would_harm_others_is_refused_with_a_reason(changes: dict[str, Any]) -> None:
    assert unsound(frame(1, 1), run="r1", incarnation=0) is None
    assert unsound(msgspec.structs.replace(frame(1, 1), **changes), run="r1", incarnation=0)


def test_a_command_number_that_does_not_fit_is_refused() -> None:
    assert unsound(ack(1, 2**63, "c"), run="r1", incarnation=0)


def test_a_checkpoint_of_a_size_that_does_not_fit_is_refused() -> None:
    assert unsound(checkpoint(1, 2, "a"), run="r1", incarnation=0) is None
    assert unsound(checkpoint(1, 2, "a", size=2**60), run="r1", incarnation=0)
    assert unsound(msgspec.structs.replace(checkpoint(1, 2, "a"), rev=-1), run="r1", incarnation=0)
