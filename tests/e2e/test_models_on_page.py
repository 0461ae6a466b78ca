"""Runs of the recurrent and of the fully connected model in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, expect

from e2e.cockpit import Cockpit, finish, start, wait_for
from oracles.network_twin import cam_maps
from spiral_core.data import open_dataset

CANVAS = """canvas => {
  const {width, height} = canvas;
  return {width, height, pixels: [...canvas.getContext('2d').getImageData(0, 0, width, height).data]};
}"""


@contextmanager
def visited(folder: Path, chromium: Browser, *words: str) -> Iterator[tuple[Cockpit, Page]]:
    """Open the page of a demo that trains as told."""
    cockpit = start(folder / "runs", "demo", "--no-open", "--port", "0", *words)
    try:
        wait_for(lambda: cockpit.run().get("step", 0) > 15, 90, "for the first steps")
        context = chromium.new_context(viewport={"width": 1600, "height": 1000})
        page = context.new_page()
        page.goto(cockpit.page)
        yield cockpit, page
        context.close()
    finally:
        finish(cockpit)


def drawn(page: Page, testid: str) -> np.ndarray:
    """Give what is on a canvas, (height, width, 4)."""
    told = page.get_by_test_id(testid).evaluate(CANVAS)
    return np.array(told["pixels"], dtype=np.uint8).reshape(told["height"], told["width"], 4)


def test_a_sequence_is_drawn_as_a_curve_with_its_heat_map_over_time(tmp_path: Path, chromium: Browser) -> None:
    with visited(tmp_path, chromium, "--data", "motif", "--dump-every", "10") as (cockpit, page):
        page.wait_for_selector('[data-testid="heatmap-7"][data-step]')
        box = page.get_by_test_id("heatmap-0").bounding_box()
        assert box is not None
        assert box["height"] > 60, "a signal of height one would be a line of one pixel"
        assert box["width"] > 2 * box["height"]
        expect(page.get_by_test_id("zspace-sub")).to_contain_text("each sample")
        assert "64 samples" in (page.get_by_test_id("strip-zln1").get_attribute("aria-label") or "")

        def command(identity: str, verb: str, **value: float) -> None:
            sets = [{"knob": "zspace.zln1.gain", "value": one} for one in value.values()]
            body = {"id": identity, "verb": verb, "sets": sets}
            assert cockpit.post(f"/api/runs/{cockpit.run()['id']}/commands", body)[0] == 202

        command("gain", "set", gain=0.5)
        expect(page.get_by_test_id("knob-zspace.gain-inforce")).to_contain_text("0.5", timeout=5000)
        command("hold", "pause")
        expect(page.get_by_test_id("status")).to_have_attribute("data-status", "paused", timeout=5000)

        shown = wait_for(lambda: page.evaluate("window.spiral.heatMaps()"), 5)
        maps = np.array(shown["maps"])
        assert maps.shape == (8, 1, 64)
        path = cockpit.logdir / cockpit.run()["id"] / "dumps" / f"step-{shown['step']:08d}.npz"
        with np.load(path) as held:
            weights = {name.removeprefix("weights/"): held[name] for name in held.files if name.startswith("weights/")}
            again = cam_maps("z_lstm", weights, held["probe/images"])
        assert (np.abs(maps - again) <= 1e-3 * np.abs(again).max(axis=(1, 2), keepdims=True)).all()

        page.wait_for_timeout(500)
        check_picture(
            drawn(page, "heatmap-2"), maps[2, 0], open_dataset("motif", seed=0, batch_size=1).probe(8).images[2]
        )


def check_picture(pixels: np.ndarray, heat: np.ndarray, image: np.ndarray) -> None:
    """The curve runs through the samples, and the background is bright where the map is great."""
    height, width = pixels.shape[:2]
    step = width / len(heat)
    centers = ((np.arange(len(heat)) + 0.5) * step).astype(int)
    # The curve's own ink is the only near-white on the canvas.
    white = (pixels[..., :3].min(axis=2) > 200).astype(float)
    columns = white[:, centers]
    seen = columns.sum(axis=0) > 0
    assert seen.mean() > 0.9, "the curve is broken"
    middles = (columns * np.arange(height)[:, None]).sum(axis=0)[seen] / columns.sum(axis=0)[seen]
    assert np.corrcoef(middles, -image[0, seen, 0])[0, 1] > 0.95
    # Two rows near the upper edge, where no curve runs: the map lies over the whole height.
    background = pixels[6:8, centers, :3].mean(axis=(0, 2))
    positive = np.maximum(heat, 0)
    assert positive.max() > 0
    assert np.corrcoef(background, positive)[0, 1] > 0.8


def test_a_model_without_feature_maps_says_so_and_shows_no_empty_grid(tmp_path: Path, chromium: Browser) -> None:
    with visited(tmp_path, chromium, "--data", "digits", "--model", "z_mlp") as (cockpit, page):
        sentence = page.get_by_test_id("see-mapless")
        expect(sentence).to_contain_text("z_mlp", timeout=20_000)
        expect(sentence).to_contain_text("No heat maps")
        assert page.locator('[data-testid^="tile-"]').count() == 0
        assert page.get_by_test_id("chart-pointing").count() == 0
        assert page.get_by_test_id("chart-loss").count() == 1
        assert "64 samples" in (page.get_by_test_id("strip-zln2").get_attribute("aria-label") or "")
        knobs = {spec["name"] for spec in page.evaluate("window.spiral.state()")["knobs"]}
        assert {"optim.lr", "zspace.gain", "zspace.zln1.gain", "zspace.zln2.gain"} <= knobs
        assert "xai.every" not in knobs
        assert not [name for name in page.evaluate("window.spiral.state()")["series"] if name.startswith("xai/")]
        assert cockpit.run()["model"] == "z_mlp"


# Orange pixels of the plotting area: the second curve of a chart. The first is blue, grid and letters are gray.
ORANGE = """card => {
  const canvas = card.querySelector('canvas'), over = card.querySelector('.u-over');
  const a = canvas.getBoundingClientRect(), b = over.getBoundingClientRect();
  const ratio = canvas.width / a.width, at = side => Math.round((b[side] - a[side]) * ratio);
  const {data} = canvas.getContext('2d').getImageData(
    at('left'), at('top'), Math.round(b.width * ratio), Math.round(b.height * ratio));
  let count = 0;
  for (let k = 0; k < data.length; k += 4) count += data[k + 3] > 90 && data[k] - data[k + 2] > 60 ? 1 : 0;
  return count;
}"""


def test_the_only_evaluation_of_a_run_is_a_dot(tmp_path: Path, chromium: Browser) -> None:
    with visited(tmp_path, chromium, "--data", "digits", "--steps", "30", "--evaluate-every", "1000") as (_, page):
        expect(page.get_by_test_id("status")).to_have_attribute("data-status", "finished", timeout=30_000)
        for chart in ("loss", "accuracy"):
            card = page.get_by_test_id(f"chart-{chart}")
            expect(card).to_contain_text("val")
            count = wait_for(lambda card=card: card.evaluate(ORANGE), 10, "for the dot")
            assert 6 < count < 100
