import { describe, expect, test } from "vitest";
import { knobText, named } from "../src/i18n/language";
import { groupsOf, unmet } from "../src/store/knobs";
import type { KnobSpec, Need, Value } from "../src/wire/messages";

function knob(name: string, group: string, value: Value | null = 0, needs: Need[] = []): KnobSpec {
  const bounds = { unit: "", scale: "linear", low: 0, high: 1, step: 0.01, boundary: "step", help: "" } as const;
  return { name, group, value, needs, type: "float", since: 1, ...bounds };
}

function byName(...knobs: KnobSpec[]): Map<string, KnobSpec> {
  return new Map(knobs.map((one) => [one.name, one]));
}

describe("groups of knobs", () => {
  test("come in the panel's order, prominent knobs left out, unknown groups last", () => {
    const knobs = [
      knob("weather.rain", "weather"),
      knob("run.rate", "run"),
      knob("optim.schedule", "schedule"),
      knob("optim.lr", "optimizer"),
      knob("optim.mode", "optimizer"),
      knob("zspace.gain", "zspace"),
      knob("optim.momentum", "optimizer"),
    ];
    expect(groupsOf(knobs).map(({ key, knobs: of }) => [key, of.map((one) => one.name)])).toEqual([
      ["optimizer", ["optim.mode", "optim.momentum"]],
      ["schedule", ["optim.schedule"]],
      ["run", ["run.rate"]],
      ["weather", ["weather.rain"]],
    ]);
  });
});

describe("a need", () => {
  const byHand = { knob: "zspace.auto_gain", holds: [0] };
  const narrow = { knob: "amp.precision", holds: ["float16", "bfloat16"] };

  test("is met by any of the values that it names", () => {
    const gain = knob("zspace.gain", "zspace", 1, [byHand]);
    expect(unmet(gain, byName(knob("zspace.auto_gain", "zspace", 0)))).toBeNull();
    expect(unmet(gain, byName(knob("zspace.auto_gain", "zspace", 0.7)))).toBe(byHand);
    const scale = knob("amp.loss_scale", "precision", 1, [narrow]);
    expect(unmet(scale, byName(knob("amp.precision", "precision", "bfloat16")))).toBeNull();
    expect(unmet(scale, byName(knob("amp.precision", "precision", "float32")))).toBe(narrow);
  });

  test("is not met by a mixed value, and names the first of several", () => {
    const both = knob("x", "data", 1, [byHand, narrow]);
    const told = byName(knob("zspace.auto_gain", "zspace", null), knob("amp.precision", "precision", "float32"));
    expect(unmet(both, told)).toBe(byHand);
  });

  test("of a knob that the run has not, or no need at all, keeps nothing from being set", () => {
    expect(unmet(knob("x", "data", 1, [byHand]), byName())).toBeNull();
    const { needs: _none, ...free } = knob("x", "data");
    expect(unmet(free, byName())).toBeNull();
  });
});

test("knobs of one layer are named after it, and switches say on and off", () => {
  expect(named("knob", "zspace.zbn1.gain")).toBe("Gain of zbn1");
  expect(named("knob", "zspace.zbn1.curvature")).toBe("Curvature of zbn1");
  expect(named("knob", "freeze.head")).toBe("Freeze head");
  expect(named("knob", "zspace.auto_gain.smoothing")).toBe("Auto-gain: smoothing");
  expect(named("group", "weather_station")).toBe("weather station");
  expect([knobText("freeze.head", true), knobText("freeze.head", false)]).toEqual(["on", "off"]);
});
