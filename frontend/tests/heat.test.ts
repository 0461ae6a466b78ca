import { describe, expect, test } from "vitest";
import { colored, colorTable, COLORS } from "../src/lib/colormap";
import { bilinear, nearest, normalised, positive, type Plane } from "../src/lib/upsample";
import { goldenJson } from "./golden";

function plane(rows: readonly (readonly number[])[]): Plane {
  return { values: Float32Array.from(rows.flat()), height: rows.length, width: rows[0]?.length ?? 0 };
}

describe("enlarging", () => {
  const { cases } = goldenJson("upsampled") as { cases: { small: number[][]; large: number[][] }[] };
  test.each(cases)("bilinearly gives what the engine's own resize gives (case %#)", ({ small, large }) => {
    const got = bilinear(plane(small), large.length, large[0]?.length ?? 0);
    const wanted = large.flat();
    expect(Math.max(...got.values.map((value, k) => Math.abs(value - (wanted[k] as number))))).toBeLessThan(1e-6);
  });

  test("by cells repeats them", () => {
    expect([...nearest(plane([[1, 2]]), 2, 4).values]).toEqual([1, 1, 2, 2, 1, 1, 2, 2]);
  });
});

describe("normalising", () => {
  test("drops what speaks against, and divides by the greatest", () => {
    const kept = positive(plane([[-3, 1, 2]]));
    expect(kept && [...normalised(kept).values]).toEqual([0, 0.5, 1]);
  });

  test("gives nothing where nothing is positive, however small the numbers are", () => {
    expect(positive(plane([[-1, 0]]))).toBeNull();
    expect(positive(plane([[Number.NaN, -1]]))).toBeNull();
    expect(positive(plane([[1e-20, 0]]))).not.toBeNull();
  });

  test("with a locked scale lets a weak map look weak and cuts a strong one off", () => {
    expect([...normalised(plane([[1, 8]]), 4).values]).toEqual([0.25, 1]);
  });
});

describe("colours", () => {
  test.each(["inferno", "viridis"] as const)("of %s grow brighter with the value", (name) => {
    const table = colorTable(name);
    const light = (k: number) => 0.2126 * table[3 * k]! + 0.7152 * table[3 * k + 1]! + 0.0722 * table[3 * k + 2]!;
    for (let k = 8; k < COLORS; k += 8) expect(light(k)).toBeGreaterThan(light(k - 8));
  });

  test("are as opaque as the value is great: zero and NaN cannot be seen", () => {
    const pixels = colored(Float32Array.of(0, 0.5, 1, Number.NaN), colorTable("inferno"), 0.8);
    expect([3, 7, 11, 15].map((k) => pixels[k])).toEqual([0, 102, 204, 0]);
  });
});
