import type { CommandRecord, CommandRequest, Setting, Value, Verb } from "../wire/messages";
import { wished, type WishEvent } from "./asks";
import { receive, run, wishes } from "./live";

/** What the server says to a command at its door. */
export type Answer = { kind: "record"; record: CommandRecord } | { kind: "refused"; reason: string; record: CommandRecord | null };

/** Carries a command to the server; given by `main`, so that the store knows no network. */
export type Transport = (run: string, request: CommandRequest) => Promise<Answer>;

let transport: Transport = () => Promise.resolve({ kind: "refused", reason: "not connected", record: null });

/** Name the way to the server. */
export function setTransport(way: Transport): void {
  transport = way;
}

function happened(event: WishEvent): void {
  wishes.value = wished(wishes.peek(), event);
}

/** A random name for a command; `crypto.randomUUID` is missing where a page is served without TLS. */
function commandId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function command(verb: Verb, sets: Setting[]): Promise<void> {
  const model = run.peek();
  if (model === null) return;
  const id = commandId();
  happened({ kind: "asked", id, verb, sets });
  const answer = await transport(model.id, { id, verb, sets, actor: "", source: "ui" });
  if (answer.record !== null) receive([answer.record]);
  if (answer.kind === "refused") happened({ kind: "refused", id, reason: answer.reason });
}

/** Ask for a value of a knob. */
export function steer(knob: string, value: Value): Promise<void> {
  return command("set", [{ knob, value }]);
}

/** Ask the engine to pause, resume or stop. */
export function say(verb: Exclude<Verb, "set">): Promise<void> {
  return command(verb, []);
}

/** Refuse on the spot what is not even a number. */
export function refuse(knob: string, value: Value, reason: string): void {
  wishes.value = { ...wishes.peek(), [knob]: { ask: null, refusal: { value, reason } } };
}
