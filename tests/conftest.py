"""What a whole run of the tests says at its end, and what it does not let pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from oracles import golden
from spiral_core import kernels

COMPARISON = "parity"
"""In the name of each test that compares with PyTorch, or of its file."""


class Comparisons:
    """Notes comparisons that were skipped: then nothing was compared, and the run has failed."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def note(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped and COMPARISON in report.nodeid:
            self.skipped.append(report.nodeid)

    pytest_collectreport = note
    pytest_runtest_logreport = note

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("comparisons with PyTorch that were skipped: the run has failed", red=True)
            for name in self.skipped:
                terminalreporter.line(name)


@pytest.fixture
def threads() -> Iterator[None]:
    """Let a test change the number of compute threads."""
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)


LONGEST = (
    "core/engine/test_promises.py",
    "e2e/test_processes.py",
    "faults/test_schedules.py",
    "e2e/test_by_hand.py",
    "laws/test_command_life.py",
    "core/kernels/test_accelerate.py",
    "core/test_cli.py",
    "core/link/test_resume.py",
    "core/engine/test_mixed_precision.py",
    "core/link/test_checkpoints.py",
    "core/engine/test_model_choices.py",
    "faults/test_single_faults.py",
    "core/engine/test_step.py",
    "architecture/test_comparisons.py",
)
"""The files that take longest. They come first: begun last, one would keep a worker busy while the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    names = [f"tests/{name}" for name in LONGEST]

    def turn(item: pytest.Item) -> int:
        name = item.nodeid.partition("::")[0]
        return names.index(name) if name in names else len(names)

    items.sort(key=turn)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Comparisons())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many golden arrays were reproduced and how many left out, each with its reason."""
    results: Counter[str] = Counter()
    data: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, counts in report.user_properties:
            if name == golden.PROPERTY:
                said = json.loads(counts)
                results[said["file"]] += said["results"]
                data[said["file"]] += said["data"]
    if not results:
        return
    terminalreporter.section("golden arrays")
    for file, total in golden.ARRAYS.items():
        reasons = Counter(
            f"{pattern}: {reason}"
            for pattern, reason in golden.EXCLUDED.items()
            for name in golden.names_in(file)
            if golden.matching(name, [pattern])
        )
        left = total - results[file] - data[file] - reasons.total()
        terminalreporter.line(
            f"{file}: {total} arrays: {results[file]} reproduced, {data[file]} fed in, {reasons.total()} excluded"
            + (f", {left} of tests that were not run or failed" if left else "")
        )
        for reason, number in reasons.items():
            terminalreporter.line(f"  {number} excluded, {reason}")
