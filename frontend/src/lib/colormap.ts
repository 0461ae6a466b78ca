/** Perceptually even maps: equal steps of the value look like equal steps of brightness. */
export type ColormapName = "inferno" | "viridis";

// Ten points of each map; between them colours are mixed linearly, at most 3/255 away from the full tables.
const ANCHORS: Record<ColormapName, string> = {
  inferno: "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
  viridis: "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
};

/** Number of entries of a colour table. */
export const COLORS = 256;

/** A table of 256 RGB triples, 0..255 each. */
export function colorTable(name: ColormapName): Uint8ClampedArray {
  const anchors = ANCHORS[name].split(" ").map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  const table = new Uint8ClampedArray(COLORS * 3);
  for (let entry = 0; entry < COLORS; entry++) {
    const place = (entry / (COLORS - 1)) * (anchors.length - 1);
    const left = Math.min(anchors.length - 2, Math.floor(place));
    for (let channel = 0; channel < 3; channel++) {
      const a = anchors[left]?.[channel] ?? 0;
      const b = anchors[left + 1]?.[channel] ?? 0;
      table[entry * 3 + channel] = a + (b - a) * (place - left);
    }
  }
  return table;
}

/**
 * Colour a map of values in 0..1 as RGBA: the colour and the opacity both follow the value, so that zero is transparent.
 * `opacity` (0..1) is the opacity of the greatest value. Values that are not finite are left transparent.
 */
export function colored(values: Float32Array, table: Uint8ClampedArray, opacity: number): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(values.length * 4);
  for (let at = 0; at < values.length; at++) {
    const value = values[at] as number;
    if (!(value > 0)) continue;
    const share = Math.min(1, value);
    const entry = Math.round(share * (COLORS - 1)) * 3;
    pixels[at * 4] = table[entry] as number;
    pixels[at * 4 + 1] = table[entry + 1] as number;
    pixels[at * 4 + 2] = table[entry + 2] as number;
    pixels[at * 4 + 3] = 255 * opacity * share;
  }
  return pixels;
}
