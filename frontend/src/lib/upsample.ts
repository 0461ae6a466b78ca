/** A map in C order. */
export interface Plane {
  values: Float32Array;
  height: number;
  width: number;
}

/** Below this peak a map counts as empty; the test is scale-free because gradients of a trained net are tiny. */
export const ZERO_PEAK = 1e-30;

/**
 * The positive part of a signed map; null when nothing is positive. It comes before enlarging, or negative neighbours
 * would eat the edge of a peak.
 */
export function positive(map: Plane): Plane | null {
  if (!(greatest(map.values) > ZERO_PEAK)) return null;
  return { ...map, values: map.values.map((value) => (value > 0 ? value : 0)) };
}

/** A positive map divided by `peak`, or by its own maximum, and cut off at 1. It comes last, after enlarging. */
export function normalised(map: Plane, peak?: number): Plane {
  const by = peak !== undefined && peak > ZERO_PEAK ? peak : greatest(map.values);
  return { ...map, values: map.values.map((value) => Math.min(1, value / by)) };
}

function greatest(values: Float32Array): number {
  return values.reduce((most, value) => (value > most ? value : most), 0);
}

/** Enlarge by repeating cells: shows the resolution that the map really has. */
export function nearest(map: Plane, height: number, width: number): Plane {
  const values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const row = Math.min(map.height - 1, Math.floor((y * map.height) / height)) * map.width;
    for (let x = 0; x < width; x++) {
      values[y * width + x] = map.values[row + Math.min(map.width - 1, Math.floor((x * map.width) / width))] as number;
    }
  }
  return { values, height, width };
}

/** Enlarge bilinearly with half-pixel centres and clamped edges (`align_corners=False`). */
export function bilinear(map: Plane, height: number, width: number): Plane {
  const values = new Float32Array(height * width);
  const columns = taps(map.width, width);
  const rows = taps(map.height, height);
  for (let y = 0; y < height; y++) {
    const row = rows[y] as Tap;
    for (let x = 0; x < width; x++) {
      const column = columns[x] as Tap;
      const upper = mix(map, row.low, column);
      const lower = mix(map, row.high, column);
      values[y * width + x] = upper + (lower - upper) * row.share;
    }
  }
  return { values, height, width };
}

interface Tap {
  low: number;
  high: number;
  share: number;
}

function taps(from: number, to: number): Tap[] {
  return Array.from({ length: to }, (_, place) => {
    const centre = Math.min(from - 1, Math.max(0, ((place + 0.5) * from) / to - 0.5));
    const low = Math.floor(centre);
    return { low, high: Math.min(from - 1, low + 1), share: centre - low };
  });
}

function mix(map: Plane, row: number, column: Tap): number {
  const a = map.values[row * map.width + column.low] as number;
  const b = map.values[row * map.width + column.high] as number;
  return a + (b - a) * column.share;
}
