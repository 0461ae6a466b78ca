import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { laterControl } from "../src/store/asks";
import { journalJson, passes } from "../src/store/journal";
import { receive, run, wishes } from "../src/store/live";
import { judge, type Standing } from "../src/store/stale";
import { askedAgain, ATTEMPTS, NEWS_MS, look, say, setTransport, steer, successor, type Answer } from "../src/store/steering";
import type { Change, CommandRecord, CommandRequest, KnobSpec, Value } from "../src/wire/messages";
import { goldenSnapshot, messagesOf } from "./golden";

const GAIN = "zspace.gain";
const OTHER = "optim.lr";

/** The run of the golden snapshot at revision 5, with a gain of 0.5. */
function begin(): void {
  const snapshot = goldenSnapshot();
  const [knob] = snapshot.knobs as [KnobSpec];
  const knobs = [{ ...knob, name: GAIN, value: 0.5 }, { ...knob, name: OTHER, value: 0.01 }];
  run.value = null;
  receive([{ ...snapshot, rev: 5, knobs, commands: [] }]);
  wishes.value = {};
}

function record(part: Partial<CommandRecord>): CommandRecord {
  const [first] = messagesOf("commands");
  return { ...(first as CommandRecord), actor: "", changes: [], ...part };
}

let number = 100;

/** Somebody else sets a knob: the run has a new revision. */
function others(knob: string, old: Value, value: Value, rev: number, part: Partial<CommandRecord> = {}): CommandRecord {
  const changes: Change[] = [{ knob, old, in_force: value }];
  number += 1;
  return record({ id: `o${number}`, number, state: "applied", step: 9, rev, changes, sets: [{ knob, value }], ...part });
}

/** A server with one knob in force, that refuses what expects an older revision. */
class Door {
  readonly heard: CommandRequest[] = [];
  constructor(public rev: number, public values: Record<string, Value>) {
    setTransport((_, request) => Promise.resolve(this.answer(request)));
  }
  answer(request: CommandRequest): Answer {
    this.heard.push(request);
    if (request.expected_rev !== undefined && request.expected_rev !== null && request.expected_rev < this.rev) {
      return { kind: "stale", reason: "expected another revision", rev: this.rev, values: this.values };
    }
    return { kind: "record", record: record({ ...request, sets: request.sets ?? [], actor: "", source: "ui", number: ++number, state: "accepted", step: null, rev: null }) };
  }
  get expected(): unknown[] {
    return this.heard.map((request) => request.expected_rev);
  }
}

const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => {
  vi.useFakeTimers();
  begin();
});
afterEach(() => vi.useRealTimers());

describe("a set", () => {
  test("names the revision that the person saw, and says that it is one of a quick series where it is", async () => {
    const door = new Door(5, {});
    const seen = look(GAIN);
    receive([others(OTHER, 0.01, 0.02, 6)]);
    await steer(GAIN, 0.2, { seen, supersede: true });
    expect(door.heard[0]).toMatchObject({ verb: "set", expected_rev: 5, supersede: true, source: "ui" });
    await steer(GAIN, 0.3);
    expect(door.heard[1]?.expected_rev).toBe(6);
    expect("supersede" in (door.heard[1] ?? {})).toBe(false);
  });

  test("goes through by itself when somebody has set another knob", async () => {
    const door = new Door(7, { [GAIN]: 0.5 });
    await steer(GAIN, 0.2);
    await settle();
    expect(door.expected).toEqual([5, 7]);
    expect(wishes.value[GAIN]).toMatchObject({ ask: { value: 0.2, phase: "accepted" }, refusal: null });
  });

  test("is stale when somebody has set this one, and says who; asked for again it goes through", async () => {
    const door = new Door(6, { [GAIN]: 0.9 });
    await steer(GAIN, 0.2);
    await settle();
    expect(wishes.value[GAIN]?.ask?.phase).toBe("stale");
    const theirs = others(GAIN, 0.5, 0.9, 6, { actor: "Ada", source: "api" });
    receive([theirs]);
    expect(wishes.value[GAIN]).toMatchObject({ ask: null, refusal: { value: 0.2, stale: { inForce: 0.9 } } });
    expect(wishes.value[GAIN]?.refusal?.stale?.by).toEqual(theirs);
    expect(door.expected).toEqual([5]);
    await steer(GAIN, 0.2);
    expect(door.expected).toEqual([5, 6]);
    expect(wishes.value[GAIN]).toMatchObject({ ask: { phase: "accepted" }, refusal: null });
  });

  test("is not stale for a knob that a schedule has moved, nor for what the person did before", async () => {
    const door = new Door(7, { [GAIN]: 0.8 });
    const seen = look(GAIN);
    await steer(GAIN, 0.2, { seen: { rev: 7, value: 0.5 } });
    const mine = door.heard[0]?.id as string;
    receive([others(GAIN, 0.5, 0.2, 6, { id: mine }), others(OTHER, 0.01, 0.1, 7)]);
    receive([{ type: "knobs-moved", run: "r-1", incarnation: 0, seq: 90, step: 9, time: 9, changes: [{ knob: GAIN, old: 0.2, in_force: 0.8 }] }]);
    await steer(GAIN, 0.3, { seen });
    await settle();
    expect(door.expected).toEqual([7, 5, 7]);
    expect(wishes.value[GAIN]?.refusal).toBeNull();
  });

  test("that the engine finds stale is asked again under a name that the journal can follow", async () => {
    const door = new Door(5, {});
    await steer(GAIN, 0.2);
    const { id } = door.heard[0] as CommandRequest;
    const rejected = record({ id, state: "rejected", expected_rev: 5, rev: 6, reason: "expected revision 5" });
    receive([others(OTHER, 0.01, 0.02, 6), rejected]);
    await settle();
    expect(door.expected).toEqual([5, 6]);
    expect(door.heard[1]?.id).toBe(successor(id));
    expect(askedAgain(rejected)?.id).toBe(successor(id));
    expect(passes(rejected, "refused", askedAgain(rejected))).toBe(false);
    // The answer to the first POST comes late: it must not bring the first one back.
    receive([record({ id, state: "accepted" })]);
    expect(wishes.value[GAIN]?.ask?.id).toBe(successor(id));
  });

  test("is asked again a bounded number of times", async () => {
    const heard: CommandRequest[] = [];
    let rev = 5;
    setTransport((_, request) => {
      heard.push(request);
      rev += 1;
      return Promise.resolve({ kind: "stale", reason: "too late", rev, values: { [GAIN]: 0.5 } });
    });
    await steer(GAIN, 0.2);
    await settle();
    expect(heard.length).toBe(1 + ATTEMPTS);
    expect(new Set(heard.map((one) => one.id)).size).toBe(heard.length);
    expect(wishes.value[GAIN]).toEqual({ ask: null, refusal: { value: 0.2, reason: "too late" } });
  });

  test("is refused with the value in force when the page never hears who was first", async () => {
    new Door(6, { [GAIN]: 0.9 });
    await steer(GAIN, 0.2);
    await vi.advanceTimersByTimeAsync(NEWS_MS + 1);
    expect(wishes.value[GAIN]?.refusal).toMatchObject({ value: 0.2, stale: { by: null, inForce: 0.9 } });
  });

  test("for a later step expects no revision and leaves the knob free", async () => {
    const door = new Door(9, {});
    await steer(GAIN, 0.2, { atStep: 500 });
    expect(door.heard[0]).toMatchObject({ at_step: 500, sets: [{ knob: GAIN, value: 0.2 }] });
    expect(door.expected).toEqual([undefined]);
    expect(wishes.value[GAIN]).toBeUndefined();
    expect(wishes.value[laterControl(GAIN)]?.ask).toMatchObject({ value: 0.2, atStep: 500, phase: "accepted" });
  });
});

describe("a verdict", () => {
  const now = (part: Partial<Standing>): Standing => ({ rev: 6, knobs: run.value?.knobs ?? new Map(), commands: new Map(), ...part });

  test("waits while the page is behind, and does not guess", () => {
    expect(judge(GAIN, { rev: 5, value: 0.4 }, { rev: 7, value: 0.5 }, now({}), new Set())).toEqual({ kind: "wait" });
  });

  test("names the last who set the knob", () => {
    const both = [others(GAIN, 0.4, 0.6, 6), others(GAIN, 0.6, 0.5, 7), others(OTHER, 1, 2, 8)];
    const commands = new Map(both.map((one) => [one.id, one]));
    const verdict = judge(GAIN, { rev: 5, value: 0.4 }, { rev: 8 }, now({ rev: 8, commands }), new Set());
    expect(verdict).toEqual({ kind: "refuse", by: both[1], inForce: 0.5 });
  });

  test("of an engine that counts again from a checkpoint goes by the value", () => {
    const knob = { rev: 9, value: 0.4 };
    expect(judge(GAIN, knob, { rev: 3 }, now({ rev: 3 }), new Set())).toEqual({ kind: "refuse", by: null, inForce: 0.5 });
    expect(judge(GAIN, { ...knob, value: 0.5 }, { rev: 3 }, now({ rev: 3 }), new Set()).kind).toBe("again");
  });
});

describe("verbs", () => {
  test("carry a number of steps where they take one", async () => {
    const door = new Door(5, {});
    await say("step", 5);
    await say("checkpoint");
    expect(door.heard[0]).toMatchObject({ verb: "step", steps: 5 });
    expect(door.heard[1]).toEqual({ id: door.heard[1]?.id, verb: "checkpoint", actor: "", source: "ui" });
    expect(door.expected).toEqual([undefined, undefined]);
  });
});

describe("the journal", () => {
  test("is narrowed to changes or refusals, and copied oldest first", () => {
    const change = others(GAIN, 0.5, 0.2, 6);
    const pause = record({ id: "p", number: 2, verb: "pause", state: "applied", rev: 7 });
    const refused = record({ id: "r", number: 3, state: "rejected", reason: "no" });
    const expired = record({ id: "e", number: 4, state: "expired", reason: "over" });
    const all = [expired, refused, pause, change];
    const ids = (filter: "all" | "changes" | "refused") => all.filter((one) => passes(one, filter, null)).map((one) => one.id);
    expect(ids("all")).toEqual(["e", "r", "p", change.id]);
    expect(ids("changes")).toEqual([change.id]);
    expect(ids("refused")).toEqual(["e", "r"]);
    expect((JSON.parse(journalJson(all)) as CommandRecord[]).map((one) => one.id)).toEqual([change.id, "p", "r", "e"]);
  });
});
