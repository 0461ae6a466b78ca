const GOLDEN_DEGREES = 137.508;

/** A color for the k-th of any number of curves: those of the palette first, then hues that lie far from each other. */
export function tint(k: number, palette: readonly string[], dark: boolean): string {
  return palette[k] ?? hex((k * GOLDEN_DEGREES) % 360, 0.62, dark ? 0.68 : 0.38);
}

function hex(hue: number, saturation: number, lightness: number): string {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  const part = (offset: number): string => {
    const at = (offset + hue / 30) % 12;
    const value = lightness - reach * Math.max(-1, Math.min(at - 3, 9 - at, 1));
    return Math.round(255 * value).toString(16).padStart(2, "0");
  };
  return `#${part(0)}${part(8)}${part(4)}`;
}
