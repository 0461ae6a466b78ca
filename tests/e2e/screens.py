"""Take the pictures of docs/screens: the real page on real runs, in each of its moods.

python tests/e2e/screens.py [--to docs/screens] [--only dark refused]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.cockpit import Cockpit, end_engines, finish, open_chromium, start, wait_for

WIDE = {"width": 1600, "height": 1000}
NARROW = {"width": 390, "height": 844}
STORY_STEP = 300
"""The demo is left alone until here, then its gain is turned down, as its story goes."""


def visit(
    browser: Browser, demo: Cockpit, *, scheme: str = "dark", size: dict[str, int] = WIDE, lang: str = "en"
) -> Page:
    """Open the page as a newcomer would, in a fresh profile."""
    context = browser.new_context(viewport=size, color_scheme=scheme, locale="ja-JP" if lang == "ja" else "en-US")
    page = context.new_page()
    page.goto(demo.page)
    page.wait_for_selector('[data-testid="status"]')
    return page


def settled(page: Page) -> Page:
    """Wait until maps and charts are drawn."""
    page.wait_for_selector('[data-testid="heatmap-7"]')
    page.wait_for_timeout(1200)
    return page


def steer(demo: Cockpit, verb: str, **sets: float) -> None:
    """Send a command as a script would."""
    run = demo.run()["id"]
    settings = [{"knob": knob.replace("__", "."), "value": value} for knob, value in sets.items()]
    demo.post(f"/api/runs/{run}/commands", {"id": f"{verb}-{sets}", "verb": verb, "sets": settings})


def shoot(to: Path, name: str, page: Page, *, full: bool = False) -> None:
    """Save one picture and close the visit."""
    page.screenshot(path=str(to / f"{name}.png"), full_page=full)
    page.context.close()
    print(f"  {name}.png", file=sys.stderr)


def refused(browser: Browser, demo: Cockpit) -> Page:
    """Ask for more than a knob allows."""
    page = settled(visit(browser, demo))
    field = page.get_by_test_id("knob-optim.lr-number")
    field.fill("5000")
    field.press("Enter")
    page.wait_for_selector('[data-testid="knob-optim.lr-refusal"]')
    return page


def plotly(browser: Browser, demo: Cockpit) -> Page:
    """Open a chart full size."""
    page = settled(visit(browser, demo))
    page.get_by_test_id("chart-radius-expand").click()
    page.wait_for_selector(".modebar-btn", state="attached")
    page.wait_for_timeout(500)
    return page


def story(browser: Browser, folder: Path, wanted: Callable[[str], bool], to: Path) -> None:
    """One demo, its gain turned down half way, seen from all sides; then paused, then blown up."""
    words = ["--rate", "40", "--checkpoint-every", "150"]
    demo = start(folder / "story", "demo", "--no-open", "--port", "0", *words)
    try:
        wait_for(lambda: demo.run().get("step", 0) >= STORY_STEP, 180)
        steer(demo, "set", zspace__gain=0.2)
        wait_for(lambda: demo.run()["step"] >= 2 * STORY_STEP, 180)
        if wanted("dark"):
            shoot(to, "dark", settled(visit(browser, demo)))
        if wanted("light"):
            shoot(to, "light", settled(visit(browser, demo, scheme="light")))
        if wanted("narrow"):
            shoot(to, "narrow", settled(visit(browser, demo, size=NARROW)), full=True)
        if wanted("japanese"):
            shoot(to, "japanese", settled(visit(browser, demo, lang="ja")))
        if wanted("refused"):
            shoot(to, "refused", refused(browser, demo))
        if wanted("plotly"):
            shoot(to, "plotly", plotly(browser, demo))
        if wanted("paused"):
            steer(demo, "pause")
            shoot(to, "paused", settled(visit(browser, demo)))
            steer(demo, "resume")
        if wanted("nan"):
            steer(demo, "set", optim__lr=10.0, zspace__gain=0.0)
            page = settled(visit(browser, demo))
            page.wait_for_timeout(6000)
            shoot(to, "nan", page)
    finally:
        finish(demo)


def compiling(browser: Browser, folder: Path, to: Path) -> None:
    """A first start: the kernels are not in the cache yet."""
    demo = start(folder / "cold", "demo", "--no-open", "--port", "0", env={"SPIRAL_CACHE_DIR": str(folder / "cache")})
    try:
        page = visit(browser, demo)
        page.wait_for_selector('[data-testid="status"][data-status="compiling"]', timeout=30_000)
        page.wait_for_timeout(1500)
        shoot(to, "compiling", page)
    finally:
        finish(demo)


def motif(browser: Browser, folder: Path, to: Path) -> None:
    """A recurrent network on 1-D signals."""
    demo = start(folder / "motif", "demo", "--no-open", "--port", "0", "--rate", "0", "--data", "motif")
    try:
        wait_for(lambda: demo.run().get("step", 0) >= STORY_STEP, 180)
        shoot(to, "motif", settled(visit(browser, demo)))
    finally:
        finish(demo)


def empty(browser: Browser, folder: Path, to: Path) -> None:
    """A server without runs."""
    server = start(folder / "empty", "serve", "--port", "0")
    try:
        page = visit(browser, server)
        page.wait_for_timeout(500)
        shoot(to, "empty", page)
    finally:
        finish(server)


def many(browser: Browser, folder: Path, wanted: Callable[[str], bool], to: Path) -> None:
    """Two runs that train and one that is finished: the list of them, the comparison, the form for another one."""
    server = start(folder / "many", "serve", "--port", "0")
    try:
        runs = compared_runs(server)
        link = f"{server.page}#run={runs[0]}&compare={','.join(runs)}&metric=train/loss"
        moods: dict[str, dict[str, Any]] = {
            "compare": {},
            "compare-narrow": {"size": NARROW},
        }
        for name, mood in moods.items():
            if wanted(name):
                page = visit(browser, replace(server, page=link), **mood)
                page.wait_for_selector(f'[data-testid="compare-chart"][data-curves="{len(runs)}"]')
                page.wait_for_timeout(1200)
                shoot(to, name, page, full="size" in mood)
        if wanted("runs"):
            page = visit(browser, server)
            page.get_by_test_id("run-picker").click()
            for run in runs[1:]:
                page.get_by_test_id(f"check-{run}").check()
            page.wait_for_timeout(1200)
            shoot(to, "runs", page)
        if wanted("new-run"):
            page = visit(browser, server)
            page.get_by_test_id("run-picker").click()
            page.get_by_test_id("btn-new-run").click()
            page.get_by_test_id("field-lr").fill("-1")
            page.get_by_test_id("btn-start").click()
            page.wait_for_selector("#field-lr-error", timeout=60_000)
            shoot(to, "new-run", page)
    finally:
        finish(server)
        end_engines(server.logdir)


def compared_runs(server: Cockpit) -> list[str]:
    """Start three runs of Fashion-MNIST that differ in one thing each, and wait until there is something to compare."""
    base = {"data": "fashion", "threads": 1, "evaluate_every": 0, "xai_every": 20}

    def begin(name: str, **more: object) -> str:
        return str(server.post("/api/runs", {**base, "name": name, **more})[1]["run"])

    def summary(run: str) -> dict[str, Any]:
        return next((one for one in server.get("/api/runs")["runs"] if one["id"] == run), {"status": "", "step": 0})

    over = begin("gain 1", steps=STORY_STEP, gain=1.0)
    wait_for(lambda: summary(over)["status"] == "finished", 180)
    live = [
        begin("gain 0.2", steps=0, rate=15, gain=0.2),
        begin("lr 0.2", steps=0, rate=15, gain=0.2, lr=0.2),
    ]
    wait_for(lambda: all(summary(run)["step"] > STORY_STEP / 2 for run in live), 180)
    return [*live, over]


def lost(browser: Browser, folder: Path, to: Path) -> None:
    """The server goes away while the page is open."""
    demo = start(folder / "lost", "demo", "--no-open", "--port", "0")
    try:
        wait_for(lambda: demo.run().get("step", 0) >= 60, 120)
        page = settled(visit(browser, demo))
        finish(demo)
        page.wait_for_timeout(1500)
        shoot(to, "lost", page)
    finally:
        finish(demo)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parents[2] / "docs" / "screens")
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)

    def wanted(name: str) -> bool:
        return not options.only or name in options.only

    of_many = ("compare", "compare-narrow", "runs", "new-run")
    in_story = ("dark", "light", "narrow", "japanese", "refused", "plotly", "paused", "nan")
    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        if any(wanted(name) for name in in_story):
            story(browser, Path(folder), wanted, options.to)
        if any(wanted(name) for name in of_many):
            many(browser, Path(folder), wanted, options.to)
        for take in (motif, compiling, empty, lost):
            if wanted(take.__name__):
                take(browser, Path(folder), options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
