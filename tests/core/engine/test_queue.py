"""Which command is due when: numbers taken once, boundaries in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spiral_core.engine.queue import CommandQueue
from spiral_core.wire.messages import Command


def asked(number: int, at_step: int | None = None) -> Command:
    told = {"run": "r", "id": f"c{number}", "actor": "", "source": "api", "time": 0.0}
    return Command(number=number, verb="pause", sets=[], at_step=at_step, **told)


@given(st.lists(st.tuples(st.integers(1, 12), st.none() | st.integers(0, 8)), max_size=40), st.integers(0, 8))
def test_each_number_is_due_once_at_the_first_boundary_that_is_not_before_its_own(
    arriving: list[tuple[int, int | None]], late: int
) -> None:
    queue = CommandQueue()
    wanted: dict[int, int | None] = {}
    for number, at_step in arriving:
        assert queue.add(asked(number, at_step)) == (number not in wanted)
        wanted.setdefault(number, at_step)
    came: dict[int, int] = {}
    for update in range(late, late + 12):
        due = [command.number for command in queue.due(update)]
        assert due == sorted(due)
        assert not set(due) & set(came)
        came |= dict.fromkeys(due, update)
    assert came == {number: max(late, at or 0) for number, at in wanted.items()}
    assert queue.held == []


def test_a_number_that_was_answered_before_is_not_taken_again() -> None:
    queue = CommandQueue([3])
    assert not queue.add(asked(3))
    assert queue.add(asked(2, 9))
    assert not queue.add(asked(2, 9))
    assert queue.due(8) == []
    assert [command.number for command in queue.held] == [2]


def test_what_is_held_is_listed_in_the_order_of_its_turn() -> None:
    queue = CommandQueue()
    for number, at_step in ((1, 9), (2, 5), (3, None), (4, 5)):
        queue.add(asked(number, at_step))
    assert [command.number for command in queue.held] == [3, 2, 4, 1]
