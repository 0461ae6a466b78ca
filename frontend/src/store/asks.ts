import type { CommandRecord, Setting, Value, Verb } from "../wire/messages";

/** What a person has asked of one control and not yet got. */
export interface Ask {
  id: string;
  value: Value;
  /**
   * `sending`: not heard of; `accepted`: in the server's journal, on its way to the engine; `stale`: the run has moved on
   * since the person looked, and whether that matters for this control is being found out.
   */
  phase: "sending" | "accepted" | "stale";
  /** The update that it waits for, where it was asked for one. */
  atStep?: number;
  /** Of a stale one: how the run stands according to who refused it. */
  told?: Told;
}

/** The revision in force, and the control's value where it was told with it. */
export interface Told {
  rev: number;
  value?: Value | null;
}

/** Why the last thing asked of a control did not happen. */
export interface Refusal {
  value: Value;
  reason: string;
  /** The control has changed since the person looked. */
  stale?: { by: CommandRecord | null; inForce: Value | null };
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
  | { kind: "asked"; id: string; verb: Verb; sets: readonly Setting[]; atStep?: number | undefined }
  | { kind: "refused"; id: string; reason: string; stale?: Refusal["stale"] }
  | { kind: "stale"; id: string; rev: number; values: Readonly<Record<string, Value | null>> }
  | { kind: "recorded"; record: CommandRecord };

/** Name of the control that shows a verb which is not `set`. */
export function verbControl(verb: Verb): string {
  return `verb:${verb}`;
}

/** Name of the control that asks for a value of a knob at a later step; the knob itself stays free meanwhile. */
export function laterControl(knob: string): string {
  return `later:${knob}`;
}

/** Whether somebody waits in front of the screen for the answer to one of the wishes. */
export function isUrgent(wishes: Wishes): boolean {
  return Object.values(wishes).some(({ ask }) => ask !== null && (ask.atStep === undefined || ask.phase === "sending"));
}

/** Whether an engine refused a command only because the run had moved on since the revision that it expected. */
export function isStale(record: CommandRecord): boolean {
  const expected = record.expected_rev ?? null;
  return record.state === "rejected" && expected !== null && record.rev !== null && record.rev !== expected;
}

/**
 * asked -> sending -> accepted -> (applied, superseded: settled | rejected, expired: refusal | stale: open until it is
 * asked again or refused). Only the newest wish of a control counts: the fate of an older one is told by the journal.
 * Pure: gives new wishes and leaves the old ones alone.
 */
export function wished(wishes: Wishes, event: WishEvent): Wishes {
  switch (event.kind) {
    case "asked": {
      const { atStep } = event;
      const asked: Record<string, Wish> = { ...wishes };
      const parts =
        event.verb === "set"
          ? event.sets.map((set) => [atStep === undefined ? set.knob : laterControl(set.knob), set.value] as const)
          : [[verbControl(event.verb), event.verb] as const];
      for (const [control, value] of parts) {
        const ask: Ask = { id: event.id, value, phase: "sending" };
        asked[control] = { ask: atStep === undefined ? ask : { ...ask, atStep }, refusal: null };
      }
      return asked;
    }
    case "refused": {
      const { reason, stale } = event;
      return settled(wishes, event.id, ({ value }) => ({
        ask: null,
        refusal: stale === undefined ? { value, reason } : { value, reason, stale },
      }));
    }
    case "stale":
      return settled(wishes, event.id, (ask, control) => {
        const value = event.values[control];
        return { ask: { ...ask, phase: "stale", told: value === undefined ? { rev: event.rev } : { rev: event.rev, value } }, refusal: null };
      });
    case "recorded":
      return settled(wishes, event.record.id, (ask) => recorded(ask, event.record));
  }
}

function recorded(ask: Ask, record: CommandRecord): Wish {
  // An "accepted" that comes late, by the other way, must not hide what has become of it.
  if (record.state === "accepted") return { ask: ask.phase === "stale" ? ask : { ...ask, phase: "accepted" }, refusal: null };
  if (record.state === "applied" || record.state === "superseded") return { ask: null, refusal: null };
  if (isStale(record)) return { ask: { ...ask, phase: "stale", told: { rev: record.rev ?? 0 } }, refusal: null };
  return { ask: null, refusal: { value: ask.value, reason: record.reason } };
}

function settled(wishes: Wishes, id: string, next: (ask: Ask, control: string) => Wish): Wishes {
  const changed: Record<string, Wish> = {};
  for (const [control, wish] of Object.entries(wishes)) {
    changed[control] = wish.ask?.id === id ? next(wish.ask, control) : wish;
  }
  return changed;
}
