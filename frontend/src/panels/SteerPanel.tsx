import { useSignal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { named, t } from "../i18n/language";
import { short } from "../lib/format";
import { verbControl } from "../store/asks";
import { groupsOf, PROMINENT, type KnobGroup } from "../store/knobs";
import { link, run, status, version, wishes } from "../store/live";
import { openGroups } from "../store/preferences";
import { say } from "../store/steering";
import { FINAL_STATUSES, type KnobSpec, type Verb } from "../wire/messages";

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
      <div class="knob-groups">
        {groupsOf(knobs).map((group) => (
          <Group key={group.key} group={group} knob={(spec) => knob(spec, disabled)} />
        ))}
      </div>
      {journal}
    </section>
  );
}

interface GroupProps {
  group: KnobGroup;
  knob: (spec: KnobSpec) => ComponentChildren;
}

/** Knobs that belong together, folded until they are wanted, so that the journal stays in sight. */
function Group({ group, knob }: GroupProps) {
  const open = openGroups.value[group.key] ?? false;
  return (
    <details
      class="more"
      open={open}
      onToggle={(event) => (openGroups.value = { ...openGroups.peek(), [group.key]: event.currentTarget.open })}
      data-testid={`group-${group.key}`}
    >
      <summary>
        {named("group", group.key)} <span class="count">{group.knobs.length}</span>
      </summary>
      {open &&
        group.knobs.map((spec) => (
          <div key={spec.name}>
            <RuleText knob={spec.name} />
            {knob(spec)}
          </div>
        ))}
    </details>
  );
}

/** The line of a guard rule, above the switch that turns it on and off. */
function RuleText({ knob }: { knob: string }) {
  version("knobs");
  const rule = run.value?.guards.find(({ name }) => knob === `guard.${name}.on`);
  return rule === undefined ? null : (
    <p class="rule-text" data-testid={`rule-${rule.name}`}>
      {rule.text}
    </p>
  );
}

const VERBS = ["pause", "resume", "stop"] as const;

function isAsked(verb: Verb): boolean {
  return (wishes.value[verbControl(verb)]?.ask ?? null) !== null;
}

function Verbs({ disabled }: { disabled: boolean }) {
  const confirming = useSignal(false);
  const stop = useRef<HTMLButtonElement>(null);
  const cancel = (): void => {
    confirming.value = false;
    stop.current?.focus();
  };
  const now = status.value?.status;
  const refusal = VERBS
    .map((verb) => wishes.value[verbControl(verb)]?.refusal)
    .find((one) => one !== undefined && one !== null);
  const open = VERBS.filter((verb) => isAsked(verb)).map((verb) => t(`verb.${verb}`));
  const waits = now === "lost" && open.length > 0 ? `${open.join(", ")}: ${t("steer.waits")}` : "";
  return (
    <div class="verbs">
      <div class="verb-row" role="group" aria-label={t("steer.title")}>
        <VerbButton verb="pause" disabled={disabled || now === "paused"} act={() => void say("pause")} />
        <VerbButton verb="resume" disabled={disabled || now !== "paused"} act={() => void say("resume")} />
        <VerbButton verb="stop" disabled={disabled} act={() => (confirming.value = true)} button={stop} />
      </div>
      {confirming.value && !disabled && (
        <Confirm
          cancel={cancel}
          act={() => {
            confirming.value = false;
            void say("stop");
          }}
        />
      )}
      {waits && (
        <p class="hint" data-testid="verb-waits">
          {waits}
        </p>
      )}
      {refusal !== undefined && (
        <p class="refusal" role="alert" data-testid="verb-refusal">
          {t("steer.refused", { reason: refusal.reason })}
        </p>
      )}
    </div>
  );
}

/** Asks before a run is ended; the harmless answer has the focus, and Escape gives it. */
function Confirm({ act, cancel }: { act: () => void; cancel: () => void }) {
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => keep.current?.focus(), []);
  return (
    <div
      class="confirm"
      role="alertdialog"
      aria-label={t("verb.stop.sure")}
      onKeyDown={(event) => {
        if (event.key === "Escape") cancel();
      }}
    >
      <span>{t("verb.stop.sure")}</span>
      <button type="button" class="danger" data-testid="btn-stop-confirm" onClick={act}>
        {t("verb.stop.yes")}
      </button>
      <button type="button" data-testid="btn-stop-cancel" ref={keep} onClick={cancel}>
        {t("verb.stop.no")}
      </button>
    </div>
  );
}

const ICONS = { pause: "M4 3h3v10H4zM9 3h3v10H9z", resume: "M4 2.500l9 5.500-9 5.500z", stop: "M3.500 3.500h9v9h-9z" } as const;

interface VerbProps {
  verb: (typeof VERBS)[number];
  disabled: boolean;
  act: () => void;
  button?: RefObject<HTMLButtonElement | null>;
}

function VerbButton({ verb, disabled, act, button }: VerbProps) {
  const asking = isAsked(verb);
  return (
    <button
      type="button"
      class={`verb verb-${verb}`}
      data-testid={`btn-${verb}`}
      ref={button ?? null}
      disabled={disabled || asking}
      onClick={act}
    >
      {asking && status.value?.status !== "lost" ? (
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
