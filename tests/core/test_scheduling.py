"""Turns on a core: asked for by those who are waited for, passed on to threads, given back by an engine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STORY = """
import ctypes, platform, sys, threading
from spiral_core import scheduling

def turns():
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"):
        return 0
    attr = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, attr, 48, 0) == 0
    return scheduling._ATTR.unpack(attr.raw[:scheduling._ATTR.size])[5]

said = [turns()]
scheduling.short_turns()
said.append(turns())
thread = threading.Thread(target=lambda: said.append(turns()))
thread.start()
thread.join()
scheduling.usual_turns()
said.append(turns())
print(*said)
"""


def short_turns_are_known() -> bool:
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"):
        return False
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    return (major, minor) >= (6, 12)


def test_short_turns_are_those_of_later_threads_too_until_they_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, check=True)
    before, short, inherited, after = (int(word) for word in done.stdout.split())
    assert after == before
    if short_turns_are_known():
        assert (short, inherited) == (100_000, 100_000)
        assert before > short
    else:
        assert (short, inherited) == (before, before)


@pytest.mark.parametrize("story", ["short_turns()", "usual_turns()"])
@pytest.mark.parametrize(
    "elsewhere", ["sys.platform = 'darwin'", "scheduling.platform.machine = lambda: 'riscv64'", "os.nice(3)"]
)
def test_where_turns_cannot_be_asked_for_nothing_happens(story: str, elsewhere: str) -> None:
    words = f"import os, sys\nfrom spiral_core import scheduling\n{elsewhere}\nnice = os.nice(0)"
    words += f"\nscheduling.{story}\nassert os.nice(0) == nice"
    subprocess.run([sys.executable, "-c", words], check=True)
