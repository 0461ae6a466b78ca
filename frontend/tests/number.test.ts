import { describe, expect, test } from "vitest";
import { plain, readNumber } from "../src/lib/number";

describe("a typed number", () => {
  test.each([
    ["0.001", 0.001],
    ["1e-3", 0.001],
    ["1E+3", 1000],
    ["0,001", 0.001],
    ["0,5", 0.5],
    ["1,5e-4", 0.00015],
    [" 12 ", 12],
    ["-3.", -3],
    [".5", 0.5],
    ["−2", -2],
    ["1234,567", 1234.567],
    ["０．００１", 0.001],
  ])("%s is read", (text, value) => {
    expect(readNumber(text)).toEqual({ value });
  });

  test.each(["1,000", "12,345", "1,234,567", "-1,000", "1,000e2"])("%s is ambiguous", (text) => {
    expect(readNumber(text)).toEqual({ fault: "ambiguous" });
  });

  test.each(["", " ", "0x10", "0b1", "1 000", "1.2.3", "1,234.5", "1,2,3", "e5", ".", "NaN", "Infinity", "1e999", "two"])(
    "“%s” is no number",
    (text) => {
      expect(readNumber(text)).toEqual({ fault: "not-a-number" });
    },
  );
});

describe("a number in a field", () => {
  test.each([
    [1000, "1000"],
    [1234567, "1234567"],
    [0, "0"],
    [0.001, "0.001"],
    [0.00012345, "1.2345e-4"],
    [1234.5, "1234.5"],
    [1e-9, "1e-9"],
    [1 / 3, "0.333333"],
  ])("%d is written %s", (value, text) => {
    expect(plain(value)).toBe(text);
  });

  test("is read back as it was written", () => {
    for (const value of [1000, 999999, 12345678, 0.5, 0.00012345, 1.5e-8, -42, 2.5e7, 1e20, 123456.5]) {
      const read = readNumber(plain(value));
      expect("value" in read ? Math.abs(read.value / value - 1) : 1).toBeLessThan(1e-5);
    }
  });
});
