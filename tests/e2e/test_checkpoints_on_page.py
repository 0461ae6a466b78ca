"""Checkpoints on the page: where they lie in time, and how to go on from one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, finish, start, wait_for


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    """A demo that keeps its last three checkpoints, and waits after step 100."""
    words = ["--data", "digits", "--rate", "0", "--checkpoint-every", "20", "--keep", "3", "--start-paused"]
    cockpit = start(tmp_path_factory.mktemp("kept") / "runs", "demo", "--no-open", "--port", "0", *words)
    wait_for(lambda: cockpit.run().get("status") == "paused", 90)
    command(cockpit, "step", steps=100)
    wait_for(lambda: cockpit.run()["step"] == 100 and cockpit.run()["status"] == "paused", 60)
    yield cockpit
    finish(cockpit)


def command(cockpit: Cockpit, verb: str, **more: int) -> None:
    run = cockpit.run()["id"]
    count = len(cockpit.get(f"/api/runs/{run}/commands")["commands"])
    status, told = cockpit.post(f"/api/runs/{run}/commands", {"id": f"{verb}-{count}", "verb": verb, **more})
    assert status == 202, told


def visit(chromium: Browser, kept: Cockpit, locale: str = "en-US") -> Page:
    page = chromium.new_context(viewport={"width": 1600, "height": 1000}, locale=locale).new_page()
    page.goto(kept.page)
    page.wait_for_selector('[data-testid="timeline"]')
    return page


def marks(page: Page) -> list[str]:
    found = page.locator('[data-testid^="checkpoint-"]').evaluate_all("all => all.map(one => one.dataset.testid)")
    return [str(name) for name in found]


def test_checkpoints_are_drawn_named_and_lead_to_the_command_that_goes_on(chromium: Browser, kept: Cockpit) -> None:
    page = visit(chromium, kept)
    run = kept.run()["id"]
    assert marks(page) == ["checkpoint-60", "checkpoint-80", "checkpoint-100"]
    page.get_by_test_id("checkpoint-80").hover()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("Checkpoint after step 80: taken on time.")
    expect(tip.locator("code")).to_have_text(f"spiral train --resume {run}@80")
    page.get_by_test_id("checkpoint-80").click()
    expect(tip).to_contain_text("copied")
    box, bar = tip.bounding_box(), page.get_by_test_id("timeline").bounding_box()
    assert box is not None
    assert bar is not None
    assert bar["x"] <= box["x"]
    assert box["x"] + box["width"] <= bar["x"] + bar["width"] + 1

    # One that is asked for while the page is open takes the place of that of the same step.
    command(kept, "checkpoint")
    mark = page.get_by_test_id("checkpoint-100")
    expect(mark).to_have_attribute("data-reason", "asked", timeout=10_000)
    # The next one lets the oldest go.
    command(kept, "step", steps=20)
    page.wait_for_selector('[data-testid="checkpoint-120"]', state="attached")
    wait_for(lambda: marks(page) == ["checkpoint-80", "checkpoint-100", "checkpoint-120"], 10)
    page.context.close()

    japanese = visit(chromium, kept, "ja-JP")
    japanese.get_by_test_id("checkpoint-120").focus()
    expect(japanese.get_by_role("tooltip")).to_contain_text("ステップ 120 の後のチェックポイント: 定期保存。")
    japanese.context.close()


def test_a_second_evaluation_of_a_step_replaces_the_first_on_an_open_page(chromium: Browser, kept: Cockpit) -> None:
    page = visit(chromium, kept)
    step = kept.run()["step"]

    def loss() -> list[list[float]]:
        points = page.evaluate("name => window.spiral.series(name)", "val/loss")
        return [[at, value] for at, value in zip(points["steps"], points["values"], strict=True) if at == step]

    command(kept, "evaluate")
    (first,) = wait_for(loss, 10)
    run = kept.run()["id"]
    # Other weights at the same step: a rate cannot move them, but a gain changes what they give.
    status, told = kept.post(
        f"/api/runs/{run}/commands",
        {"id": f"gain-{step}", "verb": "set", "sets": [{"knob": "zspace.gain", "value": 1.0}]},
    )
    assert status == 202, told
    command(kept, "evaluate")
    (second,) = wait_for(lambda: [one for one in loss() if one != first], 10)
    assert second[0] == step
    assert len(loss()) == 1
    page.context.close()
