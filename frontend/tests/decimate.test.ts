import { describe, expect, test } from "vitest";
import { align, alone, decimate, POINTS_PER_PIXEL, type Points } from "../src/lib/decimate";
import { seeded } from "./random";

function walk(length: number, seed: number, oddShare = 0): Points {
  const random = seeded(seed);
  const steps = new Float64Array(length);
  const values = new Float64Array(length);
  for (let k = 0; k < length; k++) {
    steps[k] = (steps[k - 1] ?? 0) + 1 + Math.floor(random() * 3);
    values[k] = random() < oddShare ? [Number.NaN, Infinity, -Infinity][Math.floor(random() * 3)]! : random() * 2 - 1;
  }
  return { steps, values };
}

function bucketExtremes({ steps, values }: Points, from: number, to: number, columns: number): Map<number, [number, number]> {
  const found = new Map<number, [number, number]>();
  steps.forEach((step, k) => {
    const value = values[k] as number;
    if (step < from || step > to || !Number.isFinite(value)) return;
    const column = Math.min(columns - 1, Math.floor(((step - from) / (to - from)) * columns));
    const [low, high] = found.get(column) ?? [Infinity, -Infinity];
    found.set(column, [Math.min(low, value), Math.max(high, value)]);
  });
  return found;
}

describe("decimation", () => {
  test("keeps the extremes of every pixel column, whatever the data", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = seeded(seed * 77);
      const points = walk(500 + Math.floor(random() * 20_000), seed, seed % 3 === 0 ? 0.01 : 0);
      const pixels = 20 + Math.floor(random() * 300);
      const last = points.steps[points.steps.length - 1] as number;
      const few = decimate(points, 0, last, pixels);
      const first = points.steps[0] as number;
      expect(bucketExtremes(few, first, last, pixels)).toEqual(bucketExtremes(points, first, last, pixels));
    }
  });

  test("shows each of 100 one-step spikes in a million steps", () => {
    const length = 1_000_000;
    const steps = Float64Array.from({ length }, (_, k) => k + 1);
    const values = new Float64Array(length).fill(0.5);
    const random = seeded(9);
    const spikes = new Set<number>();
    while (spikes.size < 100) spikes.add(Math.floor(random() * length));
    for (const at of spikes) values[at] = 9 + random();
    const few = decimate({ steps, values }, 1, length, 900);
    const columns = (points: Points) =>
      new Set([...points.steps].filter((_, k) => (points.values[k] as number) > 8).map((step) => Math.floor((step / length) * 900)));
    expect(columns(few)).toEqual(columns({ steps, values }));
    expect(few.steps.length).toBeLessThanOrEqual(POINTS_PER_PIXEL * 900 + 2);
  });

  test("keeps every value that is not finite, and the order of steps", () => {
    const points = walk(30_000, 5, 0.02);
    const few = decimate(points, 0, Infinity, 100);
    const odd = (values: Float64Array) => [...values].filter((value) => !Number.isFinite(value)).length;
    expect(odd(few.values)).toBe(odd(points.values));
    expect(few.steps.every((step, k) => k === 0 || step > (few.steps[k - 1] as number))).toBe(true);
  });

  test("leaves few points alone and keeps one beyond each end of the range", () => {
    const points = { steps: Float64Array.of(1, 2, 3, 4, 5), values: Float64Array.of(1, 2, 3, 4, 5) };
    expect([...decimate(points, 2.5, 3.5, 100).steps]).toEqual([2, 3, 4]);
    expect([...decimate(points, 9, 12, 100).steps]).toEqual([5]);
    expect([...decimate({ steps: new Float64Array(0), values: new Float64Array(0) }, 0, 1, 10).steps]).toEqual([]);
  });
});

test("aligned curves keep their own points: undefined for none, null for not finite", () => {
  const aligned = align([
    { steps: Float64Array.of(1, 2, 3), values: Float64Array.of(5, Number.NaN, 7) },
    { steps: Float64Array.of(2, 4), values: Float64Array.of(8, 9) },
  ]);
  expect(aligned.steps).toEqual([1, 2, 3, 4]);
  expect(aligned.columns).toEqual([
    [5, null, 7, undefined],
    [undefined, 8, undefined, 9],
  ]);
});

test("points that no line reaches are those between gaps, whatever steps of other curves lie between", () => {
  expect(alone([])).toBeNull();
  expect(alone([undefined, null, undefined])).toBeNull();
  expect(alone([1, undefined, 2])).toBeNull();
  expect(alone([undefined, 1, undefined, undefined])).toEqual([1]);
  expect(alone([1, undefined, null, 2, 3, null, undefined, 4, undefined, null, 5])).toEqual([0, 7, 10]);
});
