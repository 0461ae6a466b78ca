import { signal } from "@preact/signals";
import { valueText } from "../lib/format";
import { STRINGS, type StringKey } from "./strings";

/** Languages of the page, in the order of the table's columns. */
export const LANGUAGES = ["en", "ja"] as const;
export type Language = (typeof LANGUAGES)[number];

const STORED = "spiral.language";

function initial(): Language {
  let kept: string | null = null;
  try {
    kept = localStorage.getItem(STORED);
  } catch {
    // No storage: the browser's language decides.
  }
  const wanted = kept ?? globalThis.navigator?.language ?? "en";
  return wanted.startsWith("ja") ? "ja" : "en";
}

/** The language in force; components that call `t` follow it. */
export const language = signal<Language>(initial());

/** Choose a language, for this visit and the next. */
export function speak(next: Language): void {
  language.value = next;
  try {
    localStorage.setItem(STORED, next);
  } catch {
    // The choice lasts as long as the page.
  }
}

/** The words for a key, with `{x}` filled in from `parts`. */
export function t(key: StringKey, parts: Record<string, string | number> = {}): string {
  const words = STRINGS[key][LANGUAGES.indexOf(language.value)] ?? STRINGS[key][0];
  return words.replace(/\{(\w+)\}/g, (whole, name: string) => String(parts[name] ?? whole));
}

/** Knobs of one layer or of one guard rule each. */
const OF_LAYER: readonly [RegExp, StringKey][] = [
  [/^zspace\.(.+)\.gain$/, "knob.layer.gain"],
  [/^zspace\.(.+)\.curvature$/, "knob.layer.curvature"],
  [/^freeze\.(.+)$/, "knob.layer.freeze"],
  [/^guard\.(.+)\.on$/, "knob.guard.on"],
  [/^guard\.(.+)$/, "knob.guard.limit"],
];

/** The words for a name that a server chose, when the table has them; else the name itself, made readable. */
export function named(prefix: "chart" | "group" | "knob", name: string): string {
  const key = `${prefix}.${name}`;
  if (key in STRINGS) return t(key as StringKey);
  if (prefix === "knob") {
    for (const [pattern, words] of OF_LAYER) {
      const layer = pattern.exec(name)?.[1];
      if (layer !== undefined) return t(words, { layer });
    }
  }
  return name.replace(/[_.]/g, " ");
}

/** Knobs of which 0 means that what they steer is switched off. */
const OFF_AT_ZERO = new Set(["zspace.auto_gain", "optim.clip_norm", "telemetry.budget", "xai.every", "data.shortcut"]);

/** What a knob holds, in the words of the page. */
export function knobText(knob: string, value: boolean | number | string | null): string {
  if (typeof value === "boolean") return t(value ? "steer.on" : "steer.off");
  if (value === 0 && (knob === "run.rate" || knob === "run.steps")) return t("steer.unlimited");
  if (value === 0 && OFF_AT_ZERO.has(knob)) return t("steer.off");
  return valueText(value, t("steer.mixed"));
}

/** Who gave a command, and by which way. */
export function whoText({ actor, source }: { actor: string; source: string }): string {
  const key = `source.${source}`;
  const way = key in STRINGS ? t(key as StringKey) : source;
  return actor === "" || actor === source ? way : `${actor} (${way})`;
}

/** A time of day; with the date where it is not today's. */
export function timeText(when: Date, today: Date = new Date()): string {
  const same = when.toDateString() === today.toDateString();
  return when.toLocaleString(language.value, {
    ...(same ? {} : { month: "short", day: "numeric" }),
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  });
}
