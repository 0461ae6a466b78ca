import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { drawStrips } from "../charts/heatCanvas";
import { schedule, unschedule } from "../charts/scheduler";
import { t } from "../i18n/language";
import { short } from "../lib/format";
import { run, version } from "../store/live";
import { see } from "../store/preferences";
import { numbers } from "../wire/arrays";
import type { Strip } from "../wire/messages";

/** What is told of each layer beside its strip: the series' last part of the name, and its sign. */
const TOLD = [
  ["radius_rel_mean", "s r"],
  ["blended_mean", "|p|"],
  ["jacobian_mean", "J"],
  ["curvature", "κ"],
  ["gain", "g"],
] as const;

/** Moments that a layer's picture shows, one row of screen pixels each. */
const ROWS = 44;

/** What a strip has one number for: the features of a layer, or the samples of the batch. */
function kindOf(name: string): "feature" | "sample" {
  return name.endsWith("/sample_radius") ? "sample" : "feature";
}

/** A strip as it is drawn. Samples are others at each step, so that only their spread means something: it is sorted. */
function drawn(strip: Strip): Float32Array {
  const values = numbers(strip.values) as Float32Array;
  return kindOf(strip.name) === "sample" ? values.sort() : values;
}

/** The Z-space layers: one strip of radii and the newest numbers for each. */
export function ZSpacePanel() {
  version("strips");
  const strips = [...(run.value?.strips.keys() ?? [])];
  return (
    <section class="panel zspace" aria-label={t("zspace.title")}>
      <div class="panel-head">
        <h2>{t("zspace.title")}</h2>
        <span class="hint" data-testid="zspace-sub">
          {t(`zspace.sub.${kindOf(strips[0] ?? "")}`)}
        </span>
        <span class="ramp-scale" aria-hidden="true">
          0<i class={`ramp ramp-${see.value.colormap}`} />1
        </span>
      </div>
      {strips.length === 0 && <p class="hint">{t("zspace.none")}</p>}
      {strips.map((name) => (
        <Layer key={name} name={name} />
      ))}
    </section>
  );
}

function Layer({ name }: { name: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const layer = name.split("/")[1] ?? name;
  version("frames");
  useEffect(() => {
    const key = `strip ${name}`;
    const stop = effect(() => {
      version("strips");
      const strips = run.value?.strips.get(name) ?? [];
      const colormap = see.value.colormap;
      schedule(key, () => {
        if (canvas.current === null) return;
        drawStrips(canvas.current, strips.map(drawn), ROWS, colormap);
      });
    });
    return () => {
      stop();
      unschedule(key);
    };
  }, [name]);
  const strip = run.value?.strips.get(name)?.at(-1);
  const count = strip?.values.shape[0] ?? 0;
  const last = (part: string): number => run.value?.byName.get(`zspace/${layer}/${part}`)?.values.last ?? Number.NaN;
  const mean = last("radius_rel_mean");
  return (
    <div class="layer">
      <span class="layer-name">{layer}</span>
      <canvas
        ref={canvas}
        class="strip"
        role="img"
        data-testid={`strip-${layer}`}
        aria-label={t(`zspace.strip.${kindOf(name)}`, { layer, count, mean: short(mean, 2) })}
      />
      <span class="layer-numbers">
        {TOLD.map(([part, sign]) => (
          <span key={part} title={`zspace/${layer}/${part}`}>
            {sign} <b>{short(last(part), 2)}</b>
          </span>
        ))}
      </span>
    </div>
  );
}
