import type { KnobSpec, Need } from "../wire/messages";

/** The knobs that a person reaches for first; they stand above the groups. */
export const PROMINENT = ["optim.lr", "zspace.gain"];

/** Groups in the order of the panel; a group that this list does not know comes last. */
const ORDER = ["optimizer", "schedule", "zspace", "layers", "data", "precision", "freeze", "xai", "run", "guards"];

/** Knobs that are folded away together. */
export interface KnobGroup {
  key: string;
  knobs: KnobSpec[];
}

/** The knobs below the prominent ones, by group; inside a group they keep the engine's order. */
export function groupsOf(knobs: readonly KnobSpec[]): KnobGroup[] {
  const groups = new Map<string, KnobSpec[]>();
  for (const spec of knobs) {
    if (!PROMINENT.includes(spec.name)) groups.set(spec.group, [...(groups.get(spec.group) ?? []), spec]);
  }
  const rank = (key: string): number => (ORDER.indexOf(key) + ORDER.length + 1) % (ORDER.length + 1);
  return [...groups].map(([key, specs]) => ({ key, knobs: specs })).sort((a, b) => rank(a.key) - rank(b.key));
}

/** What keeps a knob from being set, by the values in force; null when nothing does. */
export function unmet(spec: KnobSpec, knobs: ReadonlyMap<string, KnobSpec>): Need | null {
  const holds = (need: Need): boolean => {
    const other = knobs.get(need.knob);
    return other === undefined || (other.value !== null && need.holds.includes(other.value));
  };
  return spec.needs?.find((need) => !holds(need)) ?? null;
}
