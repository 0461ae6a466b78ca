import { effect, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { ChartSpec } from "../charts/catalogue";
import { LineChart } from "../charts/lineChart";
import type { Drawn, Marker } from "../charts/marks";
import { schedule, unschedule } from "../charts/scheduler";
import { named, t } from "../i18n/language";
import type { Points } from "../lib/decimate";
import { short } from "../lib/format";
import { STRINGS, type StringKey } from "../i18n/strings";
import { look } from "../store/appearance";
import { run, version } from "../store/live";
import { painted } from "../store/paints";
import { cursor, visible, zoom } from "../store/view";

/** How near the pointer must be to a marker to read it, in pixels. */
const NEAR = 7;

interface CardProps {
  spec: ChartSpec;
  /** The steers that took effect and the alarms of guards, in words. */
  markers: () => readonly Marker[];
  expand: (spec: ChartSpec, log: boolean) => void;
}

/** The points of a chart's curves, as they are in memory. */
export function pointsOf(spec: ChartSpec): Points[] {
  const model = run.peek();
  return spec.curves.map((curve) => {
    const series = model?.byName.get(curve.series);
    return { steps: series?.steps.view() ?? new Float64Array(0), values: series?.values.view() ?? new Float64Array(0) };
  });
}

/** One chart with its title, legend and markers. */
export function ChartCard({ spec, markers, expand }: CardProps) {
  const host = useRef<HTMLDivElement>(null);
  const legend = useRef<HTMLDivElement>(null);
  const log = useSignal(spec.left.scale === "log");
  const tip = useSignal<{ left: number; text: string } | null>(null);
  const drawn = useSignal<Drawn>({ markers: 0, alarms: 0 });
  const blank = useSignal(false);
  const name = named("chart", spec.key);
  const appearance = look.value;

  useEffect(() => {
    const element = host.current;
    if (element === null) return undefined;
    const chart = new LineChart(element, spec, log.value, {
      hover: (step) => {
        cursor.value = step;
        tip.value = step === null ? null : nearest(chart, markers(), step);
      },
      zoom: (range) => (zoom.value = range),
      painted: (count, step) => {
        const { markers: all, alarms } = drawn.peek();
        if (count.markers !== all || count.alarms !== alarms) drawn.value = count;
        painted(spec.key, step);
      },
    });
    const key = `chart ${spec.key}`;
    const draw = (): void => {
      const points = pointsOf(spec);
      blank.value = points.every(({ steps }) => steps.length === 0);
      chart.update(points, visible(), markers());
      fillLegend(legend.current, spec);
    };
    const stop = effect(() => {
      version("frames");
      version("series");
      visible();
      markers();
      schedule(key, draw);
    });
    const stopLegend = effect(() => {
      void cursor.value;
      fillLegend(legend.current, spec);
    });
    const stopTip = effect(() => {
      void zoom.value;
      tip.value = null;
    });
    const observer = new ResizeObserver(() => {
      chart.resize();
      schedule(key, draw);
    });
    observer.observe(element);
    return () => {
      stop();
      stopLegend();
      stopTip();
      observer.disconnect();
      unschedule(key);
      chart.destroy();
    };
  }, [spec, log.value, appearance]);

  const entries = spec.curves.filter((curve) => curve.label !== "");
  const noteKey = `note.${spec.key}`;
  return (
    <article
      class="chart"
      data-testid={`chart-${spec.key}`}
      data-markers={drawn.value.markers}
      data-alarms={drawn.value.alarms}
      aria-label={name}
    >
      <div class="chart-head">
        <h3 title={name}>{name}</h3>
        {noteKey in STRINGS && <span class="note">{t(noteKey as StringKey)}</span>}
        <span class="grow" />
        <button
          type="button"
          class="chart-button"
          data-testid={`chart-${spec.key}-log`}
          aria-pressed={log.value}
          aria-label={t("charts.log", { name })}
          title={t("charts.log", { name })}
          onClick={() => (log.value = !log.value)}
        >
          log
        </button>
        <button
          type="button"
          class="chart-button"
          data-testid={`chart-${spec.key}-expand`}
          aria-label={t("charts.expand", { name })}
          title={t("charts.expand", { name })}
          onClick={() => expand(spec, log.value)}
        >
          <svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
            <path d="M9.500 2H14v4.500M14 2L9 7M6.500 14H2V9.500M2 14l5-5" fill="none" stroke="currentColor" stroke-width="1.600" />
          </svg>
        </button>
      </div>
      <div class="legend" ref={legend}>
        {entries.map((curve) => (
          <span key={curve.series} class="legend-entry" title={curve.series}>
            <i
              class={curve.axis === "right" ? "swatch dashed" : "swatch"}
              style={{ "--swatch": `var(--curve-${(curve.color % 6) + 1})` }}
            />
            {curve.label} <b data-series={curve.series}>–</b>
          </span>
        ))}
      </div>
      <div class="plot" ref={host} role="img" aria-label={name} />
      {blank.value && <p class="no-points">{t("charts.waiting")}</p>}
      {tip.value !== null && (
        <div class="tip" style={{ left: `${tip.value.left}px` }} role="tooltip">
          {tip.value.text}
        </div>
      )}
    </article>
  );
}

function nearest(chart: LineChart, markers: readonly Marker[], step: number): { left: number; text: string } | null {
  const at = chart.position(step);
  const near = markers
    .map((marker) => ({ left: chart.position(Math.max(marker.step, Math.min(step, marker.until ?? marker.step))), text: marker.text }))
    .filter((marker) => Math.abs(marker.left - at) <= NEAR);
  const first = near[0];
  return first === undefined ? null : { left: first.left, text: near.map((marker) => marker.text).join("\n") };
}

/** Write the values at the pointer, or the newest ones; straight into the page, because it happens at every frame. */
function fillLegend(legend: HTMLElement | null, spec: ChartSpec): void {
  if (legend === null) return;
  const model = run.peek();
  const at = cursor.peek();
  const places = legend.querySelectorAll<HTMLElement>("[data-series]");
  const digits = places.length > 2 ? 3 : 4;
  for (const place of places) {
    const series = model?.byName.get(place.dataset.series ?? "");
    const index = series === undefined ? -1 : at === null ? series.steps.length - 1 : series.indexAt(at);
    const text = series === undefined || index < 0 ? "–" : short(series.values.at(index), digits);
    if (place.textContent !== text) {
      place.textContent = text;
      place.classList.toggle("odd", text === "NaN" || text.includes("∞"));
    }
  }
  const plot = legend.nextElementSibling;
  if (at === null && plot !== null) {
    const values = [...legend.querySelectorAll(".legend-entry")].map((entry) => entry.textContent).join(", ");
    plot.setAttribute("aria-label", t("charts.alt", { name: named("chart", spec.key), values }));
  }
}
