"""Processes that are killed at random moments while commands fly: nothing is lost, and nothing is done twice.

Each schedule is drawn from its number, and what fails prints it with everything that was done and seen. To run one
again::

    SPIRAL_FAULTS=17 python -m pytest tests/faults/test_schedules.py
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.plan import draw
from faults.schedule import Schedule

AT_ONCE = 2
BATCH = 10
"""Schedules of one test: two at a time, so that a processor is not idle while processes start."""
SHORT, LONG = range(1, 21), range(1001, 1201)
CHOSEN = [int(seed) for seed in os.environ.get("SPIRAL_FAULTS", "").split(",") if seed]


def batches(seeds: range) -> list[list[int]]:
    if CHOSEN:
        return [CHOSEN]
    return [list(seeds[place : place + BATCH]) for place in range(0, len(seeds), BATCH)]


def run_all(seeds: list[int], folder: Path) -> None:
    def one(seed: int) -> tuple[int, str]:
        here = folder / str(seed)
        here.mkdir()
        schedule = Schedule(draw(seed), here)
        try:
            schedule.run()
        except AssertionError as error:
            return schedule.kills, str(error)
        return schedule.kills, ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, seeds))
    failures = [told for _, told in results if told]
    print(f"schedules {seeds[0]} to {seeds[-1]}: {sum(kills for kills, _ in results)} processes killed")
    assert not failures, "\n\n".join(failures)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", batches(SHORT), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_nothing_is_lost_or_done_twice_whatever_is_killed(seeds: list[int], tmp_path: Path) -> None:
    run_all(seeds, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seeds", batches(LONG), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_nothing_is_lost_or_done_twice_in_two_hundred_schedules(seeds: list[int], tmp_path: Path) -> None:
    run_all(seeds, tmp_path)


def test_a_schedule_is_drawn_from_its_number_alone_and_the_large_network_has_its_quarter() -> None:
    assert [draw(seed) for seed in SHORT] == [draw(seed) for seed in SHORT]
    assert len({repr(draw(seed).events) for seed in SHORT}) == len(SHORT)
    for seeds in (SHORT, LONG):
        assert sum("fashion" in draw(seed).train for seed in seeds) * 4 >= len(seeds)
