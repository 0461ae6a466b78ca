import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { drawHeat } from "../charts/heatCanvas";
import { schedule, unschedule } from "../charts/scheduler";
import { drawSignal } from "../charts/signalCanvas";
import { t } from "../i18n/language";
import { short } from "../lib/format";
import { ZERO_PEAK } from "../lib/upsample";
import { heat, isSequence, lockedPeak, pictures } from "../store/heat";
import { run } from "../store/live";
import { painted } from "../store/paints";
import { see } from "../store/preferences";

/** The outline lies on a grey image and on any heat colour. */
const OUTLINE = "#7df9c0";

/** One probe image: the overlay, the verdict in words and mark, the raw peak and the evidence. */
export function HeatTile({ index }: { index: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const key = `heat ${index}`;
    const stop = effect(() => {
      const picture = pictures.value[index];
      const now = heat.value;
      const style = { ...see.value, peak: lockedPeak(), ink: OUTLINE };
      schedule(key, () => {
        if (canvas.current === null || picture === undefined) return;
        const draw = isSequence(picture) ? drawSignal : drawHeat;
        draw(canvas.current, picture, now?.maps[index] ?? null, picture.mask, style);
        if (now === null) return;
        canvas.current.dataset.step = String(now.message.step);
        painted("heat-maps", now.message.step);
      });
    });
    return () => {
      stop();
      unschedule(key);
    };
  }, [index]);

  const message = heat.value?.message;
  const label = pictures.value[index]?.label ?? -1;
  const predicted = message?.predicted[index];
  const right = predicted === label;
  const probability = message?.probability[index] ?? Number.NaN;
  const peak = message?.raw_max[index] ?? Number.NaN;
  const empty = message !== undefined && !(peak > ZERO_PEAK);
  const words = { predicted: className(predicted ?? -1), label: className(label) };
  const verdict = right ? t("see.verdict.right", words) : t("see.verdict.wrong", words);
  const alt = t("see.tile", { number: index + 1, verdict, probability: short(probability, 2) });
  return (
    <figure class={`tile ${message === undefined ? "" : right ? "right" : "wrong"}`} key={index} data-testid={`tile-${index}`}>
      <div class="frame">
        <canvas ref={canvas} data-testid={`heatmap-${index}`} role="img" aria-label={alt} title={verdict} />
        {empty && <span class="no-evidence">{t("see.evidence")}</span>}
      </div>
      {message !== undefined && (
        <figcaption>
          <span class="verdict">
            <span class="mark" aria-hidden="true">
              {right ? "✓" : "✗"}
            </span>
            <span class="class-name">{words.predicted}</span>
            <span class="probability">{short(probability, 2)}</span>
          </span>
          <span class="truth">{t("see.label", words)}</span>
          <Support index={index} />
          <span class="peak">{t("see.peak", { peak: short(peak, 2) })}</span>
        </figcaption>
      )}
    </figure>
  );
}

function Support({ index }: { index: number }) {
  const message = heat.value?.message;
  const energy = message?.energy_over_area?.[index];
  const hit = message?.pointing?.[index];
  if (energy === undefined && hit === undefined) return null;
  return (
    <span class="support">
      {hit !== undefined && (
        <i
          class={hit > 0 ? "target hit" : "target"}
          role="img"
          title={t(hit > 0 ? "see.hit" : "see.miss")}
          aria-label={t(hit > 0 ? "see.hit" : "see.miss")}
        />
      )}
      {energy !== undefined && (
        <span title={t("see.energy")}>{Number.isFinite(energy) ? `×${short(energy, 2)}` : "×–"}</span>
      )}
    </span>
  );
}

function className(index: number): string {
  return run.value?.started?.class_names[index] ?? (index < 0 ? "–" : String(index));
}
