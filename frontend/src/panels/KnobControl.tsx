import { useSignal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { knobText, named, t } from "../i18n/language";
import { plain, readNumber } from "../lib/number";
import { fromSlider, shareOf, stepped, toSlider, track, type Scale } from "../lib/scale";
import { unmet } from "../store/knobs";
import { run, version, wishes } from "../store/live";
import type { Seen } from "../store/stale";
import { look, refuse, steer } from "../store/steering";
import type { KnobSpec } from "../wire/messages";

/** How many arrow steps Page Up and Page Down make. */
const PAGE = 10;

interface KnobProps {
  spec: KnobSpec;
  disabled: boolean;
  /** Draws what stands below the control; given from outside, with whether a value is being chosen but not asked for yet. */
  under: (open: Signal<boolean>, preview: boolean) => ComponentChildren;
}

/** One knob, with the two values of a steer: what was asked and what is in force are both shown until they agree. */
export function KnobControl({ spec, disabled, under }: KnobProps) {
  version("knobs");
  const need = unmet(spec, run.value?.knobs ?? new Map());
  const held = need === null ? null : (run.value?.knobs.get(need.knob)?.value ?? null);
  const props = { spec, disabled: disabled || need !== null, under };
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

interface NameProps {
  spec: KnobSpec;
  name: string;
  disabled: boolean;
  /** Whether the form for a later step is open. */
  open: Signal<boolean>;
}

/** What a person reads first of a knob: what it is called here, and what it is called everywhere else. */
function KnobName({ spec, name, disabled, open }: NameProps) {
  return (
    <span class="knob-title" title={spec.help}>
      <span class="knob-name">
        {name}
        {spec.unit !== "" && <span class="unit">{spec.unit}</span>}
      </span>
      <span class="knob-under">
        <code class="knob-dotted">{spec.name}</code>
        <button
          type="button"
          class="later-toggle"
          data-testid={`knob-${spec.name}-later-toggle`}
          aria-expanded={open.value}
          disabled={disabled}
          onClick={() => (open.value = !open.value)}
        >
          {t("steer.later")}
        </button>
      </span>
    </span>
  );
}

interface FrameProps extends KnobProps {
  name: string;
  control: ComponentChildren;
}

/** A knob that is one small control beside its name. */
function SmallKnob({ spec, name, disabled, under, control }: FrameProps) {
  const open = useSignal(false);
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
        <KnobName spec={spec} name={name} disabled={disabled} open={open} />
        {control}
      </div>
      {under(open, false)}
    </div>
  );
}

/** A knob that is on or off. */
function Switch({ spec, disabled, under }: KnobProps) {
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
  return <SmallKnob spec={spec} name={name} disabled={disabled} under={under} control={control} />;
}

/** A knob that holds one of a few words; choosing one asks for it. */
function ChoiceKnob({ spec, disabled, under }: KnobProps) {
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
  return <SmallKnob spec={spec} name={name} disabled={disabled} under={under} control={control} />;
}

/** A knob that holds a number: slider and number field. Moving previews, letting go asks. */
function NumberKnob({ spec, disabled, under }: KnobProps) {
  const draft = useSignal<number | null>(null);
  const typed = useSignal<string | null>(null);
  const open = useSignal(false);
  /** What was in force when the person began to choose. */
  const seen = useRef<Seen | null>(null);
  const wish = wishes.value[spec.name];
  const ask = wish?.ask ?? null;
  const refusal = wish?.refusal ?? null;
  const scale: Scale = { ...spec, whole: spec.type === "int" };
  const inForce = typeof spec.value === "number" ? spec.value : null;
  const asked = ask !== null && typeof ask.value === "number" ? ask.value : null;
  const shown = draft.value ?? asked ?? inForce ?? scale.low;
  const name = named("knob", spec.name);
  const id = `knob-${spec.name}`;

  const begin = (): void => {
    seen.current ??= look(spec.name);
  };
  const forget = (): void => {
    draft.value = null;
    typed.value = null;
    seen.current = null;
  };
  const preview = (value: number): void => {
    begin();
    draft.value = value;
  };
  /** Without a value: the one that the slider or the arrow keys have come to, in one of many quick moves. */
  const commit = (value: number | null = draft.peek(), supersede = true): void => {
    const manner = { seen: seen.current ?? undefined, supersede };
    forget();
    if (value !== null && (value !== (asked ?? inForce) || refusal !== null)) void steer(spec.name, value, manner);
  };
  const commitTyped = (): void => {
    const text = typed.peek();
    if (text === null) return commit();
    const read = readNumber(text);
    if ("value" in read) return commit(read.value, false);
    forget();
    refuse(spec.name, text, t(read.fault === "ambiguous" ? "steer.ambiguous" : "steer.notNumber", { text }));
  };
  const arrows = (event: KeyboardEvent, horizontal: boolean): void => {
    const count = arrowCount(event.key, horizontal);
    const end = horizontal ? { Home: scale.low, End: scale.high }[event.key] : undefined;
    if (event.key === "Escape") forget();
    else if (event.key === "Enter") commitTyped();
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
        <KnobName spec={spec} name={name} disabled={disabled} open={open} />
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
          onInput={(event) => {
            begin();
            typed.value = event.currentTarget.value;
          }}
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
      {under(open, draft.value !== null)}
    </div>
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
