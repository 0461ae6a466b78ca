"""Many runs on the page: found, compared, started, stopped and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, end_engines, finish, start, wait_for
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role

SECONDS = 60.0
SOON = SECONDS * 1e3
ENDLESS: dict[str, Any] = {"data": "digits", "steps": 0, "rate": 20, "threads": 1, "evaluate_every": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    cockpit = start(tmp_path_factory.mktemp("many") / "runs", "serve", "--port", "0")
    yield cockpit
    finish(cockpit)
    end_engines(cockpit.logdir)


@pytest.fixture(scope="module")
def trio(server: Cockpit) -> list[str]:
    """Two runs that train and one that is finished; they differ in their seeds."""
    asked = [{**ENDLESS, "seed": seed, "name": f"seed {seed}"} for seed in (1, 2, 3)]
    asked[2] |= {"steps": 30, "rate": 0}
    begun = [server.post("/api/runs", one) for one in asked]
    assert [status for status, _ in begun] == [201] * 3
    runs = [told["run"] for _, told in begun]

    def there() -> bool:
        known = {one["id"]: one for one in server.get("/api/runs")["runs"]}
        return (
            len(known) == 3 and known[runs[2]]["status"] == "finished" and all(known[run]["step"] > 5 for run in runs)
        )

    wait_for(there, SECONDS)
    return runs


def opened(chromium: Browser, address: str, **options: Any) -> Page:
    page = chromium.new_context(**{"viewport": {"width": 1600, "height": 1000}, **options}).new_page()
    page.goto(address)
    return page


def in_address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).fragment)


def value(page: Page, run: str) -> str:
    return page.get_by_test_id(f"value-{run}").inner_text()


def test_a_server_without_runs_offers_to_start_one_to_those_who_may(server: Cockpit, chromium: Browser) -> None:
    watching, _ = tokens.make(server.logdir, Role.VIEWER, None)
    page = opened(chromium, server.page)
    page.get_by_test_id("btn-first-run").click()
    expect(page.get_by_test_id("field-data")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("new-run")).to_have_count(0)
    page.context.close()
    page = opened(chromium, f"{server.url}/?token={watching}")
    page.get_by_test_id("run-picker").click()
    expect(page.get_by_test_id("btn-new-run")).to_be_disabled()
    expect(page.get_by_test_id("btn-first-run")).to_have_count(0)
    page.context.close()


def test_runs_are_found_compared_and_steered_and_a_link_shows_the_same(
    server: Cockpit, trio: list[str], chromium: Browser
) -> None:
    first, second, finished = trio
    page = opened(chromium, server.page)
    page.get_by_test_id("run-picker").click()
    search = page.get_by_test_id("runs-search")
    expect(search).to_be_focused()
    expect(page.get_by_test_id(f"run-{first}")).to_have_attribute("data-status", "training")
    expect(page.get_by_test_id(f"run-{first}")).to_contain_text("local")
    search.fill("seed 2")
    expect(page.get_by_test_id(f"run-{first}")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(lambda: page.evaluate("window.spiral.state().run") == second)
    page.get_by_test_id("run-picker").click()
    page.get_by_test_id("runs-search").fill("")
    expect(page.get_by_test_id(f"run-{finished}")).to_have_attribute("data-status", "finished")
    for run in trio:
        page.get_by_test_id(f"check-{run}").check()
    page.get_by_test_id("btn-compare").click()

    chart = page.get_by_test_id("compare-chart")
    expect(chart).to_have_attribute("data-curves", "3", timeout=SOON)
    assert in_address(page)["compare"] == [",".join(trio)]
    before = {run: value(page, run) for run in trio}
    assert len(set(before.values())) == 3
    last = server.series(finished, "train/loss")[30]
    assert abs(float(before[finished]) - last) <= 1e-3 * last
    wait_for(lambda: all(value(page, run) != before[run] for run in (first, second)), SECONDS)
    assert value(page, finished) == before[finished]
    colors = page.locator(".compare-table .swatch").evaluate_all("all => all.map(one => one.style.cssText)")
    assert len(set(colors)) == 3

    assert server.post(f"/api/runs/{second}/commands", {"id": "s1", "verb": "set", "sets": [
        {"knob": "optim.lr", "value": 0.001}]})[0] == 202  # fmt: skip
    expect(chart).to_have_attribute("data-markers", "1", timeout=SOON)
    page.get_by_test_id("axis-time").click()
    expect(chart).to_have_attribute("data-curves", "3", timeout=SOON)
    expect(page.locator(".compare-table thead")).to_contain_text("Time")
    page.get_by_test_id("compare-metric").select_option("train/accuracy")
    # The values under the pointer are those of the run's own log, at one time of all: here at the beginning of each.
    expect(chart).to_have_attribute("data-curves", "3", timeout=SOON)
    chart.locator(".u-over").hover(position={"x": 0, "y": 100})
    for run in trio:
        begun = server.series(run, "train/accuracy")[1]
        wait_for(lambda run=run, begun=begun: abs(float(value(page, run)) - begun) < 1e-3, SECONDS)

    again = opened(chromium, f"{server.page}#{urlsplit(page.url).fragment}")
    expect(again.get_by_test_id("compare-chart")).to_have_attribute("data-curves", "3", timeout=SOON)
    expect(again.get_by_test_id("compare-metric")).to_have_value("train/accuracy")
    expect(again.get_by_test_id("axis-time")).to_have_attribute("aria-pressed", "true")
    again.context.close()
    page.get_by_test_id("btn-compare-close").click()
    expect(page.get_by_test_id("chart-loss")).to_be_visible()
    assert "compare" not in in_address(page)
    page.context.close()


def test_a_run_is_started_by_a_form_stopped_and_resumed(server: Cockpit, chromium: Browser) -> None:
    page = opened(chromium, server.page)
    page.get_by_test_id("run-picker").click()
    page.get_by_test_id("btn-new-run").click()
    page.get_by_test_id("field-data").select_option("digits")
    page.get_by_test_id("field-lr").fill("-1")
    page.get_by_test_id("field-name").fill("from the form")
    page.get_by_test_id("btn-start").click()
    wrong = page.locator("#field-lr-error")
    expect(wrong).to_contain_text("a finite number above 0", timeout=SOON)
    expect(page.get_by_test_id("field-lr")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_test_id("field-lr")).to_be_focused()
    page.get_by_test_id("field-lr").fill("0.01")
    page.get_by_test_id("field-steps").fill("0")
    page.get_by_test_id("btn-start").click()
    expect(page.get_by_test_id("new-run")).to_have_count(0, timeout=SOON)
    expect(page.get_by_test_id("run-picker")).to_contain_text("from the form", timeout=SOON)
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "training", timeout=SOON)
    run = page.evaluate("window.spiral.state().run")
    knobs = {knob["name"]: knob["value"] for knob in server.get(f"/api/runs/{run}/knobs")["knobs"]}
    assert knobs["optim.lr"] == 0.01

    page.get_by_test_id("run-picker").click()
    stop = page.get_by_test_id(f"stop-{run}")
    stop.click()
    expect(stop).to_contain_text("Really stop?")
    stop.click()
    resume = page.get_by_test_id(f"resume-{run}")
    expect(resume).to_be_visible(timeout=SOON)
    resume.click()
    expect(page.get_by_test_id(f"run-{run}")).to_have_attribute("data-status", "training", timeout=SOON)
    page.context.close()


def test_a_viewer_watches_and_compares_and_starts_nothing(server: Cockpit, trio: list[str], chromium: Browser) -> None:
    token, _ = tokens.make(server.logdir, Role.VIEWER, None)
    page = opened(chromium, f"{server.url}/?token={token}", viewport={"width": 400, "height": 900}, locale="ja-JP")
    page.get_by_test_id("run-picker").click()
    expect(page.get_by_test_id("btn-new-run")).to_be_disabled()
    page.get_by_test_id(f"check-{trio[0]}").check()
    expect(page.get_by_test_id(f"stop-{trio[0]}")).to_have_count(0)
    box = page.get_by_test_id("runs").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400
    page.get_by_test_id("btn-compare").click()
    expect(page.get_by_test_id("compare-chart")).to_have_attribute("data-curves", "1", timeout=SOON)
    page.context.close()
