import { effect, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { ChartSpec } from "../charts/catalogue";
import { LineChart } from "../charts/lineChart";
import type { Marker } from "../charts/marks";
import { palette } from "../charts/palette";
import { schedule, unschedule } from "../charts/scheduler";
import { tint } from "../charts/tints";
import { t } from "../i18n/language";
import { duration, grouped, short } from "../lib/format";
import { look } from "../store/appearance";
import { byTime, chosen, comparing, extent, metric, moved, pointsOf, slots, timeAt, toggle, valueAt } from "../store/compare";
import { run, runs, version } from "../store/live";
import { painted } from "../store/paints";

const KEY = "compare";
/** What every run has; the watched run says what else there is. */
const USUAL = ["train/loss", "train/accuracy", "val/loss", "val/accuracy"];

interface Range {
  from: number;
  to: number;
}

interface CompareProps {
  /** Steers and alarms of the watched run. */
  markers: () => readonly Marker[];
  watch: (run: string) => void;
}

/** One curve of several runs in one chart, each run in its color, with the values at the pointer. */
export function ComparePanel({ markers, watch }: CompareProps) {
  const at = useSignal<number | null>(null);
  const zoom = useSignal<Range | null>(null);
  const colors = colorsOf(look.value);
  return (
    <section class="charts compare" aria-label={t("compare.title")} data-testid="compare">
      <Toolbar zoomed={zoom.value !== null} follow={() => (zoom.value = null)} at={at.value} />
      <Overlay markers={markers} colors={colors} at={at} zoom={zoom} />
      <Table colors={colors} at={at.value} watch={watch} />
    </section>
  );
}

function colorsOf(appearance: "dark" | "light"): Record<string, string> {
  const { curves } = palette();
  return Object.fromEntries(Object.entries(slots.value).map(([id, slot]) => [id, tint(slot, curves, appearance === "dark")]));
}

function Toolbar({ zoomed, follow, at }: { zoomed: boolean; follow: () => void; at: number | null }) {
  version("series");
  const names = [...new Set([...USUAL, metric.value, ...(run.value?.byName.keys() ?? [])])].filter((name) => name !== "perf/time");
  return (
    <div class="toolbar">
      <label class="compare-metric">
        <span class="hint">{t("compare.metric")}</span>
        <select data-testid="compare-metric" value={metric.value} onChange={(event) => (metric.value = event.currentTarget.value)}>
          {names.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
      </label>
      <div class="segments" role="group" aria-label={t("compare.axis")}>
        {([false, true] as const).map((time) => (
          <button
            key={String(time)}
            type="button"
            data-testid={time ? "axis-time" : "axis-step"}
            aria-pressed={byTime.value === time}
            onClick={() => (follow(), (byTime.value = time))}
          >
            {t(time ? "compare.time" : "compare.step")}
          </button>
        ))}
      </div>
      {zoomed && <button type="button" class="follow" onClick={follow}>{t("charts.follow")}</button>}
      <span class="hint">{at === null ? t("charts.hint") : place(at)}</span>
      <span class="grow" />
      <button type="button" data-testid="btn-compare-close" onClick={() => (comparing.value = false)}>{t("compare.close")}</button>
    </div>
  );
}

function place(x: number): string {
  return byTime.value ? duration(x) : `${t("header.step")} ${grouped(x)}`;
}

interface OverlayProps {
  markers: () => readonly Marker[];
  colors: Readonly<Record<string, string>>;
  at: { value: number | null };
  zoom: { value: Range | null };
}

function Overlay({ markers, colors, at, zoom }: OverlayProps) {
  const host = useRef<HTMLDivElement>(null);
  const log = useSignal(false);
  const drawn = useSignal({ markers: 0, curves: 0 });
  const shape = JSON.stringify([chosen.value, colors, byTime.value, metric.value, log.value]);

  useEffect(() => {
    const element = host.current;
    if (element === null) return undefined;
    const ids = [...chosen.peek()];
    const chart = new LineChart(element, specOf(ids, colors, log.peek()), log.peek(), {
      hover: (x) => (at.value = x),
      zoom: (range) => (zoom.value = range),
      painted: (count, step) => {
        const curves = ids.filter((id) => pointsOf(id).steps.length > 0).length;
        const before = drawn.peek();
        if (before.markers !== count.markers || before.curves !== curves) drawn.value = { markers: count.markers, curves };
        painted(KEY, step);
      },
    });
    const draw = (): void => chart.update(ids.map(pointsOf), zoom.value ?? extent(), marksOf(markers()));
    const stop = effect(() => {
      void moved.value;
      void zoom.value;
      markers();
      schedule(KEY, draw);
    });
    const observer = new ResizeObserver(() => (chart.resize(), schedule(KEY, draw)));
    observer.observe(element);
    return () => {
      stop();
      observer.disconnect();
      unschedule(KEY);
      chart.destroy();
    };
  }, [shape]);

  const name = t("compare.chart", { metric: metric.value, count: chosen.value.length });
  return (
    <article class="chart compare-chart" data-testid="compare-chart" data-markers={drawn.value.markers} data-curves={drawn.value.curves}>
      <div class="chart-head">
        <h3>{name}</h3>
        <span class="grow" />
        <button type="button" class="chart-button" aria-pressed={log.value} aria-label={t("charts.log", { name })} onClick={() => (log.value = !log.value)}>
          log
        </button>
      </div>
      <div class="plot" ref={host} role="img" aria-label={name} />
      {drawn.value.curves === 0 && <p class="no-points">{t("compare.empty")}</p>}
    </article>
  );
}

function specOf(ids: readonly string[], colors: Readonly<Record<string, string>>, log: boolean): ChartSpec {
  return {
    key: KEY,
    primary: true,
    left: { scale: log ? "log" : "linear", fixed: null },
    right: null,
    seconds: byTime.peek(),
    curves: ids.map((id, k) => ({ series: id, label: id, color: k, kind: "line", axis: "left", tint: colors[id] ?? "#888888" })),
  };
}

/** The marks of the watched run, where it is one of those that are compared. */
function marksOf(markers: readonly Marker[]): Marker[] {
  const id = run.peek()?.id ?? "";
  if (!chosen.peek().includes(id)) return [];
  if (!byTime.peek()) return [...markers];
  return markers.flatMap((marker) => {
    const step = timeAt(id, marker.step);
    if (step === null) return [];
    if (marker.until === undefined) return [{ ...marker, step }];
    return [{ ...marker, step, until: timeAt(id, marker.until) ?? step }];
  });
}

function Table({ colors, at, watch }: { colors: Readonly<Record<string, string>>; at: number | null; watch: (run: string) => void }) {
  void moved.value;
  version("run");
  const known = new Map((runs.value ?? []).map((one) => [one.id, one]));
  return (
    <table class="compare-table" data-testid="compare-legend">
      <thead>
        <tr>
          <th scope="col">{t("compare.run")}</th>
          <th scope="col" class="number">{t("compare.value")}</th>
          <th scope="col" class="number">{t(byTime.value ? "compare.time" : "compare.step")}</th>
          <th scope="col">{t("compare.status")}</th>
          <th />
        </tr>
      </thead>
      <tbody>
        {chosen.value.map((id) => {
          const summary = known.get(id);
          const name = summary?.name || id;
          const here = valueAt(pointsOf(id), at);
          const focused = run.value?.id === id;
          return (
            <tr key={id} data-testid={`compared-${id}`} class={focused ? "focused" : ""}>
              <th scope="row">
                <span class="compared-run">
                  <i class="swatch" style={{ "--swatch": colors[id] ?? "#888888" }} />
                  <button type="button" class="linklike" title={t("compare.focus", { name })} aria-current={focused} onClick={() => watch(id)}>{name}</button>
                  {focused && <span class="hint">{t("compare.focused")}</span>}
                </span>
              </th>
              <td class="number" data-testid={`value-${id}`}>{here === null ? "–" : short(here.value)}</td>
              <td class="number">{here === null ? "–" : byTime.value ? duration(here.x) : grouped(here.x)}</td>
              <td>{summary === undefined ? "–" : t(`status.${summary.status}`)}</td>
              <td>
                <button type="button" class="chart-button" aria-label={t("compare.remove", { name })} title={t("compare.remove", { name })} onClick={() => toggle(id)}>×</button>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
