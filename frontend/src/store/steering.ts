import { effect } from "@preact/signals";
import type { CommandRecord, CommandRequest, Value, Verb } from "../wire/messages";
import { isStale, wished, type Ask, type WishEvent } from "./asks";
import { receive, run, version, wishes } from "./live";
import { judge, type Seen } from "./stale";

/** What the server says to a command at its door. */
export type Answer =
  | { kind: "record"; record: CommandRecord }
  | { kind: "stale"; reason: string; rev: number; values: Readonly<Record<string, Value | null>> }
  | { kind: "refused"; reason: string; record: CommandRecord | null };

/** Carries a command to the server; given by `main`, so that the store knows no network. */
export type Transport = (run: string, request: CommandRequest) => Promise<Answer>;

/** How a value is asked for. */
export interface Manner {
  /** What the person looked at when they began to choose; what is in force now, where nothing is given. */
  seen?: Seen | undefined;
  /** One of a quick series, of which only the last at a boundary need come into force. */
  supersede?: boolean;
  /** Not now, but before this update. */
  atStep?: number;
}

/** How often a set is sent again because others steer other knobs; with more, the person decides. */
export const ATTEMPTS = 5;

/** How long the page waits to hear what made a set stale. */
export const NEWS_MS = 3000;

let transport: Transport = () => Promise.resolve({ kind: "refused", reason: "not connected", record: null });

/** Name the way to the server. */
export function setTransport(way: Transport): void {
  transport = way;
}

interface Sent {
  id: string;
  knob: string;
  value: Value;
  seen: Seen;
  supersede: boolean;
  attempt: number;
  reason: string;
}

/** What this page has sent; a change by one of these is no news to the person. */
const own = new Set<string>();
/** The newest set of each knob; an older one is not sent again. */
const sent = new Map<string, Sent>();

function happened(event: WishEvent): void {
  wishes.value = wished(wishes.peek(), event);
}

/** A random name for a command; `crypto.randomUUID` is missing where a page is served without TLS. */
function commandId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Name of the command that asks again what `id` asked for. */
export function successor(id: string): string {
  const [base, attempt] = id.split("~") as [string, string | undefined];
  return `${base}~${Number(attempt ?? 0) + 1}`;
}

async function command(request: Omit<CommandRequest, "actor" | "source">): Promise<void> {
  const model = run.peek();
  if (model === null) return;
  const { id, verb, sets = [] } = request;
  own.add(id);
  happened({ kind: "asked", id, verb, sets, atStep: request.at_step ?? undefined });
  const answer = await transport(model.id, { ...request, actor: "", source: "ui" });
  if (answer.kind === "stale") {
    for (const one of sent.values()) {
      if (one.id === id) one.reason = answer.reason;
    }
    happened({ kind: "stale", id, rev: answer.rev, values: answer.values });
    return;
  }
  if (answer.record !== null) receive([answer.record]);
  if (answer.kind === "refused") happened({ kind: "refused", id, reason: answer.reason });
}

/** What a person sees of a knob now. */
export function look(knob: string): Seen {
  const model = run.peek();
  return { rev: model?.rev ?? 0, value: model?.knobs.get(knob)?.value ?? null };
}

/** Ask for a value of a knob. */
export function steer(knob: string, value: Value, { seen = look(knob), supersede = false, atStep }: Manner = {}): Promise<void> {
  const id = commandId();
  // Revisions pass until a later step comes: what is asked for one is meant whatever is in force by then.
  if (atStep !== undefined) return command({ id, verb: "set", sets: [{ knob, value }], at_step: atStep });
  return send({ id, knob, value, seen, supersede, attempt: 0, reason: "" });
}

function send(one: Sent): Promise<void> {
  const { id, knob, value, seen, supersede } = one;
  sent.set(knob, one);
  const request: CommandRequest = { id, verb: "set", sets: [{ knob, value }], expected_rev: seen.rev };
  return command(supersede ? { ...request, supersede } : request);
}

/** Ask the engine to pause, resume, run some steps, write a checkpoint, evaluate or stop. */
export function say(verb: Exclude<Verb, "set">, steps = 1): Promise<void> {
  const request = { id: commandId(), verb };
  return command(verb === "step" ? { ...request, steps } : request);
}

/** Refuse on the spot what is not even a number. */
export function refuse(control: string, value: Value, reason: string): void {
  wishes.value = { ...wishes.peek(), [control]: { ask: null, refusal: { value, reason } } };
}

/** Send a stale set again, or tell who was first; asked whenever the page hears of the run. */
effect(() => {
  version("commands");
  version("knobs");
  for (const [knob, { ask }] of Object.entries(wishes.value)) {
    if (ask?.phase === "stale") reconsider(knob, ask);
  }
});

function reconsider(knob: string, ask: Ask): void {
  const model = run.peek();
  const one = sent.get(knob);
  if (model === null || one?.id !== ask.id || ask.told === undefined) return;
  const reason = one.reason || (model.commands.get(ask.id)?.reason ?? "");
  const verdict = judge(knob, one.seen, ask.told, model, own);
  if (verdict.kind === "wait") {
    expectNews(ask, reason);
    return;
  }
  if (verdict.kind === "refuse") happened({ kind: "refused", id: ask.id, reason, stale: { by: verdict.by, inForce: verdict.inForce } });
  else if (one.attempt >= ATTEMPTS) happened({ kind: "refused", id: ask.id, reason });
  else void send({ ...one, id: successor(ask.id), seen: verdict.seen, attempt: one.attempt + 1, reason: "" });
}

const expecting = new Set<string>();

/** Where the news does not come, the server's own words must do. */
function expectNews({ id, told }: Ask, reason: string): void {
  if (expecting.has(id)) return;
  expecting.add(id);
  setTimeout(() => {
    expecting.delete(id);
    // Nothing happens where the wish has been settled meanwhile.
    happened({ kind: "refused", id, reason, stale: { by: null, inForce: told?.value ?? null } });
  }, NEWS_MS);
}

/** Whether a refused command was sent again because nothing had changed for the person; gives the newer one. */
export function askedAgain(record: CommandRecord): CommandRecord | null {
  return isStale(record) ? (run.value?.commands.get(successor(record.id)) ?? null) : null;
}
