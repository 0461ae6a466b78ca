/** A Float64Array that grows by doubling, so that appending a point costs no allocation most of the time. */
export class GrowableFloat64 {
  private memory: Float64Array;
  length = 0;

  constructor(capacity = 256) {
    this.memory = new Float64Array(capacity);
  }

  static from(values: ArrayLike<number>): GrowableFloat64 {
    const grown = new GrowableFloat64(Math.max(256, values.length * 2));
    grown.memory.set(values);
    grown.length = values.length;
    return grown;
  }

  push(value: number): void {
    if (this.length === this.memory.length) {
      const wider = new Float64Array(this.memory.length * 2);
      wider.set(this.memory);
      this.memory = wider;
    }
    this.memory[this.length++] = value;
  }

  /** The value at `index`; NaN outside. */
  at(index: number): number {
    return index >= 0 && index < this.length ? (this.memory[index] as number) : Number.NaN;
  }

  get last(): number {
    return this.at(this.length - 1);
  }

  /** Forget everything from `length` on. */
  truncate(length: number): void {
    this.length = Math.min(this.length, length);
  }

  /** The values as a view that is valid until the next `push`. */
  view(): Float64Array {
    return this.memory.subarray(0, this.length);
  }
}

/** First index whose value is at least `target` in ascending values; the length when there is none. */
export function lowerBound(values: Float64Array, target: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) < target) low = middle + 1;
    else high = middle;
  }
  return low;
}
