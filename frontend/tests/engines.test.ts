import { expect, test } from "vitest";
import { asAsked, type TrainingOption } from "../src/store/engines";

const option = (name: string, kind: TrainingOption["kind"]): TrainingOption => ({
  name, flag: `--${name}`, kind, default: null, least: null, most: null, choices: [], help: "",
});

const OPTIONS = [option("data", "text"), option("lr", "number"), option("steps", "whole"), option("start_paused", "switch"), option("guards", "lines")];

test("what a person has typed is asked for in the kind of its field, and what was left alone is not", () => {
  expect(asAsked(OPTIONS, {})).toEqual({});
  expect(asAsked(OPTIONS, { data: " digits ", lr: "3e-4", steps: "0", start_paused: "true", guards: "a: when x > 1 mark\n\n b " })).toEqual({
    data: "digits", lr: 3e-4, steps: 0, start_paused: true, guards: ["a: when x > 1 mark", "b"],
  });
});

test("what is no number goes to the server as it was typed, whose refusal names the field", () => {
  expect(asAsked(OPTIONS, { lr: "fast", steps: "1.5" })).toEqual({ lr: "fast", steps: 1.5 });
});
