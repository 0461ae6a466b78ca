import { computed, signal } from "@preact/signals";
import type { RunStatus } from "../wire/messages";

/** One engine as `GET api/engines` tells of it. */
export interface EngineLine {
  run: string;
  name: string;
  origin: "launched" | "adopted";
  status: RunStatus;
  connected: boolean;
  running: boolean | null;
  pid: number | null;
  begun: number | null;
  ended: number | null;
  exit: number | null;
  said: string[];
}

/** What the server says of its engines, and whether this page may start and stop them. */
export interface Engines {
  engines: EngineLine[];
  most: number;
  hindrance: string;
  may_steer: boolean;
}

/** One field of the form for a new run, as the engine declares it. */
export interface TrainingOption {
  name: string;
  flag: string;
  kind: "text" | "number" | "whole" | "switch" | "lines";
  default: boolean | number | string | null;
  least: number | null;
  most: number | null;
  choices: string[];
  help: string;
}

/** What became of a request: the engine, or why there is none, and which field is to blame. */
export type Begun = { run: string } | { error: string; field: string };

/** The way to the server; given by `main`, so that the store knows no network. */
export interface LaunchTransport {
  engines: () => Promise<Engines>;
  options: () => Promise<TrainingOption[]>;
  start: (asked: Record<string, unknown>) => Promise<Begun>;
  stop: (run: string) => Promise<Begun>;
  restart: (run: string) => Promise<Begun>;
}

let transport: LaunchTransport | null = null;

/** The engines; null until the server has told of them. */
export const engines = signal<Engines | null>(null);

/** Whether this page may start a run; false until the server has told. */
export const mayBegin = computed(() => engines.value?.may_steer === true && engines.value.hindrance === "");

/** Tell the store how to reach the server. */
export function setLaunchTransport(given: LaunchTransport): void {
  transport = given;
  void refreshEngines();
}

/** The way to the server. */
export function launches(): LaunchTransport {
  if (transport === null) throw new Error("nobody has said how to reach the server");
  return transport;
}

/** Ask again how the engines fare; what is shown stays when nobody answers. */
export async function refreshEngines(): Promise<void> {
  try {
    engines.value = await launches().engines();
  } catch {
    // The connection says by itself when the server is gone.
  }
}

/** Turn what a person has typed into what is asked for; fields that were left alone are left out. */
export function asAsked(options: readonly TrainingOption[], typed: Readonly<Record<string, string>>): Record<string, unknown> {
  const asked: Record<string, unknown> = {};
  for (const { name, kind } of options) {
    const text = (typed[name] ?? "").trim();
    if (text === "") continue;
    if (kind === "switch") asked[name] = text === "true";
    else if (kind === "lines") asked[name] = text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
    // What is no number goes to the server as it is, whose refusal names the field.
    else asked[name] = kind === "text" || Number.isNaN(Number(text)) ? text : Number(text);
  }
  return asked;
}
