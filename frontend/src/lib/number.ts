/** A number as a person types it: one decimal sign, a point or a comma, and perhaps an exponent. */
const NUMBER = /^[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?$/i;

/** A comma before each group of three: a thousand to some, one and three decimals to others. */
const THOUSANDS = /^[+-]?[1-9]\d{0,2}(,\d{3})+(e[+-]?\d+)?$/i;

/** What typed text says: a number, nothing that is one, or one of two numbers. */
export type Typed = { value: number } | { fault: "not-a-number" | "ambiguous" };

/** Read what was typed: `0.001`, `1e-3`, `0,001`, full-width digits too; `1,000` is ambiguous, `0x10` no number. */
export function readNumber(typed: string): Typed {
  const text = typed.normalize("NFKC").trim().replace("−", "-");
  if (THOUSANDS.test(text)) return { fault: "ambiguous" };
  const value = NUMBER.test(text) ? Number(text.replace(",", ".")) : Number.NaN;
  return Number.isFinite(value) ? { value } : { fault: "not-a-number" };
}

/** Write a number so that `readNumber` reads it back: no groups, at most six significant digits beside whole numbers. */
export function plain(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const [mantissa, exponent] = value.toExponential(5).split("e") as [string, string];
  const power = Number(exponent);
  return power < -3 || power > 5 ? `${Number(mantissa)}e${power}` : String(Number(value.toPrecision(6)));
}
