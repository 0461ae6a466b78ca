import type { SeriesSpec } from "../wire/messages";

/** One line, or one edge of a band, of a chart. */
export interface CurveSpec {
  /** Name of the series; for `floor` the series of the gain g, drawn as 1 - g. */
  series: string;
  /** What the legend says; empty for lines that share the entry of another. */
  label: string;
  /** Place in the palette, from 0. */
  color: number;
  kind: "line" | "band-low" | "band-high" | "faint" | "floor";
  axis: "left" | "right";
  /** A colour of its own, #rrggbb, in the place of the palette's. */
  tint?: string;
}

/** One side of a chart. */
export interface AxisSpec {
  scale: "linear" | "log";
  /** Bounds that never move, for shares; null follows the data. */
  fixed: [number, number] | null;
}

/** A chart: what it draws and how. */
export interface ChartSpec {
  /** The group of its series. */
  key: string;
  /** Drawn at once, or only under "more charts". */
  primary: boolean;
  curves: CurveSpec[];
  left: AxisSpec;
  right: AxisSpec | null;
  /** The axis counts seconds, not steps. */
  seconds?: boolean;
}

/** The charts that are shown first, in their order. */
const PRIMARY = ["loss", "accuracy", "learning_rate", "radius", "jacobian", "gradient_norm", "pointing", "throughput"];

/** Series that belong to the right axis of their chart. */
const RIGHT = new Set(["zspace/gain", "xai/energy_over_area", "perf/steps_per_second"]);

/** Shares: their axis is 0..1 whatever the data are. */
const SHARES = new Set(["accuracy", "pointing", "probability", "saturation"]);

const UNIT: [number, number] = [0, 1];

/** Series that say when a step was done: for axes of time, and nothing to look at by themselves. */
const CLOCK = "clock";

/** Arrange declared series into charts; a group that this table does not know becomes a plain chart. */
export function chartsOf(declared: readonly SeriesSpec[]): ChartSpec[] {
  const groups = new Map<string, SeriesSpec[]>();
  for (const spec of declared.filter(({ group }) => group !== CLOCK)) groups.set(spec.group, [...(groups.get(spec.group) ?? []), spec]);
  const gains = declared.filter((spec) => /^zspace\/.+\/gain$/.test(spec.name)).map((spec) => spec.name);
  const charts = [...groups].map(([key, specs]) => chart(key, specs, gains));
  const rank = (key: string): number => (PRIMARY.indexOf(key) + PRIMARY.length + 1) % (PRIMARY.length + 1);
  return charts.sort((a, b) => rank(a.key) - rank(b.key));
}

function chart(key: string, specs: readonly SeriesSpec[], gains: readonly string[]): ChartSpec {
  const layers = [...new Set(specs.map((spec) => layerOf(spec.name)).filter((layer) => layer !== null))];
  const curves: CurveSpec[] = [];
  specs.forEach((spec, place) => {
    const layer = layerOf(spec.name);
    const color = layer === null ? place : layers.indexOf(layer);
    const kind = kindOf(spec.name);
    if (kind === null) return;
    const axis = RIGHT.has(spec.name) ? "right" : "left";
    curves.push({ series: spec.name, label: kind === "line" ? labelOf(spec, layer) : "", color, kind, axis });
  });
  if (key === "jacobian") {
    for (const gain of gains) {
      const color = layers.indexOf(layerOf(gain) ?? "");
      if (color >= 0) curves.push({ series: gain, label: "", color, kind: "floor", axis: "left" });
    }
  }
  const left = specs.filter((spec) => !RIGHT.has(spec.name));
  const right = specs.filter((spec) => RIGHT.has(spec.name));
  return {
    key,
    primary: PRIMARY.includes(key),
    curves,
    left: axisOf(left, SHARES.has(key)),
    right: right.length > 0 ? axisOf(right, key === "learning_rate") : null,
  };
}

function axisOf(specs: readonly SeriesSpec[], share: boolean): AxisSpec {
  const log = specs.length > 0 && specs.every((spec) => spec.scale === "log");
  return { scale: log ? "log" : "linear", fixed: share ? UNIT : null };
}

/** `zbn1` of `zspace/zbn1/radius_mean`; null for a series of the whole run. */
function layerOf(name: string): string | null {
  const parts = name.split("/");
  return parts.length === 3 ? (parts[1] as string) : null;
}

/** Quantiles become bands; the median and the raw quantiles of a mean are left to the band. */
function kindOf(name: string): CurveSpec["kind"] | null {
  if (name.endsWith("/jacobian_p05")) return "faint";
  if (name.endsWith("_p05")) return "band-low";
  if (name.endsWith("_p95")) return "band-high";
  if (name.endsWith("_p50")) return null;
  return "line";
}

function labelOf(spec: SeriesSpec, layer: string | null): string {
  if (layer !== null) return layer;
  const [group, name] = spec.name.split("/") as [string, string | undefined];
  return group === "train" || group === "val" ? group : (name ?? group).replace(/_/g, " ");
}
