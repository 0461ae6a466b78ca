/** Write a number in the least room that keeps `digits` significant digits: 0.003, 1.2e-5, 1,240. */
export function short(value: number, digits = 4): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(Math.min(digits - 1, 2)).split("e") as [string, string];
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  if (size >= 1000 && Number.isInteger(value)) return grouped(value);
  return String(Number(value.toPrecision(digits)));
}

/** `short`, with a dash for what is not known. */
export function shortOrDash(value: number, digits = 4): string {
  return Number.isNaN(value) ? "–" : short(value, digits);
}

/** Write a whole number with thousands separated, the same in every language. */
export function grouped(value: number): string {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Write what a knob holds; `mixed` stands for null. */
export function valueText(value: boolean | number | string | null, mixed = "mixed"): string {
  if (value === null) return mixed;
  return typeof value === "number" ? short(value, 6) : String(value);
}

/** Write seconds as 45 s, 12 min or 3 h 5 min. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
