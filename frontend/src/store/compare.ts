import { batch, computed, signal } from "@preact/signals";
import type { Points } from "../lib/decimate";
import { lowerBound } from "../lib/growable";
import { numbers } from "../wire/arrays";
import type { Column, Compare, ServerToViewer } from "../wire/messages";
import { Series } from "./series";

/** The series that says when each step was done. */
const CLOCK = "perf/time";

/** Runs that are compared at once: more lines than this tell nothing apart. */
export const MOST_CHOSEN = 100;

/** What the page compares: the part of its state that a link carries. */
export interface Comparison {
  runs: readonly string[];
  metric: string;
  byTime: boolean;
}

/** The runs that are compared, in the order in which they were chosen. */
export const chosen = signal<readonly string[]>([]);

/** The series that is drawn of each of them. */
export const metric = signal("train/loss");

/** Whether runs are laid side by side by the time since each began, and not by step. */
export const byTime = signal(false);

/** Whether the comparison stands in the place of the charts. */
export const comparing = signal(false);

/** Grows with every point that comes in. */
export const moved = signal(0);

/** Which color a run has, from 0; it keeps it while others come and go. */
export const slots = signal<Readonly<Record<string, number>>>({});

interface Curves {
  values: Series;
  clock: Series;
}

const curves = new Map<string, Curves>();
let asked: { runs: readonly string[]; series: readonly string[] } = { runs: [], series: [] };
/** Points that come before the first answer belong to what was asked for before. */
let answered = false;

/** The runs that are compared, and what of them; null while nothing is. */
export const comparison = computed<Comparison | null>(() =>
  comparing.value && chosen.value.length > 0
    ? { runs: chosen.value, metric: metric.value, byTime: byTime.value }
    : null,
);

/** Choose the runs that are compared; each gets the first color that is free. Without any the comparison is over. */
export function choose(wanted: readonly string[]): void {
  const runs = [...new Set(wanted)].slice(0, MOST_CHOSEN);
  const kept: Record<string, number> = {};
  for (const run of runs) {
    const slot = slots.peek()[run];
    if (slot !== undefined) kept[run] = slot;
  }
  for (const run of runs) {
    if (kept[run] !== undefined) continue;
    const taken = new Set(Object.values(kept));
    let free = 0;
    while (taken.has(free)) free++;
    kept[run] = free;
  }
  batch(() => {
    slots.value = kept;
    chosen.value = runs;
    if (runs.length === 0) comparing.value = false;
  });
}

/** Take a run into the comparison, or out of it. */
export function toggle(run: string): void {
  const runs = chosen.peek();
  choose(runs.includes(run) ? runs.filter((one) => one !== run) : [...runs, run]);
}

/** What the server is to be asked for. */
export function request(wanted: Comparison | null, width: number): Compare {
  const series = wanted === null ? [] : [...new Set(wanted.byTime ? [wanted.metric, CLOCK] : [wanted.metric])];
  answered = false;
  asked = { runs: wanted?.runs ?? [], series };
  for (const run of [...curves.keys()]) if (!asked.runs.includes(run)) curves.delete(run);
  return { type: "compare", runs: [...asked.runs], series: [...series], width };
}

function fresh(): Curves {
  const empty = (name: string): Series => new Series({ index: 0, name, unit: "", group: "", scale: "linear", help: "" });
  return { values: empty("values"), clock: empty("clock") };
}

function of(entry: Curves, place: number): Series {
  return place === 0 ? entry.values : entry.clock;
}

/** Fold in what the server says of compared runs. */
export function receiveCompared(messages: readonly ServerToViewer[]): void {
  let changed = false;
  for (const message of messages) {
    if (message.type === "compared" && asked.runs.includes(message.run.id)) {
      const entry = fresh();
      for (const column of message.columns as Column[]) of(entry, column.index).load(numbers(column.steps), numbers(column.values));
      curves.set(message.run.id, entry);
      answered = changed = true;
    } else if (message.type === "points" && answered) {
      const places = numbers(message.place);
      const steps = numbers(message.steps);
      const values = numbers(message.values);
      const count = asked.series.length;
      for (let k = 0; k < places.length && count > 0; k++) {
        const place = places[k] as number;
        const entry = curves.get(asked.runs[Math.floor(place / count)] ?? "");
        if (entry !== undefined) of(entry, place % count).append(steps[k] as number, values[k] as number);
      }
      changed = true;
    }
  }
  if (changed) moved.value++;
}

/** The points of a compared run on the axis in force; none while they are not there. */
export function pointsOf(run: string): Points {
  const entry = curves.get(run);
  if (entry === undefined) return { steps: new Float64Array(0), values: new Float64Array(0) };
  const steps = entry.values.steps.view();
  const values = entry.values.values.view();
  if (!byTime.peek()) return { steps, values };
  const times = steps.map((step) => timeAt(run, step) ?? Number.NaN);
  // A run of an older engine says no times; it has no place on this axis.
  return times.length > 0 && Number.isNaN(times[0] as number)
    ? { steps: new Float64Array(0), values: new Float64Array(0) }
    : { steps: ascending(times), values };
}

/** A clock that was set back must not turn a line around. */
function ascending(times: Float64Array): Float64Array {
  for (let k = 1; k < times.length; k++) times[k] = Math.max(times[k] as number, times[k - 1] as number);
  return times;
}

/** Seconds from the first known step of a run to the end of another; null where no times are known. */
export function timeAt(run: string, step: number): number | null {
  const clock = curves.get(run)?.clock;
  if (clock === undefined || clock.steps.length === 0) return null;
  const steps = clock.steps.view();
  const times = clock.values.view();
  const start = times[0] as number;
  const right = Math.min(steps.length - 1, lowerBound(steps, step));
  const left = Math.max(0, right - 1);
  const span = (steps[right] as number) - (steps[left] as number);
  const share = span > 0 ? Math.min(1, Math.max(0, (step - (steps[left] as number)) / span)) : 1;
  return (times[left] as number) + share * ((times[right] as number) - (times[left] as number)) - start;
}

/** The value of a compared run at a place of the axis, or its newest; null where it has none. */
export function valueAt(points: Points, at: number | null): { x: number; value: number } | null {
  const index = at === null ? points.steps.length - 1 : lowerBound(points.steps, at + 1e-9) - 1;
  return index < 0 ? null : { x: points.steps[index] as number, value: points.values[index] as number };
}

/** The range that all compared runs fill together. */
export function extent(): { from: number; to: number } {
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  for (const run of chosen.peek()) {
    const { steps } = pointsOf(run);
    if (steps.length === 0) continue;
    from = Math.min(from, steps[0] as number);
    to = Math.max(to, steps[steps.length - 1] as number);
  }
  return to > from ? { from, to } : { from: 0, to: Math.max(1, to) };
}
