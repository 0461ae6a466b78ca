import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { ChartSpec } from "../charts/catalogue";
import type { Marker } from "../charts/marks";
import { drawLarge } from "../charts/plotly";
import { named, t } from "../i18n/language";
import type { Points } from "../lib/decimate";
import { decimate } from "../lib/decimate";
import { look } from "../store/appearance";

/** A chart opened full size; null for none. */
export type Opened = { spec: ChartSpec; log: boolean } | null;

/** Pixels of the largest screen that the large chart is reduced for; Plotly slows down beyond some 10,000 points. */
const PIXELS = 2000;

interface LargeProps {
  opened: Signal<Opened>;
  points: (spec: ChartSpec) => readonly Points[];
  markers: () => readonly Marker[];
}

/** A dialog with one chart drawn by Plotly: a still picture of the moment it was opened, to explore and to save. */
export function LargeChart({ opened, points, markers }: LargeProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const host = useRef<HTMLDivElement>(null);
  const note = useSignal("");
  const now = opened.value;
  const appearance = look.value;

  useEffect(() => {
    const element = host.current;
    if (now === null || element === null) return undefined;
    if (dialog.current?.open === false) dialog.current.showModal();
    note.value = t("charts.loading");
    let gone = false;
    let clean = (): void => undefined;
    const curves = points(now.spec).map((curve, k) => {
      const reduced = decimate(curve, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, PIXELS);
      if (now.spec.curves[k]?.kind !== "floor") return reduced;
      return { steps: reduced.steps, values: reduced.values.map((gain) => 1 - gain) };
    });
    drawLarge(element, now.spec, curves, markers(), now.log)
      .then((plotly) => {
        clean = () => plotly.purge(element);
        if (gone) clean();
        else note.value = "";
      })
      .catch((error: unknown) => {
        note.value = t("charts.loadFailed", { reason: error instanceof Error ? error.message : String(error) });
      });
    return () => {
      gone = true;
      clean();
    };
  }, [now, appearance]);

  if (now === null) return null;
  return (
    <dialog class="large" ref={dialog} data-testid="large-chart" onClose={() => (opened.value = null)}>
      <div class="chart-head">
        <h2>{named("chart", now.spec.key)}</h2>
        <span class="grow" />
        <button type="button" data-testid="large-chart-close" onClick={() => dialog.current?.close()}>
          {t("charts.close")}
        </button>
      </div>
      {note.value !== "" && <p class="hint">{note.value}</p>}
      <div class="large-plot" ref={host} />
    </dialog>
  );
}
