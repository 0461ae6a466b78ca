import { describe, expect, test } from "vitest";
import { grouped, short } from "../src/lib/format";
import { fromSlider, LOG_TICKS, shareOf, stepped, toSlider, track, type Scale } from "../src/lib/scale";

const RATE: Scale = { scale: "log", low: 1e-6, high: 10, step: 1.1, whole: false };
const GAIN: Scale = { scale: "linear", low: 0, high: 1, step: 0.01, whole: false };
const EVERY: Scale = { scale: "linear", low: 0, high: 1000, step: 1, whole: true };
const CURVATURE: Scale = { scale: "log", low: -100, high: -0.01, step: 1.1, whole: false };

describe("a slider", () => {
  test("on a log scale gives each decade the same room", () => {
    expect(toSlider(1e-6, RATE)).toBe(0);
    expect(toSlider(10, RATE)).toBe(LOG_TICKS);
    expect(toSlider(1e-3, RATE) - toSlider(1e-4, RATE)).toBeCloseTo(LOG_TICKS / 7, 6);
  });

  test("on a log scale comes back within the three digits that it promises", () => {
    for (const value of [1e-6, 3e-5, 1e-3, 0.003, 0.25, 10]) {
      expect(Math.abs(fromSlider(toSlider(value, RATE), RATE) / value - 1)).toBeLessThan(0.006);
    }
    expect(fromSlider(0, RATE)).toBe(1e-6);
    expect(fromSlider(LOG_TICKS, RATE)).toBe(10);
  });

  test("on a linear scale speaks in the knob's own numbers", () => {
    expect(track(GAIN)).toEqual({ min: 0, max: 1, step: 0.01 });
    expect(fromSlider(0.2, GAIN)).toBe(0.2);
    expect(toSlider(0.2, GAIN)).toBe(0.2);
    expect(shareOf(0.25, GAIN)).toBe(0.25);
  });

  test("of a whole number gives whole numbers", () => {
    expect(fromSlider(20.4, EVERY)).toBe(20);
  });

  test("of negative numbers on a log scale falls in magnitude, each decade with the same room", () => {
    expect(toSlider(-100, CURVATURE)).toBe(0);
    expect(toSlider(-0.01, CURVATURE)).toBe(LOG_TICKS);
    expect(toSlider(-1, CURVATURE)).toBeCloseTo(LOG_TICKS / 2, 6);
    expect([0, LOG_TICKS / 2, LOG_TICKS].map((position) => fromSlider(position, CURVATURE))).toEqual([-100, -1, -0.01]);
  });

  test("with a lower bound of 0 on a log scale still reaches 0", () => {
    const open: Scale = { ...RATE, low: 0 };
    expect(fromSlider(0, open)).toBe(0);
    expect(toSlider(0, open)).toBe(0);
    expect(stepped(0, 1, open)).toBeGreaterThan(0);
  });
});

describe("an arrow key", () => {
  test("adds on a linear scale without the dust of binary fractions", () => {
    expect(stepped(0.1, 20, GAIN)).toBe(0.3);
    expect(stepped(0.3, -1, GAIN)).toBe(0.29);
  });

  test("multiplies on a log scale, and takes the same back", () => {
    expect(stepped(0.003, 1, RATE)).toBe(0.0033);
    expect(stepped(stepped(0.003, 5, RATE), -5, RATE)).toBeCloseTo(0.003, 8);
  });

  test("goes up towards zero among negative numbers, and stops at the bounds", () => {
    expect(stepped(-1.1, 1, CURVATURE)).toBe(-1);
    expect(stepped(-1, -1, CURVATURE)).toBe(-1.1);
    expect(stepped(-99, -1, CURVATURE)).toBe(-100);
    expect(stepped(-0.0105, 1, CURVATURE)).toBe(-0.01);
  });

  test("stops at the bounds", () => {
    expect(stepped(0.995, 1, GAIN)).toBe(1);
    expect(stepped(9.9, 1, RATE)).toBe(10);
    expect(stepped(0, -1, EVERY)).toBe(0);
  });
});

test("numbers are written short", () => {
  expect([0.003, 1.2e-5, 1240, 0.123456, Number.NaN, Infinity, 0, 1e9].map((value) => short(value))).toEqual(
    ["0.003", "1.2e-5", "1,240", "0.1235", "NaN", "∞", "0", "1e9"],
  );
  expect(grouped(1234567)).toBe("1,234,567");
});
