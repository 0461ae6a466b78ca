/** What a slider needs to know of a knob. */
export interface Scale {
  scale: "linear" | "log";
  low: number;
  high: number;
  /** What an arrow key moves: an amount on a linear scale, a factor on a log scale. */
  step: number;
  whole: boolean;
}

/** Positions of a log slider run from 0 to this number; a linear slider's positions are the values themselves. */
export const LOG_TICKS = 1000;

/** The bounds and the grain of a range input. */
export interface Track {
  min: number;
  max: number;
  step: number;
}

/** How the range input of a knob is laid out. */
export function track(scale: Scale): Track {
  return scale.scale === "log"
    ? { min: 0, max: LOG_TICKS, step: 1 }
    : { min: scale.low, max: scale.high, step: scale.step };
}

/**
 * The least value that a log slider can show: the low bound, or six decades below the high one when that is 0. Where
 * both bounds are negative, magnitudes fall along the slider.
 */
function logFloor(scale: Scale): number {
  return scale.low > 0 || scale.high < 0 ? scale.low : scale.high * 1e-6;
}

/** How far along its slider a value stands, 0 to 1. */
export function shareOf(value: number, scale: Scale): number {
  if (scale.high <= scale.low) return 0;
  const floor = logFloor(scale);
  const share =
    scale.scale === "linear"
      ? (value - scale.low) / (scale.high - scale.low)
      : value <= floor
        ? 0
        : Math.log(value / floor) / Math.log(scale.high / floor);
  return Math.min(1, Math.max(0, share));
}

/** The position of a value on its range input. */
export function toSlider(value: number, scale: Scale): number {
  return scale.scale === "log" ? shareOf(value, scale) * LOG_TICKS : value;
}

/** The value at a position of the range input; on a log scale rounded to three significant digits. */
export function fromSlider(position: number, scale: Scale): number {
  if (scale.scale === "linear") return within(significant(position, 12), scale);
  if (position <= 0) return scale.low;
  if (position >= LOG_TICKS) return scale.high;
  const floor = logFloor(scale);
  return within(significant(floor * (scale.high / floor) ** (position / LOG_TICKS), 3), scale);
}

/** Move a value by `count` arrow keys. */
export function stepped(value: number, count: number, scale: Scale): number {
  if (scale.scale === "log") {
    const negative = scale.high < 0;
    const start = value <= 0 && !negative ? logFloor(scale) : value;
    return within(significant(start * scale.step ** (negative ? -count : count), 6), scale);
  }
  return within(significant(value + count * scale.step, 12), scale);
}

function significant(value: number, digits: number): number {
  return Number(value.toPrecision(digits));
}

function within(value: number, scale: Scale): number {
  const whole = scale.whole ? Math.round(value) : value;
  return Math.min(scale.high, Math.max(scale.low, whole));
}
