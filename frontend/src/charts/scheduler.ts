/** Milliseconds of drawing in one animation frame: a click must not wait behind a screenful of charts. */
const BUDGET_MS = 5;

/**
 * A chart rests this long between two drawings: twelve a second look live, and without a graphics card each one costs as
 * much again in the browser's own painting, which the machine that trains can use better.
 */
const REST_MS = 80;

const waiting = new Map<string, () => void>();
const drawnAt = new Map<string, number>();
let asked = false;
let heldUntil = 0;

/**
 * Draw `job` in one of the next animation frames. A later job with the same key replaces an earlier one; what the budget
 * of a frame does not hold waits for the next, first come first served. A hidden tab gets no frames and so draws nothing.
 */
export function schedule(key: string, job: () => void): void {
  waiting.set(key, job);
  ask();
}

/**
 * Draw nothing for a while: a person is steering, and the answer comes first. Curves that stand still for a moment go
 * unnoticed; a knob that answers late does not.
 */
export function hold(milliseconds: number): void {
  heldUntil = performance.now() + milliseconds;
}

/** Draw again. */
export function release(): void {
  heldUntil = 0;
}

/** Forget a job, because what it draws on is gone. */
export function unschedule(key: string): void {
  waiting.delete(key);
  drawnAt.delete(key);
}

function ask(): void {
  if (asked || waiting.size === 0) return;
  asked = true;
  const rests = [...waiting.keys()].map((key) => (drawnAt.get(key) ?? -REST_MS) + REST_MS - performance.now());
  const rest = Math.max(Math.min(...rests), heldUntil - performance.now());
  if (rest > 0) setTimeout(() => requestAnimationFrame(work), rest);
  else requestAnimationFrame(work);
}

function work(): void {
  asked = false;
  const begun = performance.now();
  if (begun < heldUntil) return ask();
  try {
    for (const [key, job] of waiting) {
      const now = performance.now();
      if (now - begun >= BUDGET_MS) break;
      if (now - (drawnAt.get(key) ?? -REST_MS) < REST_MS) continue;
      waiting.delete(key);
      drawnAt.set(key, now);
      job();
    }
  } finally {
    // The others do not wait for ever because one could not be drawn.
    ask();
  }
}
