/** The colours that charts take from the page's design tokens. */
export interface Palette {
  text: string;
  faint: string;
  grid: string;
  steer: string;
  alarm: string;
  curves: string[];
}

const CURVES = 6;

/** Read the tokens in force, after each change of theme. */
export function palette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string): string => style.getPropertyValue(`--${name}`).trim() || "#888";
  return {
    text: token("text-soft"),
    faint: token("text-faint"),
    grid: token("grid"),
    steer: token("steer"),
    alarm: token("bad"),
    curves: Array.from({ length: CURVES }, (_, k) => token(`curve-${k + 1}`)),
  };
}

/** A palette colour with an opacity in 0..1; tokens of curves are #rrggbb. */
export function faded(color: string, opacity: number): string {
  return `${color}${Math.round(opacity * 255).toString(16).padStart(2, "0")}`;
}
