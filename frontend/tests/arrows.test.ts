import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { chartsOf } from "../src/charts/catalogue";
import { STRINGS } from "../src/i18n/strings";
import type { SeriesSpec } from "../src/wire/messages";

const SOURCE = resolve(import.meta.dirname, "../src");
const MOST_LINES = 300;

/** What each folder may import beside itself; `.` is the top, where everything is put together. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  lib: [],
  i18n: ["lib"],
  wire: ["lib"],
  charts: ["wire", "lib"],
  store: ["wire", "lib"],
  net: ["store", "wire", "lib"],
  panels: ["store", "charts", "wire", "i18n", "lib"],
  ".": ["panels", "net", "store", "charts", "wire", "i18n", "lib"],
};

function files(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : /\.tsx?$/.test(name) ? [path] : [];
  });
}

function imports(path: string): string[] {
  const found = readFileSync(path, "utf8").matchAll(/from "(\.[^"]+)"/g);
  return [...found].map((match) => relative(SOURCE, resolve(dirname(path), match[1] as string)));
}

const folderOf = (path: string): string => (path.includes("/") ? dirname(path) : ".");
const all = files(SOURCE);

describe("the source of the page", () => {
  test("imports downward only", () => {
    const wrong = all.flatMap((path) => {
      const here = folderOf(relative(SOURCE, path));
      return imports(path)
        .filter((target) => folderOf(target) !== here && !MAY_IMPORT[here]?.includes(folderOf(target)))
        .map((target) => `${relative(SOURCE, path)} -> ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test("has no panel that imports a panel", () => {
    const panels = all.filter((path) => folderOf(relative(SOURCE, path)) === "panels");
    const wrong = panels.flatMap((path) => imports(path).filter((target) => target.startsWith("panels/")));
    expect(wrong).toEqual([]);
  });

  test("fits in the head: short files, and no type that says nothing", () => {
    const written = all.filter((path) => !path.endsWith("wire/messages.ts"));
    const text = (path: string): string => readFileSync(path, "utf8");
    expect(written.filter((path) => text(path).split("\n").length > MOST_LINES)).toEqual([]);
    expect(written.filter((path) => /: any\b|<any>|as any\b/.test(text(path)))).toEqual([]);
    expect(written.filter((path) => /dangerouslySetInnerHTML|\.innerHTML|\beval\(|new Function/.test(text(path)))).toEqual([]);
  });
});

test("every string is there in both languages, with the same gaps to fill", () => {
  const gaps = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1] as string).sort();
  for (const [key, [english, japanese]] of Object.entries(STRINGS)) {
    expect(english.length * japanese.length, key).toBeGreaterThan(0);
    expect(gaps(japanese), key).toEqual(gaps(english));
  }
});

test("series become charts: layers share a colour with their band, the gain stands on the right, strangers are kept", () => {
  const spec = (name: string, group: string, scale: "linear" | "log" = "linear"): SeriesSpec => ({
    index: 0, name, unit: "", group, scale, help: "",
  });
  const charts = chartsOf([
    spec("mine/odd", "odd"),
    spec("optim/learning_rate", "learning_rate", "log"),
    spec("zspace/gain", "learning_rate"),
    ...["zbn1", "zbn2"].flatMap((layer) => ["mean", "p05", "p50", "p95"].map((q) => spec(`zspace/${layer}/radius_rel_${q}`, "radius"))),
    spec("train/loss", "loss"),
  ]);
  expect(charts.map((chart) => chart.key)).toEqual(["loss", "learning_rate", "radius", "odd"]);
  expect(charts[1]?.right).toEqual({ scale: "linear", fixed: [0, 1] });
  expect(charts[1]?.left.scale).toBe("log");
  expect(charts[2]?.curves.map((curve) => [curve.kind, curve.color])).toEqual([
    ["line", 0], ["band-low", 0], ["band-high", 0], ["line", 1], ["band-low", 1], ["band-high", 1],
  ]);
  expect(charts[3]?.primary).toBe(false);
});
