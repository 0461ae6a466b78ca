"""How long a run of 1,000,000 steps takes to open in the browser, in how many bytes, and whether it hides a spike.

    python tests/benchmarks/open_run.py [--steps 1000000] [--opens 5]

The store is filled with a run of 8 series of noise; one of them has 100 spikes that last one step each. A server serves
it, and a Chromium that is up and has seen the page once opens it:

- *open*: from the navigation (the browser's own time origin) to the end of the animation frame in which the loss chart
  was drawn up to the last step. Budget 0.5 s, in the median.
- *bytes*: what the websocket brings until then, as the browser's own network log counts it. Budget 300 KB.
- *spikes*: the loss chart is zoomed in by dragging, from the whole run down to some thousand steps. At each zoom the
  canvas is read back: in each pixel column that holds a spike, the curve must reach its height. Budget: all of them.

As a calibration of the machine, the same run times the server's part alone (reading and packing the snapshot), and the
page on an empty server. TensorBoard and trackio keep 0 of 100 such spikes, because they sample.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._runs import Serving, entries_of, serving
from e2e.cockpit import open_chromium
from spiral_server.live.snapshot import encoded, snapshot_of
from spiral_server.store.protocol import SeriesQuery
from spiral_server.store.rebuild import view_of
from spiral_server.store.sqlite_store import SqliteStore

SECONDS = 0.5
BYTES = 300_000
SERIES = 8
SPIKES = 100
HEIGHT = 100.0
BATCH = 4096
ZOOMS = 6
TOLERANCE = 2
"""Pixels: a line is 1.5 wide, and its end is rounded to a pixel in either direction."""

# The topmost pixel of each column of the plotting area that is not of the background, and where the plotting area lies.
PROFILE = """card => {
  const canvas = card.querySelector('canvas'), over = card.querySelector('.u-over');
  const a = canvas.getBoundingClientRect(), b = over.getBoundingClientRect();
  const ratio = canvas.width / a.width;
  const left = Math.round((b.left - a.left) * ratio), top = Math.round((b.top - a.top) * ratio);
  const width = Math.round(b.width * ratio), height = Math.round(b.height * ratio);
  const data = canvas.getContext('2d').getImageData(left, top, width, height).data;
  // A curve has a saturated color; grid and letters are gray.
  const curve = at => data[at + 3] > 90 && Math.max(data[at], data[at + 1], data[at + 2])
    - Math.min(data[at], data[at + 1], data[at + 2]) > 60;
  const tops = [];
  for (let x = 0; x < width; x++) {
    let y = 0;
    while (y < height && !curve((y * width + x) * 4)) y++;
    tops.push(y);
  }
  return {tops, width, height};
}"""


def fill(logdir: Path, steps: int) -> np.ndarray:
    """Store the run; give the steps of the spikes."""
    random = np.random.default_rng(4)
    values = random.normal(size=(steps, SERIES))
    spikes = np.sort(random.choice(np.arange(2, steps), SPIKES, replace=False))
    values[spikes - 1, 0] = HEIGHT
    store = SqliteStore(logdir)
    waiting = None
    batch = []
    for entry in entries_of("bench", values):
        batch.append(entry)
        if len(batch) == BATCH:
            waiting, batch = store.append("bench", batch), []
            waiting.result()
    store.append("bench", batch).result()
    store.note(view_of("bench", store.history("bench")).summary)
    store.close()
    return spikes


def time_server(logdir: Path) -> tuple[float, int]:
    """Time the reading and packing of a snapshot; give seconds and bytes."""
    store = SqliteStore(logdir)
    found = []
    for _ in range(5):
        view = view_of("bench", store.history("bench"))
        begun = time.perf_counter()
        data = encoded(snapshot_of(view, "", 0)[0], store.series("bench", SeriesQuery(None, None, None, 2000)).columns)
        found.append(time.perf_counter() - begun)
    store.close()
    return statistics.median(found), len(data)


def opened(browser: Browser, server: Serving, context: Any, last: int) -> tuple[Page, float, int]:
    """Open the run in a new page; give it with the seconds until it was drawn and the bytes of the websocket."""
    page = context.new_page()
    received = [0]

    def listen(socket: Any) -> None:
        socket.on("framereceived", lambda data: received.__setitem__(0, received[0] + len(data)))

    page.on("websocket", listen)
    page.goto(f"{server.url}/?token={server.token}", wait_until="commit")
    page.wait_for_function(
        "last => window.spiral?.paints()['loss']?.step === last", arg=last, timeout=60_000, polling=20
    )
    seconds = page.evaluate("(window.spiral.paints()['loss'].time - performance.timeOrigin) / 1e3")
    return page, seconds, received[0]


def missed_at(profile: dict[str, Any], spikes: np.ndarray, low: float, high: float) -> int:
    """Count the spikes in view whose pixel column does not reach the height of the highest one."""
    tops, width = profile["tops"], profile["width"]
    inside = spikes[(spikes > low) & (spikes < high)]
    best = min(tops)
    # A chart without its spikes fits its axis to the noise, whose columns then fill it: no column would be lower than
    # another. With a spike of 100 in view, noise of 5 stays in the lowest part.
    if best > 0.15 * profile["height"] or statistics.median(tops) < 0.7 * profile["height"]:
        return len(inside)
    missed = 0
    for spike in inside:
        column = (spike - low) / (high - low) * width
        around = range(max(0, int(column) - TOLERANCE), min(width, int(column) + TOLERANCE + 1))
        missed += min((tops[x] for x in around), default=profile["height"]) > best + TOLERANCE
    return missed


def hidden_spikes(page: Page, spikes: np.ndarray, steps: int) -> list[tuple[int, int]]:
    """Zoom in step by step; give for each zoom how many spikes are in view, and how many of them are hidden."""
    card = page.locator('[data-testid="chart-loss"]')
    low, high = 1.0, float(steps)
    found = []
    for _ in range(ZOOMS):

        def profile() -> dict[str, Any]:
            told: dict[str, Any] = card.evaluate(PROFILE)
            return told

        def shown(low: float = low, high: float = high) -> bool:
            return missed_at(profile(), spikes, low, high) == 0

        deadline = time.monotonic() + 4
        while not shown() and time.monotonic() < deadline:
            page.wait_for_timeout(100)
        inside = int(np.sum((spikes > low) & (spikes < high)))
        found.append((inside, missed_at(profile(), spikes, low, high)))
        box = card.locator(".u-over").bounding_box()
        assert box is not None
        # Around the spike nearest to the middle, so that there is always one in view.
        middle = spikes[np.argmin(np.abs(spikes - (low + high) / 2))]
        center = (middle - low) / (high - low) * box["width"]
        begin = round(min(max(center - box["width"] / 6, 2), box["width"] * 2 / 3 - 2))
        end = begin + round(box["width"] / 3)
        page.mouse.move(box["x"] + begin, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + end, box["y"] + 24, steps=4)
        page.mouse.up()
        span = high - low
        low, high = low + span * begin / box["width"], low + span * end / box["width"]
        page.mouse.move(5, 5)
        page.wait_for_timeout(700)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--opens", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_chromium() as browser:
        folder = Path(name)
        spikes = fill(folder / "runs", options.steps)
        seconds, size = time_server(folder / "runs")
        print(f"calibration: the server's part takes {seconds * 1e3:.0f} ms and packs {size / 1e3:.0f} KB")
        with serving(folder / "runs") as server:
            context = browser.new_context(viewport={"width": 1600, "height": 1000})
            opened(browser, server, context, options.steps)[0].close()
            found = []
            for _ in range(options.opens):
                page, *told = opened(browser, server, context, options.steps)
                found.append(told)
                if len(found) < options.opens:
                    page.close()
            zooms = hidden_spikes(page, spikes, options.steps)
    return report([one[0] for one in found], max(one[1] for one in found), zooms)


def report(seconds: list[float], size: int, zooms: list[tuple[int, int]]) -> int:
    median = statistics.median(seconds)
    quick, small = median <= SECONDS, size <= BYTES
    whole = all(hidden == 0 for _, hidden in zooms)
    every = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"open: {median:.2f} s (of {every}); budget {SECONDS} s: {'kept' if quick else 'MISSED'}")
    print(f"bytes: {size / 1e3:.0f} KB; budget {BYTES / 1e3:.0f} KB: {'kept' if small else 'MISSED'}")
    told = ", ".join(f"{inside - hidden} of {inside}" for inside, hidden in zooms)
    print(f"spikes shown at each zoom: {told}; budget all of them: {'kept' if whole else 'MISSED'}")
    return 0 if quick and small and whole else 1


if __name__ == "__main__":
    sys.exit(main())
