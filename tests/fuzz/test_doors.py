"""Visitors who say whatever comes to mind, at every door of a real server, while others go about their business.

Each gets a documented code or is served; the server has nothing to complain of in its log, no connection stays behind,
and a viewer beside them is shown every frame in time. See `test_decoders` for how to try another seed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from random import Random

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from .besieged import Besieged, Good
from .sequences import Visit

SEED = int(os.environ.get("SPIRAL_FUZZ_SEED", "1"))
AT_ONCE = 8
LONG = {"engine": 45_000, "view": 45_000, "http": 10_000}
"""Packets of the long count."""


@pytest.mark.parametrize("door", LONG)
def test_whatever_is_said_at_a_door_harms_nobody(
    server: Besieged, runner: asyncio.Runner, good: Good, door: str
) -> None:
    level = server.connected()
    codes: Counter[int | None] = Counter()

    @seed(SEED)
    @given(st.randoms(use_true_random=True))
    # Not shrunk: a server is not put back to where it was.
    @settings(max_examples=40, deadline=None, database=None, phases=[Phase.generate])
    def visited(random: Random) -> None:
        visit = Visit(random, server, door)

        async def story() -> None:
            await visit.pay()
            await good.beat()

        runner.run(story())
        codes[visit.code] += 1
        assert server.complaints() == []

    visited()
    runner.run(server.settled(level))
    print(f"{door}: closed with {dict(codes)}; a frame took {good.slowest:.3f} s at the worst; seed {SEED}")
    assert len(codes) > 3


async def besiege(server: Besieged, good: Good, door: str, packets: int) -> tuple[Counter[int | None], int]:
    """Send visitors, several at a time, until so many packets were sent."""
    codes: Counter[int | None] = Counter()
    sent = number = 0
    while sent < packets:
        visits = [Visit(Random(f"{SEED}/{door}/{number + place}"), server, door) for place in range(AT_ONCE)]
        number += AT_ONCE
        try:
            await asyncio.gather(*(visit.pay() for visit in visits), good.beat())
        except BaseException:
            print(f"visits {number - AT_ONCE} to {number} at the door {door}, seed {SEED}")
            raise
        codes.update(visit.code for visit in visits)
        sent += sum(visit.packets for visit in visits)
    return codes, sent


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("door", LONG)
def test_whatever_is_said_at_a_door_for_long_harms_nobody(
    server: Besieged, runner: asyncio.Runner, good: Good, door: str
) -> None:
    level = server.connected()
    before, began = server.megabytes, time.monotonic()
    codes, sent = runner.run(besiege(server, good, door, LONG[door]))
    seconds = time.monotonic() - began
    assert server.complaints() == []
    runner.run(server.settled(level))
    print(
        f"{door}: {sent:,} packets of {codes.total():,} visitors in {seconds:.0f} s, {sent / seconds:,.0f} a second; "
        f"closed with {dict(codes)}; a frame took {good.slowest:.3f} s at the worst; "
        f"{before:.0f} MB before, {server.megabytes:.0f} MB after; seed {SEED}"
    )
