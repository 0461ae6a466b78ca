"""The main job in a real browser: watch a run, steer it, and see what it did."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, wait_for
from oracles.network_twin import cam_maps

MARKED = ("loss", "accuracy", "learning_rate", "radius", "jacobian", "gradient_norm", "pointing")
"""The charts of which each must carry a marker at each steer."""


def state(page: Page) -> dict[str, Any]:
    return page.evaluate("window.spiral.state()")


def in_force(page: Page, knob: str) -> Any:
    return next(spec["value"] for spec in state(page)["knobs"] if spec["name"] == knob)


def applied(page: Page, knob: str, value: float) -> dict[str, Any] | None:
    """Find the journal's record of a value that came into force."""
    for record in reversed(state(page)["commands"]):
        for change in record["changes"]:
            if record["state"] == "applied" and change["knob"] == knob and change["in_force"] == pytest.approx(value):
                return record
    return None


def unfold(page: Page, group: str) -> None:
    page.get_by_test_id(f"group-{group}").locator("summary").click()


def markers(page: Page, chart: str) -> int:
    return int(page.get_by_test_id(f"chart-{chart}").get_attribute("data-markers") or 0)


def drag_slider(page: Page, knob: str, shown: str, target: float) -> None:
    """Drag a linear 0..1 slider with the mouse until its number shows the target, then let go."""
    slider = page.get_by_test_id(f"knob-{knob}-slider")
    box = slider.bounding_box()
    assert box is not None
    value = float(slider.input_value())
    middle = box["y"] + box["height"] / 2
    # A range input keeps half a thumb at either end; a few tries home in on the value, whatever the thumb's width.
    margin = 8.0

    def place(wanted: float) -> float:
        return box["x"] + margin + (box["width"] - 2 * margin) * wanted

    page.mouse.move(place(value), middle)
    page.mouse.down()
    wanted = target
    for _ in range(12):
        page.mouse.move(place(wanted), middle)
        got = float(slider.input_value())
        if f"{got:.2f}" == shown:
            break
        wanted += target - got
    page.mouse.up()
    assert f"{got:.2f}" == shown


def dump_at(demo: Cockpit, run: str, step: int) -> dict[str, np.ndarray]:
    path = demo.logdir / run / "dumps" / f"step-{step:08d}.npz"
    wait_for(path.exists, 20, f"for the dump of step {step}")

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_the_gain_slider_steers_the_run_and_every_number_agrees(page: Page, demo: Cockpit) -> None:
    """Gain 1.0 -> 0.2: acknowledged with a step, in force from that step and not before, and true to NumPy."""
    run = demo.run()["id"]
    before = markers(page, "loss")
    drag_slider(page, "zspace.gain", "0.20", 0.2)
    record = wait_for(lambda: applied(page, "zspace.gain", 0.2), 10, "for the acknowledgement")
    since = record["step"]
    assert record["changes"][0]["old"] == 1.0
    expect(page.get_by_test_id("knob-zspace.gain-inforce")).to_contain_text(str(since), timeout=5000)
    for chart in MARKED:
        wait_for(lambda chart=chart: markers(page, chart) > before, 5, f"for the marker on {chart}")

    wait_for(lambda: demo.run()["step"] > since + 25, 30)
    gains = demo.series(run, "zspace/gain")
    assert {gain for step, gain in gains.items() if step < since} == {1.0}
    assert {gain for step, gain in gains.items() if step >= since} == {0.2}

    held = dump_at(demo, run, since)
    for layer in ("zbn1", "zbn2", "zbn3"):
        n = held[f"normed/{layer}"].astype(np.float64)
        s = np.sqrt(-held[f"curvature/{layer}"])
        g = float(held[f"gain/{layer}"])
        assert g == 0.2
        jacobian = (1 - g) + g * (1 - np.tanh(s * n) ** 2)
        shown = demo.series(run, f"zspace/{layer}/jacobian_mean")
        assert shown[since] == pytest.approx(jacobian.mean(), abs=1e-3)
        # The last one that was observed: a machine that is slow leaves some out.
        last = max(step for step in shown if step < since)
        assert shown[since] - shown[last] > 0.1
        radius = demo.series(run, f"zspace/{layer}/radius_mean")
        assert radius[since] == pytest.approx(np.abs(np.tanh(s * n)).mean() / s, abs=1e-3)
        assert abs(radius[since] - radius[last]) <= 0.05


def test_a_learning_rate_typed_in_comes_into_force(page: Page, demo: Cockpit) -> None:
    """The page shows the typed value in force, with its step, and the next updates use it."""
    field = page.get_by_test_id("knob-optim.lr-number")
    field.fill("0.0015")
    field.press("Enter")
    record = wait_for(lambda: applied(page, "optim.lr", 0.0015), 10)
    expect(page.get_by_test_id("knob-optim.lr-inforce")).to_contain_text(str(record["step"]), timeout=5000)
    wait_for(lambda: demo.run()["step"] > record["step"] + 2, 10)
    rates = demo.series(demo.run()["id"], "optim/learning_rate")
    assert rates[record["step"]] == 0.0015
    assert rates[record["step"] - 1] != 0.0015


@pytest.mark.parametrize("typed", ["1001", "-1", "0"])
def test_a_value_out_of_bounds_is_refused_with_its_reason(page: Page, demo: Cockpit, typed: str) -> None:
    before = in_force(page, "optim.lr")
    revision = state(page)["rev"]
    field = page.get_by_test_id("knob-optim.lr-number")
    field.fill(typed)
    field.press("Enter")
    refusal = page.get_by_test_id("knob-optim.lr-refusal")
    expect(refusal).to_be_visible(timeout=5000)
    expect(refusal).to_contain_text(re.compile("between"))
    page.wait_for_timeout(300)
    assert in_force(page, "optim.lr") == before
    assert state(page)["rev"] == revision
    told = {spec["name"]: spec["value"] for spec in demo.get(f"/api/runs/{demo.run()['id']}/knobs")["knobs"]}
    assert told["optim.lr"] == before


def test_two_pages_show_the_same_value_in_force(page: Page, demo: Cockpit, chromium: Browser) -> None:
    other = chromium.new_context().new_page()
    other.goto(demo.page)
    other.wait_for_selector('[data-testid="knob-zspace.gain-slider"]')
    slider = page.get_by_test_id("knob-zspace.gain-slider")
    slider.focus()
    slider.press("ArrowUp")
    value = float(slider.input_value())
    for each in (page, other):
        wait_for(lambda each=each: in_force(each, "zspace.gain") == pytest.approx(value), 10)
        shown = each.get_by_test_id("knob-zspace.gain-inforce")
        expect(shown).to_contain_text(f"{value:g}", timeout=5000)
    other.context.close()


def test_after_a_reload_history_and_markers_are_still_there(page: Page, demo: Cockpit) -> None:
    steer(demo, "zspace.gain", 0.35)
    wait_for(lambda: markers(page, "loss") >= 1, 10)
    wait_for(lambda: applied(page, "zspace.gain", 0.35), 10)
    seen = {chart: markers(page, chart) for chart in MARKED}
    page.reload()
    page.wait_for_selector('[data-testid="heatmap-7"]')
    for chart in MARKED:
        wait_for(lambda chart=chart: markers(page, chart) >= seen[chart], 10, f"for the markers of {chart}")
    steps = page.evaluate("window.spiral.series('train/loss').steps")
    assert steps[0] == 1
    assert len(steps) > 20
    assert page.get_by_test_id("journal-row").count() >= 1


def steer(demo: Cockpit, knob: str, value: float) -> dict[str, Any]:
    """Ask over HTTP, as a script would."""
    run = demo.run()["id"]
    body = {"id": f"test-{knob}-{value}", "verb": "set", "sets": [{"knob": knob, "value": value}]}
    status, told = demo.post(f"/api/runs/{run}/commands", body)
    assert status in (200, 202), told
    return told


def test_pause_holds_the_run_and_commands_given_meanwhile_apply(page: Page, demo: Cockpit) -> None:
    page.get_by_test_id("btn-pause").click()
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "paused", timeout=5000)
    held = wait_for(lambda: demo.run()["step"], 5)
    steer(demo, "zspace.gain", 0.41)
    wait_for(lambda: in_force(page, "zspace.gain") == pytest.approx(0.41), 5)
    page.wait_for_timeout(300)
    assert demo.run()["step"] == held
    page.get_by_test_id("btn-resume").click()
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "training", timeout=5000)
    wait_for(lambda: demo.run()["step"] > held, 10)


def test_a_chart_opens_in_plotly_with_its_mode_bar_and_without_an_upload_button(page: Page) -> None:
    page.get_by_test_id("chart-loss-expand").click()
    page.wait_for_selector(".modebar-btn", state="attached", timeout=20_000)
    titles = page.eval_on_selector_all(".modebar-btn", "all => all.map(one => one.getAttribute('data-title') || '')")
    assert any("oom" in title for title in titles)
    assert not [title for title in titles if re.search("cloud|share|chart studio|upload|edit in", title, re.IGNORECASE)]
    assert page.locator(".modebar-btn--logo").count() == 0
    assert page.locator("g.trace.scatter, g.scatterlayer .trace").count() >= 1
    page.keyboard.press("Escape")
    expect(page.locator(".modebar-btn")).to_have_count(0, timeout=5000)


def test_no_request_leaves_the_machine_and_nothing_fails(demo: Cockpit, chromium: Browser) -> None:
    """Every request of a whole visit, Plotly included, goes to the server itself; the console stays clean."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    cdp = context.new_cdp_session(page)
    cdp.send("Network.enable")
    asked: list[str] = []
    problems: list[str] = []
    cdp.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    cdp.on("Network.webSocketCreated", lambda event: asked.append(event["url"]))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(demo.page)
    page.wait_for_selector('[data-testid="heatmap-7"]')
    page.get_by_test_id("chart-loss-expand").click()
    page.wait_for_selector(".modebar-btn", state="attached", timeout=20_000)
    page.wait_for_timeout(500)
    context.close()
    home = demo.url.removeprefix("http://")
    outside = [url for url in asked if not re.match(rf"(http|ws)://{re.escape(home)}/|data:|blob:", url)]
    assert outside == []
    assert any(url.startswith("ws://") for url in asked)
    assert any("plotly" in url for url in asked)
    assert problems == []


def test_the_heat_maps_of_the_page_are_those_of_plain_numpy(page: Page, demo: Cockpit) -> None:
    """From the weights saved at the probe's step (1e-3 of the maximum), and from activations and gradients (1e-5)."""
    run = demo.run()["id"]
    shown = page.evaluate("window.spiral.heatMaps()")
    held = dump_at(demo, run, shown["step"])
    maps = np.array(shown["maps"]).reshape(shown["shape"])
    activations, gradients = held["probe/activations"].astype(np.float64), held["probe/gradients"].astype(np.float64)
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    direct = (weights * activations).sum(axis=3)
    scale = np.abs(direct).max(axis=(1, 2), keepdims=True)
    assert (np.abs(maps - direct) <= 1e-5 * np.maximum(scale, 1e-30)).all()

    state_dict = {name.removeprefix("weights/"): array for name, array in held.items() if name.startswith("weights/")}
    again = cam_maps("z_cam", state_dict, held["probe/images"])
    assert (np.abs(maps - again) <= 1e-3 * np.maximum(np.abs(again).max(axis=(1, 2), keepdims=True), 1e-30)).all()


def test_the_geometry_of_the_steps_is_chosen_from_a_list_and_comes_into_force(page: Page, demo: Cockpit) -> None:
    unfold(page, "optimizer")
    choice = page.get_by_test_id("knob-optim.mode-choice")
    expect(choice.locator("option")).to_have_text(["euclidean", "realgrad", "hypergrad", "riemannian"])
    choice.select_option("hypergrad")
    wait_for(lambda: in_force(page, "optim.mode") == "hypergrad", 10)
    expect(page.get_by_test_id("knob-optim.mode-inforce")).to_contain_text("hypergrad", timeout=5000)
    choice.select_option("euclidean")
    wait_for(lambda: in_force(page, "optim.mode") == "euclidean", 10)


def test_auto_gain_moves_the_gains_and_the_knobs_show_where_they_are(page: Page, demo: Cockpit) -> None:
    steer(demo, "zspace.auto_gain", 0.72)
    wait_for(lambda: in_force(page, "zspace.auto_gain") == 0.72, 10)
    before = in_force(page, "zspace.zbn1.gain")
    wait_for(lambda: in_force(page, "zspace.zbn1.gain") != before, 10, "for a gain that moves by itself")
    expect(page.get_by_test_id("knob-zspace.gain-slider")).to_be_disabled()
    locked = page.get_by_test_id("knob-zspace.gain-locked")
    expect(locked).to_have_text("Cannot be set while “Auto-gain: radius” is 0.72")
    unfold(page, "layers")
    expect(page.get_by_test_id("knob-zspace.zbn2.gain-number")).to_be_disabled()
    expect(page.get_by_test_id("knob-zspace.zbn2.curvature-number")).to_be_enabled()
    steer(demo, "zspace.auto_gain", 0.99)
    notice = page.get_by_test_id("banner-notice")
    expect(notice).to_contain_text("auto-gain cannot bring zbn1 to radius 0.99", timeout=10_000)
    steer(demo, "zspace.auto_gain", 0.0)
    wait_for(lambda: in_force(page, "zspace.auto_gain") == 0, 10)
    expect(page.get_by_test_id("knob-zspace.gain-slider")).to_be_enabled()
    expect(locked).to_have_count(0)
    expect(notice).to_have_count(0, timeout=10_000)


def test_the_curvature_slider_of_negative_numbers_steers_every_layer(page: Page, demo: Cockpit) -> None:
    unfold(page, "zspace")
    slider = page.get_by_test_id("knob-zspace.curvature-slider")
    assert int(slider.input_value()) == 500, "-1 lies in the middle between -100 and -0.01"
    slider.focus()
    slider.press("ArrowDown")
    record = wait_for(lambda: applied(page, "zspace.curvature", -1.1), 10)
    wait_for(lambda: demo.run()["step"] > record["step"] + 2, 10)
    told = demo.series(demo.run()["id"], "zspace/zbn2/curvature")
    # Where observing has no time left, the step before is not observed; the first one under a new value always is.
    before = max(step for step in told if step < record["step"])
    assert (told[before], told[record["step"]]) == (-1.0, -1.1)


def test_a_switch_freezes_a_layer_and_the_run_keeps_its_weights(page: Page, demo: Cockpit) -> None:
    unfold(page, "freeze")
    switch = page.get_by_test_id("knob-freeze.conv2-switch")
    expect(switch).to_have_attribute("aria-checked", "false")
    switch.press("Space")
    record = wait_for(lambda: applied(page, "freeze.conv2", True), 10)
    expect(switch).to_have_attribute("aria-checked", "true")
    expect(page.get_by_test_id("knob-freeze.conv2-inforce")).to_contain_text(f"on since step {record['step']}")
    run = demo.run()["id"]
    steps = [record["step"], record["step"] // 10 * 10 + 20]
    first, later = (dump_at(demo, run, step) for step in steps)
    assert (first["weights/conv2.weight"] == later["weights/conv2.weight"]).all()
    assert (first["weights/conv3.weight"] != later["weights/conv3.weight"]).any()
    switch.click()
    wait_for(lambda: in_force(page, "freeze.conv2") is False, 10)


def test_precision_and_the_layer_of_the_heat_maps_are_chosen_while_the_run_goes_on(page: Page, demo: Cockpit) -> None:
    unfold(page, "precision")
    expect(page.get_by_test_id("knob-amp.loss_scale-locked")).to_contain_text("“Precision of products” is float32")
    page.get_by_test_id("knob-amp.precision-choice").select_option("float16")
    record = wait_for(lambda: applied(page, "amp.precision", "float16"), 10)
    expect(page.get_by_test_id("knob-amp.loss_scale-slider")).to_be_enabled()
    wait_for(lambda: demo.run()["step"] > record["step"] + 2, 10)
    told = demo.series(demo.run()["id"], "amp/scale")
    assert min(told) == record["step"]
    assert told[record["step"]] == 65536
    page.get_by_test_id("knob-amp.precision-choice").select_option("float32")
    unfold(page, "xai")
    page.get_by_test_id("knob-xai.layer-choice").select_option("relu1")
    wait_for(lambda: page.evaluate("window.spiral.heatMaps()")["shape"] == [8, 28, 28], 15, "for finer maps")
    page.get_by_test_id("knob-xai.layer-choice").select_option("relu3")
    wait_for(lambda: page.evaluate("window.spiral.heatMaps()")["shape"] == [8, 14, 14], 15, "for coarser maps")


def test_folded_groups_leave_the_journal_in_sight(page: Page) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    expect(page.locator(".journal h2")).to_be_in_viewport(ratio=1)
    assert page.locator(".more[open]").count() == 0
    assert page.locator(".knob-groups details").count() == 10


def test_stop_asks_first_and_then_ends_the_run(page: Page, demo: Cockpit) -> None:
    """Last of its file: it ends the demo's run; history and page stay."""
    page.get_by_test_id("btn-stop").click()
    assert demo.run()["status"] == "training"
    page.get_by_test_id("btn-stop-confirm").click()
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "stopped", timeout=10_000)
    wait_for(lambda: demo.run()["status"] == "stopped", 5)
    page.reload()
    page.wait_for_selector('[data-testid="heatmap-7"]')
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "stopped")
