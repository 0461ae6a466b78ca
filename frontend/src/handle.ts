import { heat } from "./store/heat";
import { journal, link, run, status, wishes } from "./store/live";
import { paints, type Paint } from "./store/paints";
import type { CommandRecord, KnobSpec, Value } from "./wire/messages";

/** A knob as a script sees it: what the engine declared, the value in force, and what a person has asked. */
export interface KnobState extends KnobSpec {
  asked: Value | null;
  refusal: string | null;
}

/** The state of the page as plain JSON. */
export interface PageState {
  run: string | null;
  name: string | null;
  status: string | null;
  detail: string;
  step: number;
  connection: string;
  merged: number;
  rev: number;
  knobs: KnobState[];
  commands: CommandRecord[];
  series: string[];
}

/** The newest heat maps as a script sees them. */
export interface HeatState {
  step: number;
  layer: string;
  /** Images, rows, columns. */
  shape: number[];
  maps: number[][][];
  raw_max: number[];
  predicted: number[];
  labels: number[];
}

/** A read-only handle for tests and scripts: `window.spiral`. Nothing in the page uses it. */
export interface Handle {
  /** Run, status, step, knobs, journal (oldest first). */
  state: () => PageState;
  /** The points of a series as they are in memory; empty when there is none of that name. */
  series: (name: string) => { steps: number[]; values: number[] };
  /** The newest heat maps: `maps[image][row][column]`, signed. */
  heatMaps: () => HeatState | null;
  /** The last raw frames, oldest first. */
  frames: (count?: number) => { step: number; time: number; values: Record<string, number> }[];
  /** By chart (and `heat-maps`): the newest step painted and when, in milliseconds since 1970. */
  paints: () => Record<string, Paint>;
}

function state(): PageState {
  const model = run.peek();
  const knobs = [...(model?.knobs.values() ?? [])].map((spec) => {
    const wish = wishes.peek()[spec.name];
    return { ...spec, asked: wish?.ask?.value ?? null, refusal: wish?.refusal?.reason ?? null };
  });
  return {
    run: model?.id ?? null,
    name: model?.summary.name ?? null,
    status: status.peek()?.status ?? null,
    detail: status.peek()?.detail ?? "",
    step: model?.step ?? 0,
    connection: link.peek().state,
    merged: model?.merged ?? 0,
    rev: model?.rev ?? 0,
    knobs,
    commands: [...journal.peek()].reverse(),
    series: [...(model?.byName.keys() ?? [])],
  };
}

/** The handle itself; `main` hangs it on the window. */
export const handle: Handle = {
  state,
  series: (name) => {
    const series = run.peek()?.byName.get(name);
    return { steps: [...(series?.steps.view() ?? [])], values: [...(series?.values.view() ?? [])] };
  },
  heatMaps: () => {
    const now = heat.peek();
    if (now === null) return null;
    const maps = now.maps.map(({ values, height, width }) =>
      Array.from({ length: height }, (_, row) => [...values.subarray(row * width, (row + 1) * width)]),
    );
    const { step, layer, raw_max, predicted, labels } = now.message;
    const shape = [...now.message.maps.shape];
    return { step, layer, shape, maps, raw_max: [...raw_max], predicted: [...predicted], labels: [...labels] };
  },
  frames: (count = 100) => {
    const model = run.peek();
    return (model?.frames ?? []).slice(-count).map(({ step, time, index, values }) => {
      const named: Record<string, number> = {};
      index.forEach((place, k) => {
        const name = model?.series.get(place)?.spec.name;
        if (name !== undefined) named[name] = values[k] as number;
      });
      return { step, time, values: named };
    });
  },
  paints: () => structuredClone(paints),
};

declare global {
  interface Window {
    spiral: Handle;
  }
}
