import type { CommandRecord } from "../wire/messages";

/** What the journal can be narrowed to. */
export const FILTERS = ["all", "changes", "refused"] as const;
export type Filter = (typeof FILTERS)[number];

/** Whether a filter lets a record through; what was asked again by itself has not been refused to anybody. */
export function passes(record: CommandRecord, filter: Filter, again: CommandRecord | null): boolean {
  if (filter === "changes") return record.state === "applied" && record.changes.length > 0;
  if (filter === "refused") return (record.state === "rejected" || record.state === "expired") && again === null;
  return true;
}

/** Records as the API writes them, oldest first, for a person to paste somewhere. */
export function journalJson(records: readonly CommandRecord[]): string {
  return JSON.stringify([...records].reverse(), null, 2);
}
