import { signal, useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n/language";
import { verbControl } from "../store/asks";
import { link, status, wishes } from "../store/live";
import { say } from "../store/steering";
import { FINAL_STATUSES, type Verb } from "../wire/messages";

const VERBS = ["pause", "resume", "stop", "step", "checkpoint", "evaluate"] as const;
type Said = (typeof VERBS)[number];

const ICONS: Readonly<Record<Said, string>> = {
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  resume: "M4 2.500l9 5.500-9 5.500z",
  stop: "M3.500 3.500h9v9h-9z",
  step: "M3 3l7 5-7 5zM11 3h2.500v10H11z",
  checkpoint: "M4 2h8v12l-4-3-4 3z",
  evaluate: "M2.500 8.500l2-2L7 9l4.500-5.500 2 1.600L7.200 13z",
};

/** Keys that press a button from anywhere on the page. */
const KEYS: ReadonlyMap<string, Said> = new Map([
  [".", "step"],
  ["c", "checkpoint"],
  ["e", "evaluate"],
]);
const KEY_OF = new Map([...KEYS].map(([key, verb]) => [verb, key]));

/** Updates that a step makes; a field that holds no count of updates asks for nothing. */
const steps = signal("1");

function stepCount(): number | null {
  const count = Number(steps.value);
  return /^\d{1,9}$/.test(steps.value.trim()) && count >= 1 ? count : null;
}

function isAsked(verb: Verb): boolean {
  return (wishes.value[verbControl(verb)]?.ask ?? null) !== null;
}

function isOver(): boolean {
  return status.value !== null && FINAL_STATUSES.includes(status.value.status);
}

/** Why nothing can be asked of the run; null when it can. */
function hindrance(): string | null {
  if (isOver()) return t("verb.over", { status: t(`status.${status.value?.status ?? "none"}`) });
  return link.value.state === "open" ? null : t("verb.unlinked");
}

/** Why this verb cannot be asked for now; null when it can. */
function obstacle(verb: Said): string | null {
  const general = hindrance();
  if (general !== null) return general;
  const paused = status.value?.status === "paused";
  if (verb === "pause" && paused) return t("verb.pause.paused");
  if (verb === "resume" && !paused) return t("verb.resume.running");
  return verb === "step" && stepCount() === null ? t("verb.step.count") : null;
}

function ask(verb: Said): void {
  if (obstacle(verb) === null && !isAsked(verb)) void say(verb, verb === "step" ? (stepCount() ?? 1) : 1);
}

/** Whether a key pressed here is text for the element that has the focus. */
function takesText(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["range", "checkbox", "button"].includes(target.type);
  return target.isContentEditable || target.matches("select, textarea");
}

function pressed(event: KeyboardEvent): void {
  const verb = KEYS.get(event.key);
  if (verb === undefined || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  if (takesText(event.target) || document.querySelector("dialog[open]") !== null) return;
  event.preventDefault();
  ask(verb);
}

/** What a run can be told to do: pause, go on, end; some steps, a checkpoint, an evaluation. */
export function Verbs() {
  useEffect(() => {
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
  const confirming = useSignal(false);
  const stop = useRef<HTMLButtonElement>(null);
  const cancel = (): void => {
    confirming.value = false;
    stop.current?.focus();
  };
  const hindered = hindrance();
  const over = isOver();
  const refusal = VERBS
    .map((verb) => wishes.value[verbControl(verb)]?.refusal)
    .find((one) => one !== undefined && one !== null);
  const open = VERBS.filter((verb) => isAsked(verb)).map((verb) => t(`verb.${verb}`));
  const waits = status.value?.status === "lost" && open.length > 0 ? `${open.join(", ")}: ${t("steer.waits")}` : "";
  return (
    <div class="verbs">
      <div class="verb-row" role="group" aria-label={t("steer.title")}>
        <VerbButton verb="pause" />
        <VerbButton verb="resume" />
        <VerbButton verb="stop" act={() => (confirming.value = true)} button={stop} />
      </div>
      <div class="verb-row verb-row-once" role="group" aria-label={t("verb.once")}>
        <span class="verb-steps">
          <VerbButton verb="step" />
          <input
            class="step-count"
            data-testid="step-count"
            aria-label={t("verb.step.field")}
            title={t("verb.step.field")}
            inputMode="numeric"
            autocomplete="off"
            disabled={hindered !== null}
            aria-invalid={stepCount() === null}
            value={steps.value}
            onInput={(event) => (steps.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") ask("step");
            }}
            onBlur={() => {
              if (stepCount() === null) steps.value = "1";
            }}
          />
        </span>
        <VerbButton verb="checkpoint" />
        <VerbButton verb="evaluate" />
      </div>
      {confirming.value && hindered === null && (
        <Confirm
          cancel={cancel}
          act={() => {
            confirming.value = false;
            ask("stop");
          }}
        />
      )}
      {over && (
        <p class="hint" data-testid="verb-over">
          {hindered}
        </p>
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

interface VerbProps {
  verb: Said;
  act?: () => void;
  button?: RefObject<HTMLButtonElement | null>;
}

function VerbButton({ verb, act = () => ask(verb), button }: VerbProps) {
  const asking = isAsked(verb);
  const reason = obstacle(verb);
  const key = KEY_OF.get(verb);
  const help = reason ?? (key === undefined ? "" : t("verb.key", { verb: t(`verb.${verb}`), key }));
  return (
    <button
      type="button"
      class={`verb verb-${verb}`}
      data-testid={`btn-${verb}`}
      data-phase={wishes.value[verbControl(verb)]?.ask?.phase ?? "settled"}
      title={help}
      aria-keyshortcuts={key}
      ref={button ?? null}
      disabled={reason !== null || asking}
      onClick={act}
    >
      {asking && status.value?.status !== "lost" ? (
        <span class="spinner" aria-hidden="true" />
      ) : (
        <svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true">
          <path d={ICONS[verb]} fill="currentColor" />
        </svg>
      )}
      {t(verb === "checkpoint" ? "verb.checkpoint.short" : `verb.${verb}`)}
    </button>
  );
}
