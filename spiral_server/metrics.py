"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LAG = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600)
"""Seconds: one tick of a page is 0.03; beyond ten a courier brings home what it could not send before."""
_DISK = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Present(NamedTuple):
    """How things stand at this moment."""

    runs: dict[str, int]
    """Number of runs by status."""
    engines: int
    viewers: int
    backlog_bytes: int
    """Of all engines, on the way to the disk."""
    mailbox: list[int]
    """Messages that wait, by viewer."""
    merged: int
    """Frames merged for the viewers that are connected."""
    waiting: int
    """Commands that engines have not answered."""


class Metrics:
    """Counters of one server; two servers in one process do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "spiral_refused", "Requests and connections that were refused.", ["cause"], registry=self.registry
        )
        self.messages = Counter("spiral_ingested_messages", "Messages taken in from engines.", registry=self.registry)
        self.bytes = Counter("spiral_ingested_bytes", "Bytes taken in from engines.", registry=self.registry)
        self.lag = Histogram(
            "spiral_ingest_lag_seconds",
            "From the engine's clock to the server's, when a message comes in.",
            buckets=_LAG,
            registry=self.registry,
        )
        self.store = Histogram(
            "spiral_store_seconds",
            "Until what was given to the store is on the disk.",
            ["work"],
            buckets=_DISK,
            registry=self.registry,
        )
        self.failures = Counter(
            "spiral_store_failures", "What could not be written to the disk.", ["work"], registry=self.registry
        )

    def observe(self, present: Callable[[], Present]) -> None:
        """Ask how things stand whenever somebody asks for the metrics, and only then."""
        self.registry.register(_Observer(present))

    def text(self) -> bytes:
        """Give all of it in the text format of Prometheus."""
        return generate_latest(self.registry)


class _Observer(Collector):
    def __init__(self, present: Callable[[], Present]) -> None:
        self._present = present

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: there may be no hub yet to ask."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Give the gauges of this moment."""
        now = self._present()
        runs = GaugeMetricFamily("spiral_runs", "Runs by status.", labels=["status"])
        for status, number in sorted(now.runs.items()):
            runs.add_metric([status], number)
        yield runs
        for name, words, value in (
            ("spiral_engines_connected", "Engines whose couriers are connected.", now.engines),
            ("spiral_viewers_connected", "Pages that are connected.", now.viewers),
            ("spiral_ingest_backlog_bytes", "Taken in and not yet on the disk.", now.backlog_bytes),
            ("spiral_mailbox_depth", "Messages that wait for viewers.", sum(now.mailbox)),
            ("spiral_mailbox_depth_max", "Messages that wait for the slowest viewer.", max(now.mailbox, default=0)),
            ("spiral_merged_frames", "Frames merged for the viewers that are connected.", now.merged),
            ("spiral_commands_waiting", "Commands that engines have not answered.", now.waiting),
        ):
            yield GaugeMetricFamily(name, words, value=value)
