"""Steps, checkpoints and evaluations, values for a later step, and two people who steer at once, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect

from e2e.cockpit import Cockpit, wait_for
from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRequest, Steer, Steered

GAIN, RATE = "zspace.gain", "optim.lr"


class Visitor:
    """A person at a page of their own, with what the page has sent and what the server said to it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[tuple[int, CommandRequest]] = []
        self._given: dict[str, CommandRequest] = {}
        page.on("websocket", self._follow)

    def _follow(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda packet: self._note(packet))
        socket.on("framereceived", lambda packet: self._note(packet))

    def _note(self, packet: bytes | str) -> None:
        assert isinstance(packet, bytes)
        for message in codec.decode_packet(packet):
            if isinstance(message, Steer):
                self._given[message.request.id] = message.request
            elif isinstance(message, Steered):
                self.asked.append((message.status, self._given[message.id]))

    def state(self) -> dict[str, Any]:
        return self.page.evaluate("window.spiral.state()")

    def in_force(self, knob: str) -> Any:
        return next(spec["value"] for spec in self.state()["knobs"] if spec["name"] == knob)

    def records(self, verb: str) -> list[dict[str, Any]]:
        return [one for one in self.state()["commands"] if one["verb"] == verb]

    def type_in(self, knob: str, text: str) -> None:
        """Write into a knob's number field, and do not ask yet."""
        self.page.get_by_test_id(f"knob-{knob}-number").fill(text)

    def enter(self, knob: str) -> None:
        self.page.get_by_test_id(f"knob-{knob}-number").press("Enter")

    def status(self, wanted: str) -> None:
        expect(self.page.get_by_test_id("status")).to_have_attribute("data-status", wanted, timeout=10_000)


def visit(chromium: Browser, demo: Cockpit) -> Visitor:
    page = chromium.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US").new_page()
    visitor = Visitor(page)
    page.goto(demo.page)
    page.wait_for_selector(f'[data-testid="knob-{GAIN}-slider"]', timeout=20_000)
    return visitor


@pytest.fixture
def one(chromium: Browser, demo: Cockpit) -> Iterator[Visitor]:
    visitor = visit(chromium, demo)
    yield visitor
    visitor.page.context.close()


@pytest.fixture
def other(chromium: Browser, demo: Cockpit) -> Iterator[Visitor]:
    visitor = visit(chromium, demo)
    yield visitor
    visitor.page.context.close()


def test_step_runs_so_many_updates_and_pauses_again(one: Visitor, demo: Cockpit) -> None:
    one.page.get_by_test_id("step-count").fill("7")
    one.page.get_by_test_id("btn-step").click()
    one.status("paused")
    record = one.records("step")[-1]
    assert record["steps"] == 7
    done = record["step"] - 1 + 7
    wait_for(lambda: demo.run()["step"] == done, 10, "for the last of the steps")
    expect(one.page.get_by_test_id("journal-row").first).to_contain_text("Step 7")

    one.page.get_by_test_id("step-count").fill("3")
    one.page.get_by_test_id("btn-step").click()
    wait_for(lambda: demo.run()["step"] == done + 3, 10, "for three more")
    one.status("paused")
    one.page.wait_for_timeout(300)
    assert demo.run()["step"] == done + 3


def test_keys_step_save_and_evaluate_but_not_while_a_person_types(one: Visitor, demo: Cockpit) -> None:
    """The run is paused from the test before; a fresh page makes one step at a time."""
    one.status("paused")
    begun = demo.run()["step"]
    for knob in (RATE, GAIN):
        field = one.page.get_by_test_id(f"knob-{knob}-number")
        field.press_sequentially(".ce")
        field.press("Escape")
    one.page.get_by_test_id("step-count").press_sequentially(".")
    one.page.get_by_test_id("step-count").fill("1")
    one.page.locator(".journal h2").click()
    one.page.keyboard.press("Control+c")
    one.page.wait_for_timeout(300)
    assert one.asked == []

    one.page.keyboard.press(".")
    wait_for(lambda: demo.run()["step"] == begun + 1, 10, "for one step")
    one.page.keyboard.press("c")
    one.page.keyboard.press("e")
    for verb in ("checkpoint", "evaluate"):
        wait_for(lambda verb=verb: [record["state"] for record in one.records(verb)] == ["applied"], 10, f"for {verb}")
        expect(one.page.get_by_test_id(f"btn-{verb}")).to_be_enabled(timeout=5000)
    folder = demo.logdir / demo.run()["id"] / "checkpoints"
    wait_for(lambda: any(f"{begun + 1}" in path.name for path in folder.iterdir()), 10, "for the checkpoint's file")


def test_a_step_count_that_is_none_cannot_be_asked_for(one: Visitor) -> None:
    field = one.page.get_by_test_id("step-count")
    step = one.page.get_by_test_id("btn-step")
    for text in ("0", "-2", "1.5", "many", ""):
        field.fill(text)
        expect(step).to_be_disabled()
        expect(step).to_have_attribute("title", "Step takes a whole number from 1 on")
        field.press("Enter")
    field.blur()
    expect(field).to_have_value("1")
    expect(step).to_be_enabled()
    assert one.asked == []


def test_a_value_for_a_later_step_waits_in_the_journal_until_then(one: Visitor, demo: Cockpit) -> None:
    """Asked for while paused, 30 steps ahead: in force from exactly that update on, and the knob is free meanwhile."""
    one.status("paused")
    before = one.in_force(GAIN)
    wanted = demo.run()["step"] + 30
    one.page.get_by_test_id(f"knob-{GAIN}-later-toggle").click()
    one.page.get_by_test_id(f"knob-{GAIN}-later-value").fill("0.77")
    at = one.page.get_by_test_id(f"knob-{GAIN}-later-step")
    at.fill(str(wanted - 30))
    at.press("Enter")
    expect(one.page.get_by_test_id(f"knob-{GAIN}-later-refusal")).to_contain_text("is over; the next one is")
    at.fill(str(wanted))
    one.page.get_by_test_id(f"knob-{GAIN}-later-ask").click()
    expect(one.page.get_by_test_id(f"knob-{GAIN}-later")).to_have_text(f"asked 0.77 at step {wanted}")
    row = one.page.get_by_test_id("journal-row").first
    expect(row).to_contain_text(f"waits for step {wanted}")
    expect(one.page.get_by_test_id(f"knob-{GAIN}")).to_have_attribute("data-state", "settled")
    (asked,) = one.asked
    assert asked[1].at_step == wanted
    assert asked[1].expected_rev is None

    one.page.get_by_test_id("btn-resume").click()
    wait_for(lambda: demo.run()["step"] > wanted + 2, 30)
    record = next(record for record in one.records("set") if record["at_step"] == wanted)
    assert (record["state"], record["step"]) == ("applied", wanted)
    told = demo.series(demo.run()["id"], GAIN.replace(".", "/"))
    assert (told[wanted - 1], told[wanted]) == (before, 0.77)
    expect(one.page.get_by_test_id(f"knob-{GAIN}-later")).to_have_count(0)


def test_a_slider_sends_that_its_values_follow_quickly_and_a_typed_value_stands_for_itself(one: Visitor) -> None:
    slider = one.page.get_by_test_id(f"knob-{GAIN}-slider")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowDown")
    value = float(slider.input_value())
    wait_for(lambda: one.in_force(GAIN) == pytest.approx(value), 10)
    assert len(one.asked) >= 4
    assert all(asked.supersede for _, asked in one.asked)
    assert one.page.get_by_test_id(f"knob-{GAIN}-refusal").count() == 0, "a person is not in their own way"
    one.asked.clear()
    one.type_in(GAIN, "0.5")
    one.enter(GAIN)
    wait_for(lambda: one.in_force(GAIN) == 0.5, 10)
    assert not one.asked[0][1].supersede


def test_somebody_who_steers_another_knob_is_not_in_the_way(one: Visitor, other: Visitor) -> None:
    wait_for(lambda: one.in_force(GAIN) == 0.5, 5)
    one.type_in(GAIN, "0.6")
    other.type_in(RATE, "0.002")
    other.enter(RATE)
    wait_for(lambda: one.in_force(RATE) == 0.002, 10)
    one.enter(GAIN)
    for each in (one, other):
        wait_for(lambda each=each: each.in_force(GAIN) == 0.6, 10)
    assert [status for status, _ in one.asked] == [409, 202]
    assert one.page.get_by_test_id(f"knob-{GAIN}-refusal").count() == 0


def test_somebody_who_steers_the_same_knob_is_named_and_the_person_decides(one: Visitor, other: Visitor) -> None:
    wait_for(lambda: one.in_force(GAIN) == 0.6, 5)
    one.type_in(GAIN, "0.2")
    other.type_in(GAIN, "0.3")
    other.enter(GAIN)
    wait_for(lambda: one.in_force(GAIN) == 0.3, 10)
    one.enter(GAIN)
    refusal = one.page.get_by_test_id(f"knob-{GAIN}-refusal")
    step = next(record["step"] for record in reversed(one.records("set")) if record["state"] == "applied")
    expect(refusal).to_contain_text(
        f"Not set: while you chose 0.2, owner, 127.0.0.1 (page) set it to 0.3 at step {step}."
    )
    one.page.wait_for_timeout(300)
    assert one.in_force(GAIN) == 0.3
    one.page.get_by_test_id(f"knob-{GAIN}-again").click()
    for each in (one, other):
        wait_for(lambda each=each: each.in_force(GAIN) == 0.2, 10)
    expect(refusal).to_have_count(0)
    assert [status for status, _ in one.asked] == [409, 202]


def test_the_journal_is_narrowed_to_refusals_and_copied(one: Visitor) -> None:
    one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    one.type_in(RATE, "100000")
    one.enter(RATE)
    expect(one.page.get_by_test_id(f"knob-{RATE}-refusal")).to_be_visible(timeout=5000)
    rows = one.page.get_by_test_id("journal-row")
    one.page.get_by_test_id("journal-refused").click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("out of bounds")
    one.page.get_by_test_id("journal-copy").click()
    (copied,) = json.loads(one.page.evaluate("navigator.clipboard.readText()"))
    assert (copied["state"], copied["sets"]) == ("rejected", [{"knob": RATE, "value": 100000}])
    one.page.get_by_test_id("journal-changes").click()
    changed = [record for record in one.state()["commands"] if record["state"] == "applied" and record["changes"]]
    expect(rows).to_have_count(len(changed))
    one.page.get_by_test_id("journal-all").click()
    expect(rows).to_have_count(len(one.state()["commands"]))


def test_the_panel_fits_its_column_in_both_languages(one: Visitor) -> None:
    for width in (1600, 390):
        one.page.set_viewport_size({"width": width, "height": 1000})
        for language in ("ja", "en"):
            one.page.get_by_test_id(f"language-{language}").click()
            wider = one.page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('#steer'))")
            assert wider <= 0, f"{language}: the panel is {wider} px wider than its column of a page of {width} px"


def test_nothing_can_be_asked_of_a_run_that_is_over_and_the_page_says_why(one: Visitor, demo: Cockpit) -> None:
    """Last of its file: it ends the demo's run."""
    demo.post(f"/api/runs/{demo.run()['id']}/commands", {"id": "the-end", "verb": "stop"})
    one.status("stopped")
    expect(one.page.get_by_test_id("verb-over")).to_have_text("Nothing can be asked of this run any more: stopped")
    for verb in ("pause", "resume", "stop", "step", "checkpoint", "evaluate"):
        button = one.page.get_by_test_id(f"btn-{verb}")
        expect(button).to_be_disabled()
        expect(button).to_have_attribute("title", "Nothing can be asked of this run any more: stopped")
    one.page.keyboard.press(".")
    one.page.wait_for_timeout(300)
    assert one.asked == []
