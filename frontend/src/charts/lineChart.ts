import uPlot from "uplot";
import { align, alone, decimate, type Points } from "../lib/decimate";
import { duration, short } from "../lib/format";
import type { AxisSpec, ChartSpec, CurveSpec } from "./catalogue";
import { drawMarkers, drawOddPoints, type Drawn, type Marker, type OddPoint } from "./marks";
import { faded, palette, type Palette } from "./palette";

/** What a chart tells the page. */
export interface ChartEvents {
  /** The step under the pointer; null when it has left. */
  hover: (step: number | null) => void;
  /** A person chose a part of the step axis; null: back to following. */
  zoom: (range: { from: number; to: number } | null) => void;
  /** Painted: the markers in view, and the newest step that has a point. */
  painted: (drawn: Drawn, step: number | null) => void;
}

const SYNC_KEY = "spiral";
const FONT = '10.5px ui-sans-serif, system-ui, "Noto Sans", "Noto Sans CJK JP", sans-serif';
const WHEEL_FACTOR = 1.25;
const POINT = 5;
const LEAST_SPAN = 4;

/** A uPlot chart of one `ChartSpec`: decimated lines, bands, steer markers and marks for NaN. */
export class LineChart {
  private plot: uPlot;
  private colors: Palette;
  private markers: readonly Marker[] = [];
  private odd: OddPoint[] = [];
  private range = { from: 0, to: 1 };
  private newest: number | null = null;

  constructor(
    private readonly host: HTMLElement,
    private readonly spec: ChartSpec,
    private readonly log: boolean,
    private readonly events: ChartEvents,
  ) {
    this.colors = palette();
    this.plot = this.build();
  }

  /** Pixels of the plotting area from left to right. */
  get pixels(): number {
    return Math.max(50, Math.round(this.plot.bbox.width / devicePixelRatio));
  }

  /** Draw: `curves[k]` belongs to `spec.curves[k]`. */
  update(curves: readonly Points[], range: { from: number; to: number }, markers: readonly Marker[]): void {
    this.range = range;
    this.markers = markers;
    const drawn = curves.map((points, k) => {
      const reduced = decimate(points, range.from, range.to, this.pixels);
      return this.spec.curves[k]?.kind === "floor" ? floor(reduced) : reduced;
    });
    this.odd = drawn.flatMap((points, k) => this.oddPoints(points, this.spec.curves[k] as CurveSpec));
    const shown = drawn.map((points, k) => (this.isLog(this.spec.curves[k] as CurveSpec) ? positive(points) : points));
    const { steps, columns } = align(shown);
    this.newest = steps[steps.length - 1] ?? null;
    this.plot.setData([steps, ...columns] as uPlot.AlignedData);
  }

  /** Fit the host's size. */
  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (width > 0 && height > 0 && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    }
  }

  destroy(): void {
    this.plot.destroy();
  }

  /** Pixels from the host's left edge to a step. */
  position(step: number): number {
    return this.plot.valToPos(step, "x") + this.plot.over.offsetLeft;
  }

  private isLog(curve: CurveSpec): boolean {
    return curve.axis === "left" ? this.log : this.spec.right?.scale === "log";
  }

  private oddPoints(points: Points, curve: CurveSpec): OddPoint[] {
    const odd: OddPoint[] = [];
    const log = this.isLog(curve);
    for (let k = 0; k < points.steps.length; k++) {
      const value = points.values[k] as number;
      if (Number.isFinite(value) && (!log || value > 0)) continue;
      odd.push({ step: points.steps[k] as number, color: curve.color, edge: Number.isFinite(value) ? "bottom" : "top" });
    }
    return odd;
  }

  private build(): uPlot {
    const { spec } = this;
    const right = spec.right;
    const scales: uPlot.Scales = {
      x: { time: false, range: () => [this.range.from, this.range.to] },
      left: yScale({ ...spec.left, scale: this.log ? "log" : "linear" }),
    };
    const axes: uPlot.Axis[] = [this.axis({ scale: "x", size: 22 }, spec.seconds === true ? duration : grouped), this.axis({ scale: "left", size: 46 }, short)];
    if (right !== null) {
      scales.right = yScale(right);
      axes.push(this.axis({ scale: "right", size: 38, side: 1, grid: { show: false } }, short));
    }
    return new uPlot(
      {
        width: Math.max(80, this.host.clientWidth),
        height: Math.max(60, this.host.clientHeight),
        padding: [8, right === null ? 10 : 0, 0, 0],
        scales,
        axes,
        series: [{}, ...spec.curves.map((curve) => this.line(curve))],
        bands: this.bands(),
        legend: { show: false },
        cursor: {
          y: false,
          drag: { x: true, y: false, setScale: false },
          // Charts of another axis have nothing to do with the steps of the others.
          ...(spec.seconds === true ? {} : { sync: { key: SYNC_KEY, scales: ["x", null] as [string, null] } }),
          points: { size: 5 },
          bind: { dblclick: () => () => (this.events.zoom(null), null) },
        },
        hooks: {
          ready: [(plot) => this.listen(plot)],
          draw: [(plot) => this.drawn(plot)],
          setSelect: [(plot) => this.selected(plot)],
        },
      },
      [[], ...spec.curves.map(() => [])] as unknown as uPlot.AlignedData,
      this.host,
    );
  }

  private axis(part: uPlot.Axis, words: (value: number) => string): uPlot.Axis {
    return {
      font: FONT,
      stroke: () => this.colors.faint,
      gap: 4,
      ticks: { show: false },
      values: (_plot, splits) => splits.map((value) => (value === null || value === undefined ? "" : words(value))),
      ...part,
      grid: { stroke: () => this.colors.grid, width: 1, ...part.grid },
    };
  }

  private line(curve: CurveSpec): uPlot.Series {
    const color = curve.tint ?? this.colors.curves[curve.color % this.colors.curves.length] ?? "#888";
    // A point alone, such as a first evaluation, would be a line of no length.
    const points: uPlot.Series.Points = {
      show: false,
      size: POINT,
      fill: color,
      filter: (plot, index) => alone(plot.data[index] as (number | null | undefined)[]),
    };
    const base: uPlot.Series = { scale: curve.axis, spanGaps: false, points, stroke: color, width: 1.5 };
    switch (curve.kind) {
      case "band-low":
      case "band-high":
        return { ...base, width: 1, stroke: faded(color, 0.4) };
      case "faint":
        return { ...base, width: 1, stroke: faded(color, 0.6), dash: [3, 2] };
      case "floor":
        return { ...base, width: 1, stroke: faded(color, 0.8), dash: [1, 3] };
      case "line":
        return curve.axis === "right" ? { ...base, width: 1, dash: [6, 3] } : base;
    }
  }

  private bands(): uPlot.Band[] {
    const { curves } = this.spec;
    return curves.flatMap((high, k) => {
      if (high.kind !== "band-high") return [];
      const low = curves.findIndex((curve) => curve.kind === "band-low" && curve.color === high.color);
      const color = this.colors.curves[high.color % this.colors.curves.length] ?? "#888888";
      return low < 0 ? [] : [{ series: [k + 1, low + 1] as [number, number], fill: faded(color, 0.045) }];
    });
  }

  private drawn(plot: uPlot): void {
    drawOddPoints(plot, this.odd, this.colors);
    this.events.painted(drawMarkers(plot, this.markers, this.colors), this.newest);
  }

  private selected(plot: uPlot): void {
    const { left, width } = plot.select;
    if (width < 4) return;
    this.events.zoom({ from: plot.posToVal(left, "x"), to: plot.posToVal(left + width, "x") });
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  private listen(plot: uPlot): void {
    const { over } = plot;
    over.addEventListener("mousemove", (event) => this.events.hover(plot.posToVal(event.offsetX, "x")));
    over.addEventListener("mouseleave", () => this.events.hover(null));
    over.addEventListener(
      "wheel",
      (event) => {
        // A plain wheel belongs to the page, which would otherwise stop scrolling over every chart.
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        const { from, to } = this.range;
        const at = plot.posToVal(event.offsetX, "x");
        const factor = event.deltaY < 0 ? 1 / WHEEL_FACTOR : WHEEL_FACTOR;
        const width = Math.max(LEAST_SPAN, (to - from) * factor);
        const share = (at - from) / (to - from || 1);
        this.events.zoom({ from: at - share * width, to: at + (1 - share) * width });
      },
      { passive: false },
    );
  }
}

/** On a log axis a value that is not positive has no place on the line; it is marked at the bottom edge instead. */
function positive(points: Points): Points {
  return { steps: points.steps, values: points.values.map((value) => (value > 0 ? value : Number.NaN)) };
}

/** The Jacobian of the projector never falls below 1 - g. */
function floor(gain: Points): Points {
  return { steps: gain.steps, values: gain.values.map((value) => 1 - value) };
}

function yScale(axis: AxisSpec): uPlot.Scale {
  if (axis.scale === "log") {
    return { distr: 3, log: 10, range: (_plot, low, high) => (low > 0 ? uPlot.rangeLog(low, high, 10, true) : [1e-4, 1]) };
  }
  const { fixed } = axis;
  if (fixed !== null) {
    return { range: (_plot, low, high) => [Math.min(fixed[0], low ?? fixed[0]), Math.max(fixed[1], high ?? fixed[1])] };
  }
  return {
    range: (_plot, low, high) => {
      if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
      const air = (high - low || Math.abs(high) || 1) * 0.08;
      return [low >= 0 ? Math.max(0, low - air) : low - air, high + air];
    },
  };
}

function grouped(value: number): string {
  return Number.isInteger(value) ? String(value).replace(/\B(?=(\d{3})+$)/g, ",") : "";
}
