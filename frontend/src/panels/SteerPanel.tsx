import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { t } from "../i18n/language";
import { short } from "../lib/format";
import { verbControl } from "../store/asks";
import { link, run, status, version, wishes } from "../store/live";
import { moreKnobs } from "../store/preferences";
import { say } from "../store/steering";
import { FINAL_STATUSES, type KnobSpec, type Verb } from "../wire/messages";

/** The knobs that a person reaches for first. */
const PROMINENT = ["optim.lr", "zspace.gain"];

interface SteerProps {
  /** Draws one knob; given from outside, so that panels do not know each other. */
  knob: (spec: KnobSpec, disabled: boolean) => ComponentChildren;
  journal: ComponentChildren;
}

/** Everything that steers: knobs, pause, resume, stop, and the journal of what was asked. */
export function SteerPanel({ knob, journal }: SteerProps) {
  version("knobs");
  const model = run.value;
  const knobs = [...(model?.knobs.values() ?? [])];
  const over = model === null || FINAL_STATUSES.includes(model.status.status);
  const disabled = over || link.value.state !== "open";
  version("status");
  const first = PROMINENT.map((name) => knobs.find((spec) => spec.name === name)).filter((spec) => spec !== undefined);
  const rest = knobs.filter((spec) => !PROMINENT.includes(spec.name));
  const gain = model?.knobs.get("zspace.gain")?.value;
  return (
    <section class="panel steer" id="steer" aria-label={t("steer.title")} tabIndex={-1}>
      <Verbs disabled={disabled} />
      {knobs.length === 0 && <p class="hint">{t("steer.none")}</p>}
      {first.map((spec) => (
        <div key={spec.name} class="prominent">
          {knob(spec, disabled)}
        </div>
      ))}
      {typeof gain === "number" && <p class="hint floor">{t("steer.floor", { floor: short(1 - gain) })}</p>}
      {rest.length > 0 && (
        <details
          class="more"
          open={moreKnobs.value}
          onToggle={(event) => (moreKnobs.value = event.currentTarget.open)}
          data-testid="more-knobs"
        >
          <summary>{t("steer.more")}</summary>
          {rest.map((spec) => (
            <div key={spec.name}>{knob(spec, disabled)}</div>
          ))}
        </details>
      )}
      {journal}
    </section>
  );
}

function Verbs({ disabled }: { disabled: boolean }) {
  const confirming = useSignal(false);
  const now = status.value?.status;
  const refusal = (["pause", "resume", "stop"] as const)
    .map((verb) => wishes.value[verbControl(verb)]?.refusal)
    .find((one) => one !== undefined && one !== null);
  return (
    <div class="verbs">
      <div class="verb-row" role="group" aria-label={t("steer.title")}>
        <VerbButton verb="pause" disabled={disabled || now === "paused"} act={() => void say("pause")} />
        <VerbButton verb="resume" disabled={disabled || now !== "paused"} act={() => void say("resume")} />
        <VerbButton verb="stop" disabled={disabled || confirming.value} act={() => (confirming.value = true)} />
      </div>
      {confirming.value && !disabled && (
        <div class="confirm" role="alertdialog" aria-label={t("verb.stop.sure")}>
          <span>{t("verb.stop.sure")}</span>
          <button
            type="button"
            class="danger"
            data-testid="btn-stop-confirm"
            ref={(button) => button?.focus()}
            onClick={() => {
              confirming.value = false;
              void say("stop");
            }}
          >
            {t("verb.stop.yes")}
          </button>
          <button type="button" data-testid="btn-stop-cancel" onClick={() => (confirming.value = false)}>
            {t("verb.stop.no")}
          </button>
        </div>
      )}
      {refusal !== undefined && (
        <p class="refusal" role="alert" data-testid="verb-refusal">
          {t("steer.refused", { reason: refusal.reason })}
        </p>
      )}
    </div>
  );
}

const ICONS = { pause: "M4 3h3v10H4zM9 3h3v10H9z", resume: "M4 2.500l9 5.500-9 5.500z", stop: "M3.500 3.500h9v9h-9z" } as const;

function VerbButton({ verb, disabled, act }: { verb: Exclude<Verb, "set">; disabled: boolean; act: () => void }) {
  const asking = (wishes.value[verbControl(verb)]?.ask ?? null) !== null;
  return (
    <button type="button" class={`verb verb-${verb}`} data-testid={`btn-${verb}`} disabled={disabled || asking} onClick={act}>
      {asking ? (
        <span class="spinner" aria-hidden="true" />
      ) : (
        <svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true">
          <path d={ICONS[verb]} fill="currentColor" />
        </svg>
      )}
      {t(`verb.${verb}`)}
    </button>
  );
}
