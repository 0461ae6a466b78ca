import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { knobText, named, t } from "../i18n/language";
import { plain, readNumber } from "../lib/number";
import { fromSlider, shareOf, stepped, toSlider, track, type Scale } from "../lib/scale";
import type { Wish } from "../store/asks";
import { unmet } from "../store/knobs";
import { run, status, version, wishes } from "../store/live";
import { refuse, steer } from "../store/steering";
import type { KnobSpec } from "../wire/messages";

/** How many arrow steps Page Up and Page Down make. */
const PAGE = 10;

interface KnobProps {
  spec: KnobSpec;
  disabled: boolean;
}

/** One knob, with the two values of a steer: what was asked and what is in force are both shown until they agree. */
export function KnobControl({ spec, disabled }: KnobProps) {
  version("knobs");
  const need = unmet(spec, run.value?.knobs ?? new Map());
  const held = need === null ? null : (run.value?.knobs.get(need.knob)?.value ?? null);
  const props = { spec, disabled: disabled || need !== null };
  return (
    <>
      {spec.type === "bool" ? <Switch {...props} /> : spec.type === "choice" ? <ChoiceKnob {...props} /> : <NumberKnob {...props} />}
      {need !== null && (
        <p class="hint locked" data-testid={`knob-${spec.name}-locked`}>
          {t("steer.locked", { knob: named("knob", need.knob), value: knobText(need.knob, held) })}
        </p>
      )}
    </>
  );
}

/** What a person reads first of a knob: what it is called here, and what it is called everywhere else. */
function KnobName({ spec, name }: { spec: KnobSpec; name: string }) {
  return (
    <span class="knob-title" title={spec.help}>
      <span class="knob-name">
        {name}
        {spec.unit !== "" && <span class="unit">{spec.unit}</span>}
      </span>
      <code class="knob-dotted">{spec.name}</code>
    </span>
  );
}

interface FrameProps {
  spec: KnobSpec;
  name: string;
  control: ComponentChildren;
}

/** A knob that is one small control beside its name. */
function SmallKnob({ spec, name, control }: FrameProps) {
  const wish = wishes.value[spec.name];
  const ask = wish?.ask ?? null;
  const refusal = wish?.refusal ?? null;
  return (
    <div
      class="knob"
      role="group"
      aria-label={name}
      data-testid={`knob-${spec.name}`}
      data-state={ask !== null ? "asked" : refusal !== null ? "refused" : "settled"}
    >
      <div class="knob-head">
        <KnobName spec={spec} name={name} />
        {control}
      </div>
      <KnobState spec={spec} ask={ask} refusal={refusal} preview={false} />
    </div>
  );
}

/** A knob that is on or off. */
function Switch({ spec, disabled }: KnobProps) {
  const name = named("knob", spec.name);
  const id = `knob-${spec.name}`;
  const on = (wishes.value[spec.name]?.ask?.value ?? spec.value) === true;
  const control = (
    <button
      type="button"
      role="switch"
      class="switch"
      data-testid={`${id}-switch`}
      aria-label={name}
      aria-describedby={`${id}-state`}
      aria-checked={on}
      disabled={disabled}
      onClick={() => void steer(spec.name, !on)}
    />
  );
  return <SmallKnob spec={spec} name={name} control={control} />;
}

/** A knob that holds one of a few words; choosing one asks for it. */
function ChoiceKnob({ spec, disabled }: KnobProps) {
  const name = named("knob", spec.name);
  const id = `knob-${spec.name}`;
  const control = (
    <select
      class="knob-choice"
      data-testid={`${id}-choice`}
      aria-label={name}
      aria-describedby={`${id}-state`}
      disabled={disabled}
      value={String(wishes.value[spec.name]?.ask?.value ?? spec.value)}
      onChange={(event) => void steer(spec.name, event.currentTarget.value)}
    >
      {(spec.choices ?? []).map((choice) => (
        <option key={choice} value={choice}>
          {choice}
        </option>
      ))}
    </select>
  );
  return <SmallKnob spec={spec} name={name} control={control} />;
}

/** A knob that holds a number: slider and number field. Moving previews, letting go asks. */
function NumberKnob({ spec, disabled }: KnobProps) {
  const draft = useSignal<number | null>(null);
  const typed = useSignal<string | null>(null);
  const wish = wishes.value[spec.name];
  const ask = wish?.ask ?? null;
  const refusal = wish?.refusal ?? null;
  const scale: Scale = { ...spec, whole: spec.type === "int" };
  const inForce = typeof spec.value === "number" ? spec.value : null;
  const asked = ask !== null && typeof ask.value === "number" ? ask.value : null;
  const shown = draft.value ?? asked ?? inForce ?? scale.low;
  const name = named("knob", spec.name);
  const id = `knob-${spec.name}`;

  const preview = (value: number): void => {
    draft.value = value;
  };
  const commit = (value: number | null = draft.peek()): void => {
    draft.value = null;
    typed.value = null;
    if (value !== null && (value !== (asked ?? inForce) || refusal !== null)) void steer(spec.name, value);
  };
  const commitTyped = (): void => {
    const text = typed.peek();
    if (text === null) return commit();
    const read = readNumber(text);
    if ("value" in read) return commit(read.value);
    typed.value = null;
    refuse(spec.name, text, t(read.fault === "ambiguous" ? "steer.ambiguous" : "steer.notNumber", { text }));
  };
  const arrows = (event: KeyboardEvent, horizontal: boolean): void => {
    const count = arrowCount(event.key, horizontal);
    const end = horizontal ? { Home: scale.low, End: scale.high }[event.key] : undefined;
    if (event.key === "Escape") {
      draft.value = null;
      typed.value = null;
    } else if (event.key === "Enter") commitTyped();
    else if (count !== 0 || end !== undefined) {
      event.preventDefault();
      typed.value = null;
      preview(end ?? stepped(shown, count, scale));
    }
  };
  const released = (event: KeyboardEvent): void => {
    if (arrowCount(event.key, true) !== 0 || event.key === "Home" || event.key === "End") {
      if (draft.peek() !== null) commit();
    }
  };

  return (
    <div
      class="knob"
      role="group"
      aria-label={name}
      data-testid={id}
      data-mixed={spec.value === null && ask === null && draft.value === null}
      data-state={ask !== null ? "asked" : refusal !== null ? "refused" : "settled"}
    >
      <div class="knob-head">
        <KnobName spec={spec} name={name} />
        <input
          class="knob-number"
          data-testid={`${id}-number`}
          aria-label={t("steer.number", { name })}
          aria-describedby={`${id}-state`}
          inputMode="decimal"
          autocomplete="off"
          disabled={disabled}
          value={typed.value ?? (draft.value === null && asked === null && inForce === null ? "" : plain(shown))}
          placeholder={inForce === null ? t("steer.mixed") : ""}
          onInput={(event) => (typed.value = event.currentTarget.value)}
          onKeyDown={(event) => arrows(event, false)}
          onKeyUp={released}
          onBlur={commitTyped}
        />
      </div>
      <input
        class="slider"
        type="range"
        {...track(scale)}
        data-testid={`${id}-slider`}
        aria-label={t("steer.slider", { name })}
        aria-valuetext={knobText(spec.name, shown)}
        aria-describedby={`${id}-state`}
        disabled={disabled}
        value={toSlider(shown, scale)}
        style={{ "--filled": `${100 * shareOf(shown, scale)}%`, "--held": heldAt(inForce, scale) }}
        onInput={(event) => preview(fromSlider(Number(event.currentTarget.value), scale))}
        onChange={(event) => {
          preview(fromSlider(Number(event.currentTarget.value), scale));
          commit();
        }}
        onKeyDown={(event) => arrows(event, true)}
        onKeyUp={released}
      />
      <KnobState spec={spec} ask={ask} refusal={refusal} preview={draft.value !== null} />
    </div>
  );
}

interface KnobStateProps extends Wish {
  spec: KnobSpec;
  /** A value is being chosen and was not asked for yet. */
  preview: boolean;
}

/** What is in force since when, what is asked, and why the last wish was refused. */
function KnobState({ spec, ask, refusal, preview }: KnobStateProps) {
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
        <p class="refusal" role="alert" data-testid={`${id}-refusal`}>
          {t("steer.refused", { reason: refusal.reason })}
        </p>
      )}
    </>
  );
}

/** How far a key moves: up and down always, left and right only on a slider. */
function arrowCount(key: string, horizontal: boolean): number {
  if (key === "ArrowUp" || (horizontal && key === "ArrowRight")) return 1;
  if (key === "ArrowDown" || (horizontal && key === "ArrowLeft")) return -1;
  if (key === "PageUp") return PAGE;
  if (key === "PageDown") return -PAGE;
  return 0;
}

/** Where the tick of the value in force stands on the track. */
function heldAt(inForce: number | null, scale: Scale): string {
  return inForce === null ? "-10px" : `${100 * shareOf(inForce, scale)}%`;
}
