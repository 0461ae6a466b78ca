"""Laws of a store: it answers as a dictionary in memory would, whatever was repeated, reordered, replaced or killed."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.saying import ack, frame, status
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from spiral_server.live.decimation import decimate, in_order
from spiral_server.store.errors import StoreError
from spiral_server.store.protocol import Entry, SeriesQuery
from spiral_server.store.sqlite_store import SqliteStore

GOLDEN = Path(__file__).parents[1] / "golden" / "store" / "run-schema-1.db"
EVERYTHING = SeriesQuery(None, None, None, 1_000_000)
SERIES = 3
VALUES = st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e308]))


class Twin:
    """What a store should hold, kept in the plainest way."""

    def __init__(self) -> None:
        self.said: dict[int, dict[int, Any]] = {}
        """By incarnation and sequence number; those that came too late are not there."""

    def append(self, message: Any) -> None:
        own = self.said.setdefault(message.incarnation, {})
        if message.seq > max(own, default=-1):
            own[message.seq] = message

    def frames(self, index: int) -> dict[int, float]:
        """Give the points of a series by step: later incarnations replace all from their first step on."""
        points: dict[int, float] = {}
        for incarnation in sorted(self.said):
            frames = [one for _, one in sorted(self.said[incarnation].items()) if isinstance(one, Frame)]
            if frames:
                begin = min(one.step for one in frames)
                points = {step: value for step, value in points.items() if step < begin}
            for one in frames:
                own = dict(zip(one.index.numpy().tolist(), one.values.numpy().tolist(), strict=True))
                if index in own:
                    points[one.step] = own[index]
        return dict(sorted(points.items()))

    def other(self) -> list[bytes]:
        messages = [one for _, own in sorted(self.said.items()) for _, one in sorted(own.items())]
        return [codec.encode(one) for one in messages if not isinstance(one, Frame)]


class StoreMachine(RuleBasedStateMachine):
    """Writes to a store and to its twin, and compares what they answer."""

    @initialize(old=st.booleans())
    def begin(self, old: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spiral-law-"))
        self.twin = Twin()
        self.next: dict[int, int] = {}
        self.step = 0
        self.random = np.random.default_rng(0)
        if old:
            # A run that an older Spiral has begun; what is in it is in its README.
            (self.folder / "r1").mkdir()
            shutil.copy(GOLDEN, self.folder / "r1" / "run.db")
            self._read_golden()
        self.store = SqliteStore(self.folder)

    def _read_golden(self) -> None:
        values = np.round(np.sin(np.arange(900) / 37), 3)
        values[[77, 300, 301, 700]] = [np.nan, np.inf, -np.inf, 9.0]
        for k in range(900):
            self.twin.append(frame(4 + k, 1 + k, [values[k], -values[k]]))
        self.twin.append(ack(906, 1, "c1", step=901))
        for k in range(60):
            self.twin.append(frame(4 + k, 851 + k, [100.0 + k], incarnation=1))
        self.next = {0: 907, 1: 64}
        self.step = 911

    def _keep(self, *messages: Any) -> None:
        for message in messages:
            self.twin.append(message)
        self.store.append("r1", [Entry(message, codec.encode(message)) for message in messages]).result(30)

    @property
    def newest(self) -> int:
        return max(self.next, default=0)

    def _fresh(self, count: int, width: int) -> list[Any]:
        made = []
        for _ in range(count):
            seq = self.next.get(self.newest, 0)
            self.next[self.newest] = seq + 1
            made.append(frame(seq, self.step, self.random.normal(size=width), incarnation=self.newest))
            self.step += 1
        return made

    @rule(rows=st.lists(st.lists(VALUES, min_size=1, max_size=SERIES), min_size=1, max_size=8))
    def append_a_few(self, rows: list[list[float]]) -> None:
        made = []
        for row in rows:
            seq = self.next.get(self.newest, 0)
            self.next[self.newest] = seq + 1
            made.append(frame(seq, self.step, row, incarnation=self.newest))
            self.step += 1
        self._keep(*made)

    @rule(count=st.integers(200, 900), width=st.integers(1, SERIES))
    def append_many(self, count: int, width: int) -> None:
        self._keep(*self._fresh(count, width))

    @rule(count=st.integers(1, 400))
    def speak_again_of_the_same_step(self, count: int) -> None:
        """An evaluation between two updates has the step of the update before it."""
        self.step = max(0, self.step - 1)
        self._keep(*self._fresh(count, 1))

    @rule(back=st.integers(1, 600), data=st.data())
    def repeat(self, back: int, data: Any) -> None:
        """A courier that has not heard of it brings it again, perhaps in the wrong order and with more behind it."""
        own = self.twin.said.get(self.newest, {})
        if not own:
            return
        seqs = [seq for seq in own if seq > max(own) - back]
        again = [own[seq] for seq in data.draw(st.permutations(seqs[:12]))]
        self._keep(*again, *self._fresh(3, 1))

    @rule()
    def say_something_else(self) -> None:
        seq = self.next.get(self.newest, 0)
        self.next[self.newest] = seq + 1
        self._keep(status(seq, "training", incarnation=self.newest, step=self.step))

    @rule(back=st.integers(0, 700))
    def resume(self, back: int) -> None:
        """A resumed run begins again at an earlier step; what the older one brings afterwards is kept and not shown."""
        self.next[self.newest + 1] = 0
        self.step = max(0, self.step - back)
        self._keep(*self._fresh(2, 2))

    @precondition(lambda self: len(self.next) > 1)
    @rule()
    def hear_of_an_older_incarnation(self) -> None:
        older = sorted(self.next)[-2]
        seq = self.next[older]
        self.next[older] = seq + 1
        own = [one.step for one in self.twin.said.get(older, {}).values() if isinstance(one, Frame)]
        self._keep(frame(seq, max(own, default=0) + 1, [5.0], incarnation=older))

    @rule()
    def start_again(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.folder)

    @rule()
    def pack(self) -> None:
        if self.store.knows("r1") or self.twin.said:
            self.store.compact("r1")

    @rule(cut=st.integers(1, 3), count=st.sampled_from([5, 300]))
    def fail_in_the_middle(self, cut: int, count: int) -> None:
        """A commit that fails leaves nothing behind, and what follows is refused until somebody asks."""
        before = (dict(self.next), self.step)
        made = self._fresh(count, 1)
        # A step that no column of SQLite holds.
        broken = frame(made[cut].seq, 2**70, [1.0], incarnation=self.newest)
        entries = [Entry(one, codec.encode(made[0])) for one in [*made[:cut], broken, *made[cut + 1 :]]]
        with pytest.raises(StoreError):
            self.store.append("r1", entries).result(30)
        self.next, self.step = before
        last = max(self.twin.said.get(self.newest, {}), default=-1)
        assert self.store.stored("r1", self.newest).result(30) == last

    @invariant()
    def answers_as_the_twin(self) -> None:
        if not self.twin.said:
            return
        read = self.store.series("r1", EVERYTHING)
        assert read.damage == []
        for index in range(SERIES):
            expected = self.twin.frames(index)
            got = read.columns.get(index)
            assert (got is not None) == bool(expected)
            if got is not None:
                np.testing.assert_array_equal(got.steps, list(expected))
                np.testing.assert_array_equal(got.values, list(expected.values()))
        for incarnation, own in self.twin.said.items():
            assert self.store.stored("r1", incarnation).result(30) == max(own)

    @invariant()
    def a_far_view_keeps_every_extreme(self) -> None:
        expected = self.twin.frames(0)
        if not expected:
            return
        got = self.store.series("r1", SeriesQuery(frozenset({0}), None, None, 40)).columns[0]
        values = np.array(list(expected.values()))
        finite = values[np.isfinite(values)]
        kept = got.values[np.isfinite(got.values)]
        if len(finite):
            assert (kept.min(), kept.max()) == (finite.min(), finite.max())
        for step, value in zip(got.steps.tolist(), got.values.tolist(), strict=True):
            assert np.array_equal(value, expected[int(step)], equal_nan=True)
        exact = decimate(*in_order([(np.array(list(expected), dtype=float), values)]), 40)
        assert len(got.values) <= len(exact.values) + 40

    @invariant()
    def all_of_it_is_sound(self) -> None:
        if self.twin.said:
            assert self.store.verify("r1") == []

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_a_store_answers_as_its_twin() -> None:
    few = settings(max_examples=10, stateful_step_count=12, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(StoreMachine, settings=few)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_store_for_a_long_time() -> None:
    long = settings(max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(StoreMachine, settings=long)
