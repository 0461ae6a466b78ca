import { lowerBound } from "./growable";

/** Points of one curve, steps ascending. */
export interface Points {
  steps: Float64Array;
  values: Float64Array;
}

/** How many points a pixel column may hold before it is reduced: first, least, greatest and last are enough. */
export const POINTS_PER_PIXEL = 4;

/**
 * Reduce the points in [from, to] to at most four for each of `pixels` buckets of equal width (first, minimum, maximum,
 * last, in their order), so that the drawn line covers the same pixels as the whole data would: no spike is lost.
 * Every non-finite point is kept as it is, and one point beyond each end keeps the line running to the edge.
 */
export function decimate(points: Points, from: number, to: number, pixels: number): Points {
  const { steps, values } = points;
  const start = Math.max(0, lowerBound(steps, from) - 1);
  let end = lowerBound(steps, to);
  while (end < steps.length && (steps[end] as number) <= to) end++;
  end = Math.min(steps.length, end + 1);
  const columns = Math.max(1, Math.floor(pixels));
  if (end - start <= POINTS_PER_PIXEL * columns) {
    return { steps: steps.subarray(start, end), values: values.subarray(start, end) };
  }
  const kept = chosen(steps, values, start, end, columns);
  const outSteps = new Float64Array(kept.length);
  const outValues = new Float64Array(kept.length);
  kept.forEach((index, place) => {
    outSteps[place] = steps[index] as number;
    outValues[place] = values[index] as number;
  });
  return { steps: outSteps, values: outValues };
}

function chosen(steps: Float64Array, values: Float64Array, start: number, end: number, columns: number): number[] {
  const origin = steps[start] as number;
  const width = ((steps[end - 1] as number) - origin) / columns || 1;
  const kept: number[] = [];
  let index = start;
  while (index < end) {
    const bucket = Math.min(columns - 1, Math.floor(((steps[index] as number) - origin) / width));
    let first = -1;
    let last = -1;
    let least = -1;
    let greatest = -1;
    const special: number[] = [];
    for (; index < end; index++) {
      if (Math.min(columns - 1, Math.floor(((steps[index] as number) - origin) / width)) !== bucket) break;
      const value = values[index] as number;
      if (!Number.isFinite(value)) {
        special.push(index);
        continue;
      }
      if (first < 0) first = index;
      last = index;
      if (least < 0 || value < (values[least] as number)) least = index;
      if (greatest < 0 || value > (values[greatest] as number)) greatest = index;
    }
    const inOrder = first < 0 ? special : [first, least, greatest, last, ...special];
    inOrder.sort((a, b) => a - b);
    for (const candidate of inOrder) if (kept[kept.length - 1] !== candidate) kept.push(candidate);
  }
  return kept;
}

/** Curves over one common axis: `steps` ascending, `columns[k][i]` the value of curve k there, undefined for none. */
export interface Aligned {
  steps: number[];
  columns: (number | null | undefined)[][];
}

/**
 * Put curves with different steps on one axis. `undefined` means that a curve has no point there (the line runs on),
 * `null` that its value is not finite (the line breaks).
 */
export function align(curves: readonly Points[]): Aligned {
  const place = curves.map(() => 0);
  const steps: number[] = [];
  const columns: (number | null | undefined)[][] = curves.map(() => []);
  for (;;) {
    let next = Number.POSITIVE_INFINITY;
    for (let k = 0; k < curves.length; k++) {
      const curve = curves[k] as Points;
      const at = place[k] as number;
      if (at < curve.steps.length) next = Math.min(next, curve.steps[at] as number);
    }
    if (next === Number.POSITIVE_INFINITY) return { steps, columns };
    steps.push(next);
    for (let k = 0; k < curves.length; k++) {
      const curve = curves[k] as Points;
      const at = place[k] as number;
      const column = columns[k] as (number | null | undefined)[];
      if (at < curve.steps.length && curve.steps[at] === next) {
        const value = curve.values[at] as number;
        column.push(Number.isFinite(value) ? value : null);
        place[k] = at + 1;
      } else {
        column.push(undefined);
      }
    }
  }
}

/** Places of the points of a column that no line reaches, since a gap or nothing at all lies on either side; null: none. */
export function alone(column: readonly (number | null | undefined)[]): number[] | null {
  const found: number[] = [];
  let first = -1;
  let length = 0;
  for (let place = 0; place <= column.length; place++) {
    const value = place < column.length ? column[place] : null;
    // Steps of other curves: the line goes on over them.
    if (value === undefined) continue;
    if (value !== null) {
      if (length === 0) first = place;
      length++;
      continue;
    }
    if (length === 1) found.push(first);
    length = 0;
  }
  return found.length > 0 ? found : null;
}
