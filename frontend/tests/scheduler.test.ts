import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

const FRAME_MS = 16;
const REST_MS = 80;

let scheduler: typeof import("../src/charts/scheduler");

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  vi.stubGlobal("requestAnimationFrame", (work: () => void) => setTimeout(work, FRAME_MS));
  vi.resetModules();
  scheduler = await import("../src/charts/scheduler");
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** A job that keeps the thread busy. */
function busy(milliseconds: number, done: () => void): () => void {
  return () => {
    vi.advanceTimersByTime(milliseconds);
    done();
  };
}

describe("drawing jobs", () => {
  test("of one chart: the newest wins and is drawn once", () => {
    const old = vi.fn();
    const fresh = vi.fn();
    scheduler.schedule("a", old);
    scheduler.schedule("a", fresh);
    vi.advanceTimersByTime(1000);
    expect(old).not.toHaveBeenCalled();
    expect(fresh).toHaveBeenCalledTimes(1);
  });

  test("of one chart rest between two drawings, and the last one asked for is drawn", () => {
    const times: number[] = [];
    const drawn: number[] = [];
    for (let k = 0; k < 200; k++) {
      scheduler.schedule("a", () => {
        times.push(performance.now());
        drawn.push(k);
      });
      vi.advanceTimersByTime(5);
    }
    vi.advanceTimersByTime(REST_MS + 2 * FRAME_MS);
    expect(drawn.at(-1)).toBe(199);
    expect(times.length).toBeGreaterThan(8);
    for (let k = 1; k < times.length; k++) expect((times[k] as number) - (times[k - 1] as number)).toBeGreaterThanOrEqual(REST_MS);
  });

  test("of a chart at rest do not hold up the others for longer than a rest", () => {
    scheduler.schedule("a", () => undefined);
    vi.advanceTimersByTime(FRAME_MS);
    scheduler.schedule("a", () => undefined);
    const other = vi.fn();
    scheduler.schedule("b", other);
    vi.advanceTimersByTime(REST_MS + FRAME_MS);
    expect(other).toHaveBeenCalledTimes(1);
  });

  test("beyond a frame's budget are drawn in later frames, none is left out", () => {
    const drawn: string[] = [];
    for (const key of ["a", "b", "c", "d"]) scheduler.schedule(key, busy(10, () => drawn.push(key)));
    vi.advanceTimersByTime(FRAME_MS);
    expect(drawn.length).toBeLessThan(4);
    vi.advanceTimersByTime(1000);
    expect(drawn).toEqual(["a", "b", "c", "d"]);
  });

  test("that fail hold up no others", () => {
    const other = vi.fn();
    scheduler.schedule("a", () => {
      throw new Error("cannot be drawn");
    });
    scheduler.schedule("b", other);
    expect(() => vi.advanceTimersByTime(FRAME_MS)).toThrow("cannot be drawn");
    vi.advanceTimersByTime(REST_MS + FRAME_MS);
    expect(other).toHaveBeenCalledTimes(1);
  });

  test("are forgotten with their chart, and a chart that comes back is not at rest", () => {
    const gone = vi.fn();
    scheduler.schedule("a", gone);
    scheduler.unschedule("a");
    vi.advanceTimersByTime(1000);
    expect(gone).not.toHaveBeenCalled();
    const first = vi.fn();
    const again = vi.fn();
    scheduler.schedule("a", first);
    vi.advanceTimersByTime(FRAME_MS);
    scheduler.unschedule("a");
    scheduler.schedule("a", again);
    vi.advanceTimersByTime(FRAME_MS);
    expect(first).toHaveBeenCalledTimes(1);
    expect(again).toHaveBeenCalledTimes(1);
  });

  test("are held back while a person steers, and drawn once that is over", () => {
    const job = vi.fn();
    scheduler.hold(200);
    scheduler.schedule("a", job);
    vi.advanceTimersByTime(190);
    expect(job).not.toHaveBeenCalled();
    vi.advanceTimersByTime(2 * FRAME_MS + 10);
    expect(job).toHaveBeenCalledTimes(1);
  });

  test("are drawn again after a release", () => {
    const job = vi.fn();
    scheduler.hold(10_000);
    scheduler.release();
    scheduler.schedule("a", job);
    vi.advanceTimersByTime(2 * FRAME_MS);
    expect(job).toHaveBeenCalledTimes(1);
  });
});
