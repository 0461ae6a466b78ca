"""How long a start takes: until the page answers, and until the first frame is on it, cold and warm.

    python tests/benchmarks/startup.py [--warm 5]

Three budgets, each from the moment that the process is started:

- the page answers within 3 s of the server's start;
- with server and browser up, the first frame of a run is on the page within 30 s when no kernel is compiled yet;
- and within 3 s when they are in the cache.

As a calibration of the machine, the same run times a bare ``python -c pass`` and ``python -c "import numpy, numba"``.
Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.cockpit import Cockpit, finish, open_chromium, start, wait_for

PAGE_SECONDS = 3.0
COLD_SECONDS = 30.0
WARM_SECONDS = 3.0


def seconds_of(*words: str) -> float:
    """Time a bare process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True)
    return time.perf_counter() - begun


def until_page(folder: Path) -> float:
    """Start ``spiral demo`` and ask for the page until it answers."""
    begun = time.perf_counter()
    demo = start(folder, "demo", "--no-open", "--port", "0")
    try:
        with urllib.request.urlopen(demo.page, timeout=10) as answer:
            assert b"<html" in answer.read()
        return time.perf_counter() - begun
    finally:
        finish(demo)


def until_first_frame(server: Cockpit, page: Page, cache: Path) -> float:
    """Start an engine for a server and a browser that are up; wait for its first frame on the page."""
    env = {**os.environ, "SPIRAL_CACHE_DIR": str(cache), "SPIRAL_TOKEN": server.token}
    words = ["train", "--quiet", "--data", "needle", "--rate", "20", "--server", server.url, "--logdir"]
    seen = page.evaluate("window.spiral.state().run ?? ''")
    begun = time.perf_counter()
    engine = subprocess.Popen([sys.executable, "-m", "spiral_server.cli", *words, str(server.logdir)], env=env)
    try:
        page.wait_for_function(
            "seen => { const now = window.spiral.state(); return now.run && now.run !== seen && now.step > 0; }",
            arg=seen,
            timeout=120_000,
            polling=20,
        )
        return time.perf_counter() - begun
    finally:
        engine.terminate()
        engine.wait(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, default=5, help="warm starts to time")
    options = parser.parse_args()
    bare = statistics.median(seconds_of("-c", "pass") for _ in range(5))
    heavy = statistics.median(seconds_of("-c", "import numpy, numba") for _ in range(3))
    print(f"calibration: python -c pass takes {bare:.3f} s, importing numpy and numba {heavy:.2f} s")
    with tempfile.TemporaryDirectory() as name, open_chromium() as browser:
        folder = Path(name)
        pages = [until_page(folder / f"page{count}") for count in range(options.warm)]
        server = start(folder / "runs", "serve", "--port", "0")
        try:
            page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
            page.goto(server.page)
            wait_for(lambda: page.evaluate("Boolean(window.spiral)"), 10)
            cold = until_first_frame(server, page, folder / "cache")
            warm = [until_first_frame(server, page, folder / "cache") for _ in range(options.warm)]
        finally:
            finish(server)
    rows = [
        ("page answers after the demo's start", pages, PAGE_SECONDS),
        ("first frame on the page, cold", [cold], COLD_SECONDS),
        ("first frame on the page, warm", warm, WARM_SECONDS),
    ]
    kept = True
    for what, values, budget in rows:
        median = statistics.median(values)
        kept &= median <= budget
        spread = f" ({min(values):.2f} to {max(values):.2f}, {len(values)} starts)" if len(values) > 1 else ""
        print(f"{what}: {median:.2f} s{spread}; budget {budget:.0f} s: {'kept' if median <= budget else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
