import { effect } from "@preact/signals";
import { run, touched } from "./live";
import { zoom, type Range } from "./view";

/** Points of one series in a part of the run. */
export interface FinerPoints {
  name: string;
  steps: number[];
  values: number[];
  /** There are more points than were asked for. */
  reduced: boolean;
}

/** Brings points from the server; given by `main`, so that the store knows no network. */
export type PointSource = (run: string, from: number, to: number, width: number) => Promise<FinerPoints[]>;

/** A zoom that lasts this long is worth asking for; wheel steps follow each other faster. */
const SETTLED_MS = 250;

/**
 * A snapshot holds two points for each pixel of the whole run. Zoomed in, that is coarse: fetch the part on screen and
 * put it in place of what was there. Every spike is in both; the finer points show what lies between.
 */
export function refineOnZoom(source: PointSource, width: number): void {
  let known: { run: string; range: Range }[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    const range = zoom.value;
    const model = run.value;
    clearTimeout(timer);
    if (range === null || model === null || ![...model.series.values()].some((series) => series.coarse)) return;
    const within = (one: Range): boolean => one.from <= range.from && one.to >= range.to;
    if (known.some((one) => one.run === model.id && within(one.range))) return;
    timer = setTimeout(() => {
      const from = Math.max(0, Math.floor(range.from));
      const to = Math.min(model.step, Math.ceil(range.to));
      source(model.id, from, to, width)
        .then((columns) => {
          if (run.peek() !== model) return;
          for (const { name, steps, values } of columns) model.byName.get(name)?.refine(from, to, steps, values);
          if (!columns.some((column) => column.reduced)) known = [...known, { run: model.id, range: { from, to } }];
          touched("frames");
        })
        .catch(() => undefined); // The coarse points stay; the connection says by itself when the server is gone.
    }, SETTLED_MS);
  });
  // A new snapshot is coarse again.
  effect(() => {
    if (run.value !== null) known = [];
  });
}
