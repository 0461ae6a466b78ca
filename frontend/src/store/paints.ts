/** The last point that a chart has painted. */
export interface Paint {
  step: number;
  /** Milliseconds since 1970, with fractions: `performance.timeOrigin + performance.now()`. */
  time: number;
}

/** By chart key and, for the heat maps, under `heat-maps`; lets a script measure the way from engine to pixels. */
export const paints: Record<string, Paint> = {};

/** Note that something has been painted; the first time that a step is painted counts. */
export function painted(key: string, step: number | null): void {
  if (step === null || paints[key]?.step === step) return;
  paints[key] = { step, time: performance.timeOrigin + performance.now() };
}
