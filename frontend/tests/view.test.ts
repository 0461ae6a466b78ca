import { describe, expect, test } from "vitest";
import { knobText, language } from "../src/i18n/language";
import { shortOrDash } from "../src/lib/format";
import { cursor, zoom } from "../src/store/view";

describe("the step under the pointer", () => {
  test("is forgotten when the zoom changes, and only then", () => {
    cursor.value = 40;
    expect(cursor.value).toBe(40);
    zoom.value = { from: 10, to: 20 };
    expect(cursor.value).toBeNull();
    cursor.value = 15;
    expect(cursor.value).toBe(15);
    zoom.value = null;
    expect(cursor.value).toBeNull();
  });
});

describe("words for values", () => {
  test("a speed limit of 0 is none, in both languages; another knob's 0 is 0", () => {
    language.value = "en";
    expect([knobText("run.rate", 0), knobText("run.rate", 20), knobText("zspace.gain", 0)]).toEqual(["unlimited", "20", "0"]);
    expect(knobText("zspace.gain", null)).toBe("mixed");
    language.value = "ja";
    expect([knobText("run.rate", 0), knobText("zspace.gain", null)]).toEqual(["無制限", "混在"]);
  });

  test("what is not known is a dash", () => {
    expect([shortOrDash(Number.NaN, 3), shortOrDash(1.2345, 3)]).toEqual(["–", "1.23"]);
  });
});
