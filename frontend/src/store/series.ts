import { GrowableFloat64, lowerBound } from "../lib/growable";
import { decimate } from "../lib/decimate";
import type { SeriesSpec } from "../wire/messages";

/** Beyond this many points the older half of a series is reduced by minimum and maximum (16 bytes a point). */
const MOST_POINTS = 120_000;

/** The points of one curve, steps ascending, one value for each step. */
export class Series {
  steps = new GrowableFloat64();
  values = new GrowableFloat64();
  /** Some points were left out when this was loaded: only the least and the greatest of each bucket are here. */
  coarse = false;
  private rewinding = false;

  constructor(readonly spec: SeriesSpec) {}

  /** Replace everything, as a snapshot does. */
  load(steps: ArrayLike<number>, values: ArrayLike<number>): void {
    this.steps = GrowableFloat64.from(steps);
    this.values = GrowableFloat64.from(values);
  }

  /**
   * Add a point. Another value of the last step, such as of a second evaluation, takes the place of the first; an
   * earlier step is a repetition and ignored, unless the run was resumed from a checkpoint: then the newer incarnation
   * replaces what lies at and after the step.
   */
  append(step: number, value: number): void {
    if (this.steps.length > 0 && step <= this.steps.last) {
      if (!this.rewinding && step < this.steps.last) return;
      const keep = lowerBound(this.steps.view(), step);
      this.steps.truncate(keep);
      this.values.truncate(keep);
    }
    this.rewinding = false;
    this.steps.push(step);
    this.values.push(value);
    if (this.steps.length > MOST_POINTS) this.compact();
  }

  /** The run was resumed from a checkpoint: the next point may lie before the last one. */
  rewind(): void {
    this.rewinding = true;
  }

  /** Put finer points in the place of those in [from, to]; what came live after them stays. */
  refine(from: number, to: number, steps: readonly number[], values: readonly number[]): void {
    const oldSteps = this.steps.view();
    const oldValues = this.values.view();
    const start = lowerBound(oldSteps, from);
    const end = lowerBound(oldSteps, to + 1);
    const joined = (old: Float64Array, fresh: readonly number[]): number[] =>
      [...old.subarray(0, start), ...fresh, ...old.subarray(end)];
    this.load(joined(oldSteps, steps), joined(oldValues, values));
  }

  /** Index of the last point at or before `step`; -1 when there is none. */
  indexAt(step: number): number {
    return lowerBound(this.steps.view(), step + 0.5) - 1;
  }

  private compact(): void {
    const half = MOST_POINTS / 2;
    const steps = this.steps.view();
    const values = this.values.view();
    const old = decimate(
      { steps: steps.subarray(0, half), values: values.subarray(0, half) },
      Number.NEGATIVE_INFINITY,
      steps[half - 1] as number,
      half / 16,
    );
    const kept = Math.min(old.steps.length, half);
    const newer = steps.length - half;
    const nextSteps = new Float64Array(kept + newer);
    const nextValues = new Float64Array(kept + newer);
    nextSteps.set(old.steps.subarray(0, kept));
    nextValues.set(old.values.subarray(0, kept));
    nextSteps.set(steps.subarray(half), kept);
    nextValues.set(values.subarray(half), kept);
    this.load(nextSteps, nextValues);
  }
}
