import { beforeEach, describe, expect, test } from "vitest";
import { tint } from "../src/charts/tints";
import {
  byTime,
  choose,
  chosen,
  comparing,
  comparison,
  extent,
  metric,
  MOST_CHOSEN,
  moved,
  pointsOf,
  receiveCompared,
  request,
  slots,
  timeAt,
  toggle,
  valueAt,
} from "../src/store/compare";
import type { Compared, Points, RunSummary } from "../src/wire/messages";

function pack(values: readonly number[], dtype: "<f8" | "<u2" = "<f8") {
  const data = dtype === "<f8" ? new Float64Array(values) : new Uint16Array(values);
  return { dtype, shape: [values.length], data: new Uint8Array(data.buffer) };
}

const summary = (id: string): RunSummary => ({
  id, name: id, status: "training", step: 0, total_steps: 0, model: "z_mlp", data: "digits", created: 0, updated: 0, detail: "", connected: true,
});

/** What the server has of a run: for each series asked for, its steps and values. */
function compared(id: string, ...columns: readonly (readonly [number[], number[]])[]): Compared {
  return {
    type: "compared",
    run: summary(id),
    columns: columns.map(([steps, values], index) => ({ index, steps: pack(steps), values: pack(values), reduced: false })),
  };
}

/** New points, each a place, a step and a value. */
function fresh(...points: readonly (readonly [number, number, number])[]): Points {
  const part = (k: 0 | 1 | 2): number[] => points.map((one) => one[k]);
  return { type: "points", place: pack(part(0), "<u2"), steps: pack(part(1)), values: pack(part(2)) };
}

const curve = (id: string) => {
  const { steps, values } = pointsOf(id);
  return [[...steps], [...values]];
};

/** Ask for what is chosen, as the page does whenever that changes. */
const ask = () => request(comparison.value, 800);

beforeEach(() => {
  choose([]);
  metric.value = "train/loss";
  byTime.value = false;
  ask();
});

function comparingNow(...runs: string[]): void {
  choose(runs);
  comparing.value = true;
  ask();
}

describe("choosing", () => {
  test("gives each run a color that it keeps while others come and go", () => {
    choose(["a", "b", "c"]);
    expect(slots.value).toEqual({ a: 0, b: 1, c: 2 });
    toggle("b");
    expect(slots.value).toEqual({ a: 0, c: 2 });
    toggle("d");
    expect(slots.value).toEqual({ a: 0, c: 2, d: 1 });
    expect(chosen.value).toEqual(["a", "c", "d"]);
  });

  test("takes none twice, and no more than can be told apart", () => {
    choose(["a", "a", "b"]);
    expect(chosen.value).toEqual(["a", "b"]);
    choose(Array.from({ length: MOST_CHOSEN + 20 }, (_, k) => `r${k}`));
    expect(chosen.value).toHaveLength(MOST_CHOSEN);
  });

  test("ends the comparison with the last run, and another tick does not begin it again", () => {
    comparingNow("a");
    expect(comparison.value).toEqual({ runs: ["a"], metric: "train/loss", byTime: false });
    toggle("a");
    toggle("b");
    expect(comparison.value).toBeNull();
  });

  test("has colors for all that may be chosen, none of them twice", () => {
    const palette = ["#5bc8f2", "#ff9d5c"];
    for (const dark of [true, false]) {
      const colors = Array.from({ length: MOST_CHOSEN }, (_, k) => tint(k, palette, dark));
      expect(colors.slice(0, 2)).toEqual(palette);
      expect(new Set(colors).size).toBe(MOST_CHOSEN);
      expect(colors.every((color) => /^#[0-9a-f]{6}$/.test(color))).toBe(true);
    }
  });
});

describe("asking", () => {
  test("names the runs and the curve, and the clock where time is the axis", () => {
    comparingNow("a", "b");
    expect(ask()).toEqual({ type: "compare", runs: ["a", "b"], series: ["train/loss"], width: 800 });
    byTime.value = true;
    expect(ask().series).toEqual(["train/loss", "perf/time"]);
    metric.value = "perf/time";
    expect(ask().series).toEqual(["perf/time"]);
    comparing.value = false;
    expect(ask()).toEqual({ type: "compare", runs: [], series: [], width: 800 });
  });
});

describe("answers", () => {
  test("are drawn, and new points go to the run of their place", () => {
    comparingNow("a", "b");
    const before = moved.value;
    receiveCompared([compared("a", [[1, 2], [5, 4]]), compared("b", [[1], [9]]), compared("other", [[1], [7]])]);
    receiveCompared([fresh([0, 3, 3], [1, 2, Number.NaN], [1, 3, 7], [9, 1, 1])]);
    expect(curve("a")).toEqual([[1, 2, 3], [5, 4, 3]]);
    expect(curve("b")).toEqual([[1, 2, 3], [9, Number.NaN, 7]]);
    expect(curve("other")).toEqual([[], []]);
    expect(moved.value).toBe(before + 2);
    expect(extent()).toEqual({ from: 1, to: 3 });
  });

  test("to an earlier question are not mistaken for ones to the last", () => {
    comparingNow("a", "b");
    receiveCompared([compared("a", [[1], [5]]), compared("b", [[1], [9]])]);
    toggle("a");
    ask();
    // Place 0 was a's until now, and is b's from the next answer on.
    receiveCompared([fresh([0, 2, 4])]);
    expect(curve("b")).toEqual([[1], [9]]);
    receiveCompared([compared("b", [[1, 2], [9, 8]]), fresh([0, 3, 7])]);
    expect(curve("b")).toEqual([[1, 2, 3], [9, 8, 7]]);
    expect(curve("a")).toEqual([[], []]);
  });

  test("that come anew, as after a restart at a checkpoint, take the place of what was there", () => {
    comparingNow("a");
    receiveCompared([compared("a", [[1, 2, 3], [5, 4, 3]])]);
    receiveCompared([compared("a", [[1, 2], [5, 6]])]);
    expect(curve("a")).toEqual([[1, 2], [5, 6]]);
  });
});

describe("time", () => {
  test("is counted from the beginning of each run", () => {
    byTime.value = true;
    comparingNow("a", "b");
    receiveCompared([
      compared("a", [[1, 2, 3], [5, 4, 3]], [[1, 2, 3], [1000, 1010, 1030]]),
      compared("b", [[1, 2], [9, 8]], [[1, 2], [5000, 5001]]),
    ]);
    expect(curve("a")).toEqual([[0, 10, 30], [5, 4, 3]]);
    expect(curve("b")).toEqual([[0, 1], [9, 8]]);
    expect(timeAt("a", 2.5)).toBe(20);
    expect(timeAt("a", 9)).toBe(30);
    // Two curves of each run are asked for: the clock of b has place 3.
    receiveCompared([fresh([2, 3, 7], [3, 3, 5040])]);
    expect(curve("b")).toEqual([[0, 1, 40], [9, 8, 7]]);
    expect(extent()).toEqual({ from: 0, to: 40 });
  });

  test("never goes back, although a clock was set back", () => {
    byTime.value = true;
    comparingNow("a");
    receiveCompared([compared("a", [[1, 2, 3], [5, 4, 3]], [[1, 2, 3], [1000, 1010, 1005]])]);
    expect(curve("a")[0]).toEqual([0, 10, 10]);
  });

  test("of a run that says none leaves it out of the axis, and not the others", () => {
    byTime.value = true;
    comparingNow("old", "a");
    receiveCompared([compared("old", [[1, 2], [5, 4]]), compared("a", [[1, 2], [5, 4]], [[1, 2], [7, 8]])]);
    expect(curve("old")).toEqual([[], []]);
    expect(timeAt("old", 1)).toBeNull();
    expect(extent()).toEqual({ from: 0, to: 1 });
  });
});

test("the value under the pointer is that of the last point up to it, or the newest one", () => {
  const points = { steps: new Float64Array([1, 5, 9]), values: new Float64Array([3, 2, 1]) };
  expect(valueAt(points, null)).toEqual({ x: 9, value: 1 });
  expect(valueAt(points, 5)).toEqual({ x: 5, value: 2 });
  expect(valueAt(points, 8.9)).toEqual({ x: 5, value: 2 });
  expect(valueAt(points, 0.5)).toBeNull();
  expect(valueAt({ steps: new Float64Array(0), values: new Float64Array(0) }, null)).toBeNull();
});
