import { computed, effect, signal } from "@preact/signals";
import { run, steers, step, version } from "./live";

/** A part of the step axis. */
export interface Range {
  from: number;
  to: number;
}

/** How much of the run the charts show while they follow it: the last N steps, 0 for all. */
export const span = signal(0);

/** The part that a person has zoomed to; null while the charts follow the newest step. */
export const zoom = signal<Range | null>(null);

/** The step under the pointer; null when it is on no chart. */
export const cursor = signal<number | null>(null);

/** The first step that any chart has. */
export function firstStep(): number {
  let first = Number.POSITIVE_INFINITY;
  for (const series of run.peek()?.series.values() ?? []) {
    if (series.steps.length > 0) first = Math.min(first, series.steps.at(0));
  }
  return Number.isFinite(first) ? first : 0;
}

/** The part of the step axis on screen now. */
export function visible(): Range {
  const zoomed = zoom.value;
  if (zoomed !== null) return zoomed;
  // A steer given while paused takes effect at the next step: it must be in view before that step is computed.
  const to = Math.max(1, step.value, steers.value[steers.value.length - 1]?.step ?? 0);
  const first = firstStep();
  const from = span.value > 0 ? Math.max(first, to - span.value) : first;
  return { from: Math.min(from, to - 1), to };
}

/** Steps per second over the last two seconds of frames; 0 when it cannot be told. */
export const rate = computed(() => {
  version("frames");
  const frames = run.value?.frames ?? [];
  const last = frames[frames.length - 1];
  if (last === undefined) return 0;
  let first = last;
  for (let k = frames.length - 1; k >= 0; k--) {
    const frame = frames[k];
    if (frame === undefined || last.time - frame.time > 2 || frame.step > first.step) break;
    first = frame;
  }
  return last.time > first.time ? (last.step - first.step) / (last.time - first.time) : 0;
});

/** Under another range the pointer, which has not moved, is on another step. */
effect(() => {
  void zoom.value;
  cursor.value = null;
});

/** Another run starts unzoomed. */
let watched: string | null = null;
effect(() => {
  const id = run.value?.id ?? null;
  if (id !== watched) {
    watched = id;
    zoom.value = null;
    cursor.value = null;
  }
});
