import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { chartsOf, type ChartSpec } from "../charts/catalogue";
import type { Marker } from "../charts/marks";
import { knobText, named, t } from "../i18n/language";
import { grouped } from "../lib/format";
import { alarms, merged, run, steers, version } from "../store/live";
import { moreCharts } from "../store/preferences";
import { cursor, span, zoom } from "../store/view";
import type { Value } from "../wire/messages";

/** Choices of how many of the newest steps to show; 0 is all. */
const SPANS = [0, 2000, 500] as const;

const charts = computed(() => {
  version("series");
  return chartsOf([...(run.value?.series.values() ?? [])].map((series) => series.spec));
});

/** Merged stretches, steers and alarms in the words of the page, for markers and their hover text; alarms are drawn above steers. */
export const markers = computed<readonly Marker[]>(() => [
  ...merged.value.map(({ first_step: step, step: until, frames }) => {
    const parts = { from: grouped(step), to: grouped(until), frames: grouped(frames) };
    return { step, until, text: t("charts.mergedAt", parts), alarm: false };
  }),
  ...steers.value.map((steer) => {
    const what = steer.knobs
      .map(({ knob, old, inForce }) => {
        return `${named("knob", knob)} ${knobText(knob, old as Value | null)} → ${knobText(knob, inForce as Value | null)}`;
      })
      .join(", ");
    return { step: steer.step, text: t("charts.steerAt", { what, step: grouped(steer.step) }), alarm: false };
  }),
  ...alarms.value.map(({ step, record }) => {
    const parts = { verb: t(`verb.${record.verb}`), step: grouped(step), reason: record.reason };
    return { step, text: t("charts.guardAt", parts), alarm: true };
  }),
]);

interface ChartsProps {
  /** Draws one chart. */
  card: (spec: ChartSpec) => ComponentChildren;
  /** Stands above them. */
  timeline: ComponentChildren;
}

/** The grid of charts. */
export function ChartsPanel({ card, timeline }: ChartsProps) {
  const all = charts.value;
  const first = all.filter((chart) => chart.primary);
  const rest = all.filter((chart) => !chart.primary);
  const id = run.value?.id ?? "";
  return (
    <section class="charts" aria-label={t("charts.title")}>
      <Toolbar />
      {timeline}
      <div class="chart-grid first">
        {first.map((spec) => (
          <div key={`${id} ${spec.key}`}>{card(spec)}</div>
        ))}
      </div>
      {rest.length > 0 && (
        <details class="more" open={moreCharts.value} onToggle={(event) => (moreCharts.value = event.currentTarget.open)}>
          <summary>{t("charts.more", { count: rest.length })}</summary>
          {moreCharts.value && (
            <div class="chart-grid">
              {rest.map((spec) => (
                <div key={`${id} ${spec.key}`}>{card(spec)}</div>
              ))}
            </div>
          )}
        </details>
      )}
    </section>
  );
}

function Toolbar() {
  const zoomed = zoom.value;
  const at = cursor.value;
  return (
    <div class="toolbar">
      <div class="segments" role="group" aria-label={t("charts.span")}>
        {SPANS.map((count) => (
          <button
            key={count}
            type="button"
            aria-pressed={zoomed === null && span.value === count}
            onClick={() => {
              span.value = count;
              zoom.value = null;
            }}
          >
            {count === 0 ? t("charts.all") : t("charts.last", { count: grouped(count) })}
          </button>
        ))}
      </div>
      {zoomed !== null && (
        <button type="button" class="follow" data-testid="btn-follow" onClick={() => (zoom.value = null)}>
          {t("charts.follow")}
        </button>
      )}
      <span class="hint">
        {at !== null
          ? `${t("header.step")} ${grouped(at)}`
          : zoomed !== null
            ? t("charts.zoomed", { from: grouped(zoomed.from), to: grouped(zoomed.to) })
            : t("charts.hint")}
      </span>
    </div>
  );
}
