import { batch, computed, signal } from "@preact/signals";
import type { CommandRecord, RunSummary, ServerToViewer, Thinned } from "../wire/messages";
import { wished, type Wishes } from "./asks";
import { RunModel, type Part } from "./run";

/** How the page stands with the server. */
export type Link =
  | { state: "connecting" }
  | { state: "open"; road: "websocket" | "events" | "polling" }
  | { state: "waiting"; until: number; reason: string }
  | { state: "closed"; reason: "unauthorized" | "protocol" };

/** The connection to the server. */
export const link = signal<Link>({ state: "connecting" });

/** The runs, newest first; null until the server has listed them. */
export const runs = signal<readonly RunSummary[] | null>(null);

/** Id of the run that was asked for; empty for the newest. */
export const asked = signal("");

/** The run that was asked for, where the server cannot read it. */
export const unreadable = computed(() => {
  const listed = runs.value ?? [];
  const wanted = asked.value === "" && run.value === null ? listed[0] : listed.find((one) => one.id === asked.value);
  return wanted !== undefined && wanted.id !== run.value?.id && (wanted.trouble ?? "") !== "" ? wanted : null;
});

/** The watched run; the model is changed in place, and `version` says which part has moved. */
export const run = signal<RunModel | null>(null);

/** Open wishes and refusals by control. */
export const wishes = signal<Wishes>({});

const PARTS: readonly Part[] = ["run", "status", "frames", "series", "knobs", "commands", "probe", "heatMaps", "strips", "checkpoints"];
const counters = Object.fromEntries(PARTS.map((part) => [part, signal(0)])) as Record<Part, ReturnType<typeof signal<number>>>;

/** Subscribe to a part of the watched run: read this in a component or an effect. */
export function version(part: Part): number {
  return counters[part].value ?? 0;
}

/** Step of the newest frame of the watched run. */
export const step = computed(() => (version("frames"), version("run"), run.value?.step ?? 0));

/** What the watched run is doing. */
export const status = computed(() => (version("status"), version("run"), run.value?.status ?? null));

/** The journal of the watched run, newest first; by time, for an engine numbers what it does by itself below 0. */
export const journal = computed(() => {
  version("commands");
  return [...(run.value?.commands.values() ?? [])].sort((a, b) => b.time - a.time || b.number - a.number);
});

const GUARD = "guard";

/** A change that took effect: drawn as a line on every chart. */
export interface Steer {
  step: number;
  /** What was set, such as `zspace.gain`. */
  knobs: { knob: string; old: unknown; inForce: unknown }[];
}

/** Steers of the watched run that took effect, oldest first. */
export const steers = computed<readonly Steer[]>(() => {
  version("commands");
  const found: Steer[] = [];
  for (const record of run.value?.commands.values() ?? []) {
    if (record.state !== "applied" || record.step === null || record.verb !== "set" || record.source === GUARD) continue;
    const asked = new Set(record.sets.map((set) => set.knob));
    const shown = record.changes.filter((change) => asked.has(change.knob));
    const knobs = shown.map((change) => ({ knob: change.knob, old: change.old, inForce: change.in_force }));
    if (knobs.length > 0) found.push({ step: record.step, knobs });
  }
  return found.sort((a, b) => a.step - b.step);
});

/** What a guard did: drawn on every chart in the color of alarms. */
export interface Alarm {
  step: number;
  record: CommandRecord;
}

/** What guards did to the watched run, oldest first. */
export const alarms = computed<readonly Alarm[]>(() => {
  version("commands");
  const found: Alarm[] = [];
  for (const record of run.value?.commands.values() ?? []) {
    if (record.source === GUARD && record.state === "applied" && record.step !== null) found.push({ step: record.step, record });
  }
  return found.sort((a, b) => a.step - b.step);
});

/** Where frames of the watched run were merged in the engine's log before they were sent. */
export const merged = computed<readonly Thinned[]>(() => (version("status"), [...(run.value?.thinned ?? [])]));
/** Checkpoints that the watched run can be resumed from, oldest first. */
export const checkpoints = computed(() => (version("checkpoints"), run.value?.checkpoints ?? []));

/** Say that a part of the watched run has changed. */
export function touched(part: Part): void {
  const counter = counters[part];
  counter.value = (counter.peek() ?? 0) + 1;
}

/** Fold messages from the server into the state; panels hear of all of them at once. */
export function receive(messages: readonly ServerToViewer[]): void {
  batch(() => {
    const changed = new Set<Part>();
    for (const message of messages) {
      if (message.type === "runs-listed") runs.value = message.runs;
      else if (message.type === "snapshot") {
        if (run.peek()?.id !== message.run.id) wishes.value = {};
        run.value = new RunModel(message);
        for (const record of message.commands) wishes.value = wished(wishes.value, { kind: "recorded", record });
        for (const part of PARTS) changed.add(part);
      } else {
        const part = run.peek()?.apply(message) ?? null;
        if (part !== null) changed.add(part);
        if (message.type === "command-record") {
          wishes.value = wished(wishes.value, { kind: "recorded", record: message });
          changed.add("knobs");
        }
      }
    }
    for (const part of changed) touched(part);
  });
}
