import { effect, signal, type Signal } from "@preact/signals";
import type { ColormapName } from "../lib/colormap";

/** `auto` follows the operating system. */
export type Theme = "auto" | "dark" | "light";

/** How the heat maps are drawn. */
export interface SeeOptions {
  overlay: boolean;
  /** Opacity of the greatest value, 0..1. */
  opacity: number;
  colormap: ColormapName;
  /** Show the map's own cells instead of interpolating. */
  cells: boolean;
  /** Keep one colour scale across images and frames, so that a growing map looks like one. */
  lockScale: boolean;
  outline: boolean;
}

function kept<T>(key: string, initial: T): Signal<T> {
  let start = initial;
  try {
    const text = localStorage.getItem(`spiral.${key}`);
    if (text !== null) {
      const value = JSON.parse(text) as T;
      start = typeof initial === "object" ? { ...initial, ...value } : value;
    }
  } catch {
    // Storage is forbidden or holds something else: the initial value serves.
  }
  const preference = signal(start);
  effect(() => {
    const text = JSON.stringify(preference.value);
    try {
      localStorage.setItem(`spiral.${key}`, text);
    } catch {
      // The choice lasts as long as the page.
    }
  });
  return preference;
}

export const theme = kept<Theme>("theme", "auto");
export const see = kept<SeeOptions>("see", {
  overlay: true,
  opacity: 0.75,
  colormap: "inferno",
  cells: false,
  lockScale: false,
  outline: true,
});
export const moreCharts = kept("moreCharts", false);
/** Groups of knobs that are unfolded, by name. */
export const openGroups = kept<Record<string, boolean>>("knobGroups", {});
