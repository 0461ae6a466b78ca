import { knobText, t, whoText } from "../i18n/language";
import { grouped } from "../lib/format";
import type { Refusal } from "../store/asks";
import { status, version, wishes } from "../store/live";
import { steer } from "../store/steering";
import type { KnobSpec } from "../wire/messages";

interface StateProps {
  spec: KnobSpec;
  disabled: boolean;
  /** A value is being chosen and was not asked for yet. */
  preview: boolean;
}

/** What is in force since when, what is asked, and why the last wish was refused. */
export function KnobState({ spec, disabled, preview }: StateProps) {
  version("knobs");
  const { ask = null, refusal = null } = wishes.value[spec.name] ?? {};
  const id = `knob-${spec.name}`;
  /** Nobody is there to take what is asked; it is kept until the engine is heard again. */
  const waits = status.value?.status === "lost";
  return (
    <>
      <div class="knob-state" id={`${id}-state`} aria-live="polite">
        <span class="inforce" data-testid={`${id}-inforce`} data-value={spec.value === null ? "mixed" : String(spec.value)}>
          <span class="soft">{t("steer.inforce")}</span> <b>{knobText(spec.name, spec.value)}</b>{" "}
          <span class="soft">{t("steer.since", { step: spec.since })}</span>
        </span>
        {ask !== null ? (
          <span class="asked" data-testid={`${id}-asked`} data-phase={ask.phase}>
            {!waits && <span class="spinner" aria-hidden="true" />}
            {t("steer.asked")} <b>{knobText(spec.name, ask.value)}</b>
            {waits && ` · ${t("steer.waits")}`}
          </span>
        ) : (
          preview && <span class="asked preview">{t("steer.preview")}</span>
        )}
      </div>
      {refusal !== null && (
        <p class="refusal" role="alert" data-testid={`${id}-refusal`} data-stale={refusal.stale !== undefined}>
          {refusalText(spec.name, refusal)}
          {refusal.stale !== undefined && (
            <button
              type="button"
              data-testid={`${id}-again`}
              disabled={disabled}
              onClick={() => void steer(spec.name, refusal.value)}
            >
              {t("steer.again", { asked: knobText(spec.name, refusal.value) })}
            </button>
          )}
        </p>
      )}
    </>
  );
}

/** Why a wish was refused: who was first, where somebody was. */
function refusalText(knob: string, { reason, value, stale }: Refusal): string {
  if (stale === undefined) return t("steer.refused", { reason });
  const asked = knobText(knob, value);
  const by = stale.by;
  if (by === null) return t("steer.stale.unknown", { asked, value: knobText(knob, stale.inForce) });
  const change = by.changes.find((one) => one.knob === knob);
  return t("steer.stale", {
    asked,
    who: whoText(by),
    value: knobText(knob, change?.in_force ?? stale.inForce),
    step: grouped(by.step ?? 0),
  });
}
