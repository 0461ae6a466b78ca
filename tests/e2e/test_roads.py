"""The page behind proxies that refuse websockets, swallow them, or keep streams back; and through a cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, wait_for
from e2e.proxy import Proxy, proxying

HIDE = """hidden => {
  Object.defineProperty(document, 'visibilityState', {value: hidden ? 'hidden' : 'visible', configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def state(page: Page) -> dict[str, Any]:
    return page.evaluate("window.spiral.state()")


def steps(page: Page) -> list[int]:
    return [frame["step"] for frame in page.evaluate("window.spiral.frames(10000)")]


@contextmanager
def opened(chromium: Browser, demo: Cockpit, way: Proxy) -> Iterator[Page]:
    """Open the demo's page through a proxy."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{way.port}/?token={demo.token}")
    page.wait_for_selector("#page > *", timeout=20_000)
    try:
        yield page
    finally:
        context.close()


def port_of(demo: Cockpit) -> int:
    return int(demo.url.rsplit(":", 1)[1])


@pytest.mark.parametrize(
    ("streams", "road", "shown", "ending"),
    [("pass", "events", "SSE", "events"), ("refuse", "polling", "HTTP", "poll")],
)
def test_where_websockets_do_not_get_through_the_page_goes_another_way_and_steers_all_the_same(
    chromium: Browser, demo: Cockpit, streams: Any, road: str, shown: str, ending: str
) -> None:
    with proxying(port_of(demo), websockets="refuse", streams=streams) as way, opened(chromium, demo, way) as page:
        link = page.get_by_test_id("connection")
        expect(link).to_have_attribute("data-road", road, timeout=40_000)
        expect(link).to_contain_text(shown)
        page.wait_for_selector('[data-testid="heatmap-7"]', timeout=20_000)
        first = state(page)["step"]
        wait_for(lambda: state(page)["step"] > first + 10, 20, "for frames")
        got = [step for step in steps(page) if step > first]
        assert got == list(range(got[0], got[0] + len(got)))
        page.get_by_test_id("btn-pause").click()
        expect(page.get_by_test_id("status")).to_have_attribute("data-status", "paused", timeout=20_000)
        page.get_by_test_id("btn-resume").click()
        expect(page.get_by_test_id("status")).to_have_attribute("data-status", "training", timeout=20_000)
        assert any(path.startswith("/http/view/") and path.endswith(f"/{ending}") for path in way.paths)


@pytest.mark.parametrize("websockets", ["pass", "refuse"])
def test_after_a_short_cut_the_page_has_every_frame_and_no_second_snapshot(
    chromium: Browser, demo: Cockpit, websockets: Any
) -> None:
    with proxying(port_of(demo), websockets=websockets) as way, opened(chromium, demo, way) as page:
        wait_for(lambda: len(steps(page)) > 10, 40, "for frames")
        begin = steps(page)[0]
        way.cut()
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open", timeout=20_000)
        here = state(page)["step"]
        wait_for(lambda: state(page)["step"] > here + 10, 20, "for frames after the cut")
        # A snapshot would have begun a new list of frames.
        got = steps(page)
        assert got == list(range(begin, begin + len(got)))


def test_a_hidden_page_is_spared_the_frames_and_has_them_when_it_is_seen_again(
    chromium: Browser, demo: Cockpit
) -> None:
    with proxying(port_of(demo)) as way, opened(chromium, demo, way) as page:
        wait_for(lambda: len(steps(page)) > 5, 40, "for frames")
        page.evaluate(HIDE, True)
        step = demo.run()["step"]
        wait_for(lambda: demo.run()["step"] > step + 5, 20)
        hidden_at = state(page)["step"]
        step = demo.run()["step"]
        wait_for(lambda: demo.run()["step"] > step + 10, 20)
        assert state(page)["step"] == hidden_at
        page.evaluate(HIDE, False)
        wait_for(lambda: state(page)["step"] > step + 10, 20, "for what was missed")
        got = steps(page)
        assert got == list(range(got[0], got[0] + len(got)))
