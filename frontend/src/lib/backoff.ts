const FIRST_SECONDS = 0.5;
const MOST_SECONDS = 15;

/**
 * Seconds to wait before attempt number `attempt` (0 first): doubling up to 15 s, spread over the upper half by
 * `random` in [0, 1), so that many pages do not come back at once after a server restart.
 */
export function backoff(attempt: number, random: number): number {
  const full = Math.min(MOST_SECONDS, FIRST_SECONDS * 2 ** Math.min(attempt, 10));
  return full * (0.5 + 0.5 * random);
}
