/** Milliseconds of drawing in one animation frame; the rest of a 16 ms frame belongs to the browser. */
const BUDGET_MS = 12;

const waiting = new Map<string, () => void>();
let asked = false;

/**
 * Draw `job` in the next animation frame. A later job with the same key replaces an earlier one; what the budget of a
 * frame does not hold waits for the next, first come first served. A hidden tab gets no frames and so draws nothing.
 */
export function schedule(key: string, job: () => void): void {
  waiting.set(key, job);
  if (!asked) {
    asked = true;
    requestAnimationFrame(work);
  }
}

/** Forget a job, because what it draws on is gone. */
export function unschedule(key: string): void {
  waiting.delete(key);
}

function work(): void {
  asked = false;
  const end = performance.now() + BUDGET_MS;
  for (const [key, job] of waiting) {
    waiting.delete(key);
    job();
    if (performance.now() >= end) break;
  }
  if (waiting.size > 0) {
    asked = true;
    requestAnimationFrame(work);
  }
}
