"""Fixtures of the tests that drive a real browser against real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from e2e.cockpit import Cockpit, finish, open_chromium, start, wait_for


# Per module and not per session: playwright keeps an event loop running, and other tests run one of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    """``spiral demo`` on needle, with what is needed to check it from outside."""
    cockpit = start(tmp_path_factory.mktemp("demo") / "runs", "demo", "--no-open", "--port", "0", "--dump-every", "10")
    wait_for(lambda: cockpit.run().get("step", 0) > 5, 90, "for the first steps")
    yield cockpit
    finish(cockpit)


@pytest.fixture
def page(chromium: Browser, demo: Cockpit) -> Iterator[Page]:
    """A fresh browser on the demo's page, with every request and error noted."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.goto(demo.page)
    page.wait_for_selector('[data-testid="heatmap-7"]', timeout=20_000)
    yield page
    context.close()
