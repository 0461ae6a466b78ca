import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { knobText, named, t } from "../i18n/language";
import { grouped } from "../lib/format";
import { plain, readNumber } from "../lib/number";
import { laterControl } from "../store/asks";
import { step, wishes } from "../store/live";
import { refuse, steer } from "../store/steering";
import type { KnobSpec, Value } from "../wire/messages";

interface LaterProps {
  spec: KnobSpec;
  disabled: boolean;
  open: Signal<boolean>;
}

/** A value for a later step: the form that asks for one, the one that waits, and why the last was refused. */
export function LaterStep({ spec, disabled, open }: LaterProps) {
  const { ask = null, refusal = null } = wishes.value[laterControl(spec.name)] ?? {};
  const id = `knob-${spec.name}-later`;
  return (
    <>
      {open.value && !disabled && <Form spec={spec} close={() => (open.value = false)} />}
      {ask !== null && (
        <p class="asked later-waits" data-testid={id} data-phase={ask.phase}>
          {t("steer.asked")} <b>{knobText(spec.name, ask.value)}</b> {t("steer.later.waits", { step: grouped(ask.atStep ?? 0) })}
        </p>
      )}
      {refusal !== null && (
        <p class="refusal" role="alert" data-testid={`${id}-refusal`}>
          {t("steer.later.refused", { reason: refusal.reason })}
        </p>
      )}
    </>
  );
}

function Form({ spec, close }: { spec: KnobSpec; close: () => void }) {
  const start = typeof spec.value === "number" ? plain(spec.value) : String(spec.value ?? "");
  const value = useSignal(start);
  const at = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const id = `knob-${spec.name}-later`;
  const offered = spec.type === "bool" ? ["true", "false"] : spec.type === "choice" ? (spec.choices ?? []) : null;
  const no = (text: string, reason: string): void => refuse(laterControl(spec.name), text, reason);
  const submit = (): void => {
    const read = readChosen(spec, value.value);
    if ("fault" in read) return no(value.value, read.fault);
    const text = at.value.trim();
    if (!/^\d{1,12}$/.test(text)) return no(value.value, t("steer.later.count", { text }));
    const done = step.peek();
    if (Number(text) <= done) return no(value.value, t("steer.later.over", { step: text, next: done + 1 }));
    close();
    void steer(spec.name, read.value, { atStep: Number(text) });
  };
  const keys = (event: KeyboardEvent): void => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && event.target instanceof HTMLInputElement) submit();
  };
  return (
    <div class="later-form" role="group" aria-label={t("steer.later.form", { name: named("knob", spec.name) })} onKeyDown={keys}>
      {offered === null ? (
        <input
          class="knob-number"
          data-testid={`${id}-value`}
          aria-label={t("steer.later.value")}
          inputMode="decimal"
          autocomplete="off"
          value={value.value}
          onInput={(event) => (value.value = event.currentTarget.value)}
        />
      ) : (
        <select
          data-testid={`${id}-value`}
          aria-label={t("steer.later.value")}
          value={value.value}
          onChange={(event) => (value.value = event.currentTarget.value)}
        >
          {offered.map((one) => (
            <option key={one} value={one}>
              {spec.type === "bool" ? knobText(spec.name, one === "true") : one}
            </option>
          ))}
        </select>
      )}
      <label>
        {t("steer.later.step")}
        <input
          class="knob-number"
          ref={field}
          data-testid={`${id}-step`}
          inputMode="numeric"
          autocomplete="off"
          value={at.value}
          onInput={(event) => (at.value = event.currentTarget.value)}
        />
      </label>
      <button type="button" data-testid={`${id}-ask`} onClick={submit}>
        {t("steer.later.ask")}
      </button>
    </div>
  );
}

/** What stands in the form's field, as the knob takes it. */
function readChosen(spec: KnobSpec, text: string): { value: Value } | { fault: string } {
  if (spec.type === "bool") return { value: text === "true" };
  if (spec.type === "choice") return { value: text };
  const read = readNumber(text);
  return "value" in read ? read : { fault: t(read.fault === "ambiguous" ? "steer.ambiguous" : "steer.notNumber", { text }) };
}
