"""The fold of a run: what it says, once, in order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spiral_core.wire.parts import Change
from spiral_server.live.commands import judge
from spiral_server.live.run_view import RunView

from .saying import NOW, ack, asking, frame, heat_maps, knob, moved, opening, status, strip


def folded(messages: list[Any]) -> RunView:
    view = RunView("r1")
    for message in messages:
        if view.admits(message):
            view.fold(message)
    return view


STORY: list[Any] = [
    *opening(),
    frame(4, 1),
    strip(5, 1, 0.5),
    heat_maps(6, 1),
    ack(7, 1, "c1"),
    frame(8, 2),
    strip(9, 2, 0.6),
    heat_maps(10, 2, level=1.0),
    status(11, "paused", step=2),
]


@given(st.lists(st.integers(0, len(STORY) - 1), max_size=30))
def test_repeated_messages_change_nothing(again: list[int]) -> None:
    view = folded(STORY)
    before = (view.summary, view.seq, view.rev, view.knobs, view.strips, view.newest_heat_maps)
    for place in again:
        assert not view.admits(STORY[place])
    assert before == (view.summary, view.seq, view.rev, view.knobs, view.strips, view.newest_heat_maps)


@given(st.lists(st.integers(0, len(STORY)), min_size=1, max_size=5))
def test_a_story_told_in_pieces_with_overlaps_gives_the_same_view(cuts: list[int]) -> None:
    pieces: list[Any] = []
    for cut in sorted(cuts):
        pieces += STORY[:cut]
    view, whole = folded(pieces + STORY), folded(STORY)
    assert (view.summary, view.seq, view.knobs, view.rev) == (whole.summary, whole.seq, whole.knobs, whole.rev)


def test_an_acknowledgement_changes_the_knob_in_force_and_since_when() -> None:
    view = folded(STORY)
    assert (view.knobs["optim.lr"].value, view.knobs["optim.lr"].since, view.rev) == (0.2, 7, 1)
    assert view.knobs["zspace.gain"].value == 1.0


def test_a_rejected_command_changes_no_knob() -> None:
    view = folded([*opening(), ack(4, 1, "c1", state="rejected", rev=0)])
    assert (view.knobs["optim.lr"].value, view.rev) == (0.1, 0)
    record = view.ledger.find("c1")
    assert record is not None
    assert record.reason == "auto-gain is on"


def test_a_knob_that_moved_by_itself_shows_where_it_stands_without_a_revision() -> None:
    changes = [Change(knob="optim.lr", old=0.1, in_force=0.05), Change(knob="gone", old=1, in_force=2)]
    view = folded([*opening(), moved(4, 7, changes)])
    assert (view.knobs["optim.lr"].value, view.knobs["optim.lr"].since, view.rev) == (0.05, 7, 0)
    assert set(view.knobs) == {"optim.lr", "zspace.gain"}


def test_the_latest_of_strips_and_heat_maps_is_kept() -> None:
    view = folded(STORY)
    assert [message.step for message in view.strips.values()] == [2]
    assert view.newest_heat_maps is not None
    assert view.newest_heat_maps.step == 2


def test_an_engine_that_is_gone_without_a_final_word_is_lost() -> None:
    view = folded(STORY)
    assert view.state == "lost"
    view.connected = True
    assert view.state == "paused"
    view.fold(status(12, "finished"))
    view.connected = False
    assert (view.state, view.ended) == ("finished", True)


def test_a_new_incarnation_starts_its_own_count_and_replaces_the_old_one() -> None:
    view = folded([*STORY, *opening(incarnation=1)])
    assert (view.incarnation, view.seq, view.frame_step) == (1, 3, None)
    assert not view.admits(frame(99, 99, incarnation=0))


def test_an_answer_that_is_said_once_more_brings_no_old_value_back() -> None:
    view = folded([*opening(), ack(4, 1, "c1", value=0.2, rev=1), ack(5, 2, "c2", value=0.3, rev=2)])
    view.fold(ack(6, 1, "c1", value=0.2, rev=1))
    assert (view.knobs["optim.lr"].value, view.rev) == (0.3, 2)


def waiting(*, whole: bool = True) -> RunView:
    view = RunView("r1", whole=whole)
    record = judge(asking("c1"), run="r1", incarnation=0, number=1, knobs={"optim.lr": knob()}, time=NOW)
    view.ledger.add(record)
    return view


def test_the_last_word_of_an_incarnation_lets_what_waits_expire_and_a_pause_does_not() -> None:
    view = waiting()
    view.fold(status(4, "paused"))
    assert view.kept(0, 4) == []
    view.fold(status(5, "failed"))
    assert view.expire() == [], "the last word is not on disk"
    assert [record.state for record in view.kept(0, 5)] == ["expired"]
    late = judge(asking("c2"), run="r1", incarnation=0, number=2, knobs={"optim.lr": knob()}, time=NOW)
    view.ledger.add(late)
    assert [record.id for record in view.expire()] == ["c2"], "given before the end, on disk after it"


def test_where_an_answer_may_be_lost_nothing_is_said_to_have_expired() -> None:
    view = waiting(whole=False)
    view.fold(status(5, "failed"))
    assert view.kept(0, 5) == []
    assert [record.state for record in view.ledger.records()] == ["accepted"]


def test_the_length_of_a_run_is_that_of_its_knob() -> None:
    view = folded(opening())
    assert view.summary.total_steps == 0
    view.knobs["run.steps"] = knob("run.steps", 500.0)
    assert view.summary.total_steps == 500
