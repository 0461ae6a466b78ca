"""Memory in huge pages: as much as fills them, where the system has them, and the same memory as before."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from spiral_core import hugepages

STORY = """
import sys
from pathlib import Path
from spiral_core import hugepages

def huge():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))

kept = [bytes([number % 251]) * 100_000 for number in range(400)]
before = huge()
moved = hugepages.collapse()
print(before, moved, huge())
assert all(one == bytes([number % 251]) * 100_000 for number, one in enumerate(kept))
"""
SMAPS = """\
00400000-00a00000 r-xp 00000000 fe:00 1 /usr/bin/python
Rss:                6144 kB
00bff000-01201000 rw-p 00000000 00:00 0 [heap]
Rss:                6000 kB
Pss:                6000 kB
02000000-02200000 rw-p 00000000 00:00 0
Rss:                1000 kB
04000000-04a00000 rw-p 00000000 00:00 0
Rss:                5120 kB
06000000-06100000 rw-p 00000000 00:00 0
Rss:                1024 kB
08000000-08400000 rw-s 00000000 00:01 7 /dev/shm/a
Rss:                4096 kB
0a000000-0a400000 rw-p 00000000 fe:00 7 /usr/lib/a.so
Rss:                4096 kB
0c000000-0c400000 ---p 00000000 00:00 0
Rss:                   0 kB
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0 [stack]
Rss:                8192 kB
""".splitlines()


def test_what_fills_huge_pages_is_found_and_nothing_else() -> None:
    heap, filled = (0xC00000, 0x1200000), (0x4000000, 0x4A00000)
    assert list(hugepages._filled(SMAPS)) == [heap, filled]


def test_memory_is_moved_where_the_system_can_and_holds_what_it_held() -> None:
    done = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, check=True)
    before, moved, after = (int(word) for word in done.stdout.split())
    allowed = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    known = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 1) if allowed.exists() else False
    if known and "[never]" not in allowed.read_text():
        assert moved > 20_000_000
        assert after >= before + moved * 0.9
    else:
        assert (moved, after) == (0, before)


@pytest.mark.parametrize(
    "elsewhere",
    ["sys.platform = 'darwin'", "hugepages._ALLOWED = Path('/nowhere')", "hugepages._MAPS = Path('/nowhere')"],
)
def test_elsewhere_nothing_happens(elsewhere: str) -> None:
    words = f"import sys\nfrom pathlib import Path\nfrom spiral_core import hugepages\n{elsewhere}"
    subprocess.run([sys.executable, "-c", f"{words}\nassert hugepages.collapse() == 0"], check=True)
