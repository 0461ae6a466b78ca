import type { CommandRecord, KnobSpec, Value } from "../wire/messages";
import type { Told } from "./asks";

/** What a person had before their eyes when they chose a value: the knob, and the revision of the run. */
export interface Seen {
  rev: number;
  value: Value | null;
}

/** The run as the page knows it. */
export interface Standing {
  rev: number;
  knobs: ReadonlyMap<string, KnobSpec>;
  commands: ReadonlyMap<string, CommandRecord>;
}

/** What to do with a set that was refused because the run had moved on. */
export type Verdict =
  | { kind: "again"; seen: Seen }
  | { kind: "refuse"; by: CommandRecord | null; inForce: Value | null }
  /** The page has not heard yet what happened. */
  | { kind: "wait" };

/**
 * A revision counts every change of the run, and a person looked at one knob: only what somebody else did to that very
 * knob is news to them. Neither is a change by themselves, nor a schedule that moves the knob all the time.
 */
export function judge(knob: string, seen: Seen, told: Told, now: Standing, own: ReadonlySet<string>): Verdict {
  if (told.value !== undefined && told.value === seen.value) return { kind: "again", seen: { rev: told.rev, value: seen.value } };
  if (now.rev < told.rev) return { kind: "wait" };
  const inForce = now.knobs.get(knob)?.value ?? null;
  const again: Verdict = { kind: "again", seen: { rev: now.rev, value: inForce } };
  if (inForce === seen.value) return again;
  const by = lastBy(knob, seen, now, own);
  // An engine that was resumed from a checkpoint counts again from there: nobody can say who is to be named.
  return by !== null || now.rev < seen.rev ? { kind: "refuse", by, inForce } : again;
}

function lastBy(knob: string, seen: Seen, now: Standing, own: ReadonlySet<string>): CommandRecord | null {
  let last: CommandRecord | null = null;
  for (const record of now.commands.values()) {
    if (record.state !== "applied" || own.has(record.id) || !record.changes.some((change) => change.knob === knob)) continue;
    if (record.rev !== null && record.rev > seen.rev && record.rev > (last?.rev ?? -1)) last = record;
  }
  return last;
}
