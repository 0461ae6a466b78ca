import type { ComponentChildren } from "preact";
import { t } from "../i18n/language";
import { grouped, shortOrDash } from "../lib/format";
import type { ColormapName } from "../lib/colormap";
import { heat, isSequence, mapless, pictures } from "../store/heat";
import { run } from "../store/live";
import { see, type SeeOptions } from "../store/preferences";

const COLORMAPS: readonly ColormapName[] = ["inferno", "viridis"];

/** The probe images with their heat maps, and what speaks for them; `tile` draws one. */
export function SeePanel({ tile }: { tile: (index: number) => ComponentChildren }) {
  const shown = pictures.value;
  const now = heat.value;
  const message = now?.message;
  const sub = message && { method: "Grad-CAM", layer: message.layer, step: grouped(message.step) };
  return (
    <section class="panel see" aria-label={t("see.title")}>
      <div class="panel-head">
        <h2>{t("see.title")}</h2>
        {sub && (
          <span class="hint" data-testid="heatmaps-step" data-step={message?.step}>
            {t("see.sub", sub)}
          </span>
        )}
      </div>
      {mapless.value ? (
        <p class="hint" data-testid="see-mapless">
          {t("see.mapless", { model: run.value?.summary.model ?? "" })}
        </p>
      ) : shown.length === 0 || message === undefined ? (
        <p class="hint">{t("see.none")}</p>
      ) : (
        <Evidence />
      )}
      <div class={shown.some(isSequence) ? "tiles sequences" : "tiles"}>{shown.map((_, index) => tile(index))}</div>
      {shown.length > 0 && <Options />}
    </section>
  );
}

function Evidence() {
  const message = heat.value?.message;
  if (message === undefined || run.value === null) return null;
  const right = message.predicted.filter((predicted, k) => predicted === message.labels[k]).length;
  return (
    <dl class="figures">
      <Figure words={t("see.right")} value={`${right}/${message.predicted.length}`} />
      {message.pointing !== null && (
        <Figure words={t("see.pointing")} value={shortOrDash(mean(message.pointing), 2)} testid="evidence-pointing" />
      )}
      {message.energy_over_area !== null && (
        <Figure words={t("see.energy")} value={shortOrDash(mean(message.energy_over_area), 3)} testid="evidence-energy" />
      )}
    </dl>
  );
}

function Figure({ words, value, testid }: { words: string; value: string; testid?: string }) {
  return (
    <div class="figure">
      <dt>{words}</dt>
      <dd data-testid={testid}>{value}</dd>
    </div>
  );
}

/** Mean of the finite values, NaN without any: an empty map has no energy and says nothing about the others. */
function mean(values: readonly number[]): number {
  const finite = values.filter((value) => Number.isFinite(value));
  return finite.reduce((sum, value) => sum + value, 0) / finite.length;
}

function Options() {
  const options = see.value;
  const change = (part: Partial<SeeOptions>): void => {
    see.value = { ...see.peek(), ...part };
  };
  return (
    <div class="options">
      <Toggle words={t("see.overlay")} on={options.overlay} testid="see-overlay" set={(overlay) => change({ overlay })} />
      <Toggle words={t("see.cells")} on={options.cells} testid="see-cells" set={(cells) => change({ cells })} />
      <Toggle words={t("see.lock")} on={options.lockScale} testid="see-lock" set={(lockScale) => change({ lockScale })} />
      <Toggle words={t("see.outline")} on={options.outline} testid="see-outline" set={(outline) => change({ outline })} />
      <label class="option">
        {t("see.opacity")}
        <input
          class="slider small"
          type="range"
          min={0}
          max={1}
          step={0.05}
          data-testid="see-opacity"
          value={options.opacity}
          style={{ "--filled": `${options.opacity * 100}%`, "--held": "-10px" }}
          onInput={(event) => change({ opacity: Number(event.currentTarget.value) })}
        />
      </label>
      <label class="option picker small">
        <span class="visually-hidden">{t("see.colormap")}</span>
        <select
          data-testid="see-colormap"
          value={options.colormap}
          onChange={(event) => change({ colormap: event.currentTarget.value as ColormapName })}
        >
          {COLORMAPS.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
        <i class={`ramp ramp-${options.colormap}`} aria-hidden="true" />
      </label>
    </div>
  );
}

function Toggle({ words, on, testid, set }: { words: string; on: boolean; testid: string; set: (on: boolean) => void }) {
  return (
    <label class="option toggle">
      <input type="checkbox" checked={on} data-testid={testid} onChange={(event) => set(event.currentTarget.checked)} />
      {words}
    </label>
  );
}
