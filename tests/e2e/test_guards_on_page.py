"""A rate of a thousand, set by hand in a real browser: alarm, rollback, cut rate and recovery, all on the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, finish, start, wait_for

CHARTS = ("loss", "accuracy", "learning_rate", "radius", "jacobian", "gradient_norm")
RECOVERY_STEPS = 60
"""The last good weights are at most 30 steps old, and the rate is half of what it was."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    """``spiral demo`` with ``z_cnn`` on the real images, without an end."""
    cockpit = start(tmp_path_factory.mktemp("guards") / "runs", "demo", "--no-open", "--port", "0", "--data", "fashion")
    wait_for(lambda: cockpit.run().get("step", 0) > 60, 120, "for the first steps")
    yield cockpit
    finish(cockpit)


@pytest.fixture
def page(chromium: Browser, images: Cockpit) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.goto(images.page)
    page.wait_for_selector('[data-testid="knob-optim.lr-number"]', timeout=20_000)
    yield page
    context.close()


def entries(page: Page, verb: str) -> list[dict[str, Any]]:
    told = page.evaluate("window.spiral.state().commands")
    return [one for one in told if one["source"] == "guard" and one["verb"] == verb]


def alarms(page: Page, chart: str) -> int:
    return int(page.get_by_test_id(f"chart-{chart}").get_attribute("data-alarms") or 0)


def test_a_rate_of_a_thousand_is_alarmed_rolled_back_and_cut_and_training_recovers(page: Page, images: Cockpit) -> None:
    run = images.run()["id"]
    assert entries(page, "rollback") == []
    assert alarms(page, "loss") == 0
    field = page.get_by_test_id("knob-optim.lr-number")
    field.fill("1000")
    field.press("Enter")

    (back,) = wait_for(lambda: entries(page, "rollback"), 20, "for the rollback")
    (cut,) = back["changes"]
    assert cut["knob"] == "optim.lr"
    assert cut["old"] == 1000
    assert cut["in_force"] == pytest.approx(0.015)
    assert back["number"] < 0
    assert "train.loss_over_chance" in back["reason"]
    row = page.locator('[data-testid="journal-row"][data-source="guard"]').filter(has_text="Roll back")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("back to the weights of step")
    expect(row).to_contain_text("Learning rate 1,000 → 0.015")
    expect(page.locator('[data-testid="journal-row"][data-source="guard"]').filter(has_text="Alarm")).to_have_count(1)
    expect(page.get_by_test_id("banner-notice")).to_contain_text("guard explosion: train.loss_over_chance")
    for chart in CHARTS:
        wait_for(lambda chart=chart: alarms(page, chart) >= 2, 5, f"for the alarms on {chart}")
    expect(page.get_by_test_id("knob-optim.lr-inforce")).to_contain_text("0.015")

    (steered,) = [one for one in page.evaluate("window.spiral.state().commands") if one["verb"] == "set"]
    since = steered["step"]
    assert back["step"] == since + 2
    wait_for(lambda: images.run()["step"] > since + RECOVERY_STEPS, 30)
    losses, rates = images.series(run, "train/loss"), images.series(run, "optim/learning_rate")
    assert losses[since + 1] > 1000
    assert (rates[since - 1], rates[since], rates[since + 2]) == (0.03, 1000, pytest.approx(0.015))
    before = sum(losses[step] for step in range(since - 10, since)) / 10
    after = sum(losses[step] for step in range(since + RECOVERY_STEPS - 10, since + RECOVERY_STEPS)) / 10
    assert after < before
    assert sorted(losses) == list(range(1, max(losses) + 1)), "each step has its frame"

    page.reload()
    for chart in CHARTS:
        wait_for(lambda chart=chart: alarms(page, chart) >= 2, 10, f"for the alarms on {chart} after a reload")


def test_a_rule_is_turned_off_and_its_limit_set_from_the_page(page: Page, images: Cockpit) -> None:
    page.get_by_test_id("group-guards").locator("summary").click()
    rule = page.get_by_test_id("rule-spike")
    expect(rule).to_have_text("spike: when train.loss > 4 x its median of 50 mark, rest 50")
    page.get_by_test_id("knob-guard.spike.on-switch").click()
    expect(rule).to_have_text("spike: off when train.loss > 4 x its median of 50 mark, rest 50", timeout=5000)
    limit = page.get_by_test_id("knob-guard.saturated-number")
    limit.fill("0.75")
    limit.press("Enter")
    expect(page.get_by_test_id("rule-saturated")).to_contain_text("zspace.*.saturation > 0.75 for 5", timeout=5000)
    told = images.get(f"/api/runs/{images.run()['id']}/knobs")["knobs"]
    assert {knob["name"]: knob["value"] for knob in told}["guard.spike.on"] is False


def test_people_cannot_say_what_guards_say(images: Cockpit) -> None:
    body = {"id": "by-hand", "verb": "rollback", "sets": []}
    status, told = images.post(f"/api/runs/{images.run()['id']}/commands", body)
    assert status >= 400
    assert "rollback is for the guards of a run" in str(told)
