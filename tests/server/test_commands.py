"""Laws of a command's life: given once, settled once, in order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.wire.messages import CommandRecord, CommandRequest
from spiral_core.wire.parts import Setting
from spiral_core.wire.requests import EXPIRED, malformed
from spiral_server.live.commands import LISTED, Ledger, StaleError, check_revision, command_of, judge

from .saying import NOW, ack, asking, knob

KNOBS = {"optim.lr": knob()}


def judged(number: int, identity: str, value: float = 0.2) -> CommandRecord:
    return judge(asking(identity, value), run="r1", number=number, incarnation=0, knobs=KNOBS, time=NOW)


@given(st.lists(st.tuples(st.sampled_from(["ask", "applied", "rejected"]), st.integers(1, 6)), max_size=60))
def test_whatever_is_repeated_or_reordered_a_command_is_settled_once(script: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    settled: dict[str, int] = {}
    for word, number in script:
        if word == "ask":
            if ledger.find(str(number)) is None:
                ledger.add(judged(ledger.reserve(), str(number)))
        else:
            record = ledger.settle(ack(0, number, str(number), state="applied" if word == "applied" else "rejected"))
            if record is not None:
                settled[record.id] = settled.get(record.id, 0) + 1
                assert ledger.find(record.id) == record
    assert all(times == 1 for times in settled.values())
    waiting = [record.number for record in ledger.unsettled()]
    assert waiting == sorted(waiting)
    assert ledger.waiting == len(waiting)
    assert {record.id for record in ledger.unsettled()}.isdisjoint(settled)


def test_numbers_count_up_and_are_never_given_twice() -> None:
    ledger = Ledger()
    ledger.add(judged(41, "old"))
    assert [ledger.reserve(), ledger.reserve()] == [42, 43]


def test_a_command_out_of_bounds_is_recorded_as_rejected_with_the_reason_and_never_handed_out() -> None:
    record = judged(1, "c1", value=5.0)
    assert record.state == "rejected"
    assert "out of bounds" in record.reason
    ledger = Ledger()
    ledger.add(record)
    assert ledger.unsettled() == []
    assert ledger.find("c1") == record


def test_an_applied_command_tells_step_old_and_new_value() -> None:
    ledger = Ledger()
    ledger.add(judged(1, "c1"))
    record = ledger.settle(ack(9, 1, "c1", step=12))
    assert record is not None
    assert (record.state, record.step, record.changes[0].old, record.changes[0].in_force) == ("applied", 12, 0.1, 0.2)
    assert record.sets == judged(1, "c1").sets


def test_a_change_that_nobody_asked_for_gets_a_record_of_its_own() -> None:
    ledger = Ledger()
    record = ledger.settle(ack(9, 3, "guard-1", value=0.05))
    assert record is not None
    assert [(setting.knob, setting.value) for setting in record.sets] == [("optim.lr", 0.05)]
    assert ledger.reserve() == 4


def test_the_end_of_an_incarnation_lets_what_waits_for_it_expire_for_good() -> None:
    ledger = Ledger()
    for number, incarnation in ((1, 0), (2, 1), (3, 2)):
        ledger.add(msgspec.structs.replace(judged(number, f"c{number}"), incarnation=incarnation))
    expired = ledger.expire(1)
    assert [(record.number, record.state, record.reason) for record in expired] == [
        (1, "expired", EXPIRED),
        (2, "expired", EXPIRED),
    ]
    assert ledger.expire(1) == []
    assert [record.number for record in ledger.unsettled()] == [3]
    assert ledger.settle(ack(9, 1, "c1")) is None


def test_the_newest_commands_are_the_newest_also_after_a_clock_was_set_back() -> None:
    ledger = Ledger()
    knobs = {"optim.lr": knob()}
    count = LISTED + 200
    for number in range(1, count + 1):
        # It is set back by an hour in the middle.
        time = NOW + number - (3600 if number > count // 2 else 0)
        ledger.add(judge(asking(f"c{number}"), run="r1", incarnation=0, number=number, knobs=knobs, time=time))
        if number < count:
            ledger.settle(ack(number, number, f"c{number}", rev=number))
    own = ack(count, -1, "guard-1", rev=count)
    ledger.settle(own)
    assert [record.number for record in ledger.newest()] == [*range(count - LISTED + 2, count), -1, count]


def test_a_superseded_command_tells_which_one_took_its_place() -> None:
    ledger = Ledger()
    ledger.add(judged(1, "c1"))
    record = ledger.settle(ack(9, 1, "c1", state="superseded", by=2))
    assert record is not None
    assert (record.state, record.by, record.step) == ("superseded", 2, None)


@pytest.mark.parametrize("expected", [None, 3, 4])
def test_a_revision_that_is_in_force_or_not_known_yet_passes_the_door(expected: int | None) -> None:
    check_revision(msgspec.structs.replace(asking(), expected_rev=expected), rev=3, knobs=KNOBS)


def test_a_revision_that_has_passed_is_refused_with_the_values_in_force() -> None:
    request = msgspec.structs.replace(asking(), expected_rev=2)
    with pytest.raises(StaleError, match="revision 3 is in force") as refused:
        check_revision(request, rev=3, knobs=KNOBS)
    assert (refused.value.rev, refused.value.values) == (3, {"optim.lr": 0.1})


def test_the_engine_is_told_what_was_asked() -> None:
    more = {"at_step": 9, "expected_rev": 4, "supersede": True}
    request = msgspec.structs.replace(asking("c3"), **more)
    command = command_of(judge(request, run="r1", incarnation=0, number=3, knobs=KNOBS, time=NOW))
    assert (command.number, command.id, command.verb, command.sets[0].value) == (3, "c3", "set", 0.2)
    assert {name: getattr(command, name) for name in more} == more


@pytest.mark.parametrize(
    "request_",
    [
        CommandRequest(id="", verb="pause"),
        CommandRequest(id="x" * 65, verb="pause"),
        CommandRequest(id="a", verb="pause", actor="x" * 121),
        CommandRequest(id="a", verb="set", sets=asking().sets * 257),
        CommandRequest(id="a", verb="pause", at_step=2**53),
        CommandRequest(id="a", verb="step", steps=10**30),
        CommandRequest(id="a", verb="set", sets=[Setting(knob="optim.lr", value=-(10**30))]),
    ],
)
def test_a_request_that_cannot_be_recorded_is_told_why(request_: CommandRequest) -> None:
    assert malformed(request_)
    assert malformed(asking()) is None
