import type { CommandRecord, Setting, Value, Verb } from "../wire/messages";

/** What a person has asked of one control and not yet got. */
export interface Ask {
  id: string;
  value: Value;
  /** `sending`: not heard of; `accepted`: in the server's journal, on its way to the engine. */
  phase: "sending" | "accepted";
}

/** Why the last thing asked of a control did not happen. */
export interface Refusal {
  value: Value;
  reason: string;
}

/** One control: at most one open wish, and the last refusal until the next wish. */
export interface Wish {
  ask: Ask | null;
  refusal: Refusal | null;
}

/** Open wishes by control: a knob's name, or a verb such as `pause`. */
export type Wishes = Readonly<Record<string, Wish>>;

/** What can happen to a wish. */
export type WishEvent =
  | { kind: "asked"; id: string; verb: Verb; sets: readonly Setting[] }
  | { kind: "refused"; id: string; reason: string }
  | { kind: "recorded"; record: CommandRecord };

/** Name of the control that shows a verb which is not `set`. */
export function verbControl(verb: Verb): string {
  return `verb:${verb}`;
}

/**
 * asked -> sending -> accepted -> (applied, superseded: settled | rejected, expired: refusal). Only the newest wish of a control counts:
 * the fate of an older one is told by the journal. Pure: gives new wishes and leaves the old ones alone.
 */
export function wished(wishes: Wishes, event: WishEvent): Wishes {
  switch (event.kind) {
    case "asked": {
      const asked: Record<string, Wish> = { ...wishes };
      const parts =
        event.verb === "set"
          ? event.sets.map((set) => [set.knob, set.value] as const)
          : [[verbControl(event.verb), event.verb] as const];
      for (const [control, value] of parts) {
        asked[control] = { ask: { id: event.id, value, phase: "sending" }, refusal: null };
      }
      return asked;
    }
    case "refused":
      return settled(wishes, event.id, (ask) => ({ ask: null, refusal: { value: ask.value, reason: event.reason } }));
    case "recorded": {
      const { record } = event;
      if (record.state === "accepted") {
        return settled(wishes, record.id, (ask) => ({ ask: { ...ask, phase: "accepted" }, refusal: null }));
      }
      if (record.state === "applied" || record.state === "superseded") return settled(wishes, record.id, () => ({ ask: null, refusal: null }));
      return settled(wishes, record.id, (ask) => ({ ask: null, refusal: { value: ask.value, reason: record.reason } }));
    }
  }
}

function settled(wishes: Wishes, id: string, next: (ask: Ask) => Wish): Wishes {
  const changed: Record<string, Wish> = {};
  for (const [control, wish] of Object.entries(wishes)) {
    changed[control] = wish.ask?.id === id ? next(wish.ask) : wish;
  }
  return changed;
}
