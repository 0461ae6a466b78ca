import { describe, expect, test } from "vitest";
import { isStale, isUrgent, verbControl, wished, type WishEvent, type Wishes } from "../src/store/asks";
import type { CommandRecord } from "../src/wire/messages";
import { messagesOf } from "./golden";

const GAIN = "zspace.gain";

function after(...events: WishEvent[]): Wishes {
  return events.reduce(wished, {} as Wishes);
}

function asked(id: string, value: number): WishEvent {
  return { kind: "asked", id, verb: "set", sets: [{ knob: GAIN, value }] };
}

function recorded(id: string, state: CommandRecord["state"], reason = ""): WishEvent {
  const [record] = messagesOf("commands");
  return { kind: "recorded", record: { ...(record as CommandRecord), id, state, reason } };
}

describe("a wish", () => {
  test("is open until the engine's word: sending, accepted, applied", () => {
    expect(after(asked("a", 0.2))[GAIN]?.ask).toEqual({ id: "a", value: 0.2, phase: "sending" });
    expect(after(asked("a", 0.2), recorded("a", "accepted"))[GAIN]?.ask?.phase).toBe("accepted");
    const done = after(asked("a", 0.2), recorded("a", "accepted"), recorded("a", "applied"));
    expect(done[GAIN]).toEqual({ ask: null, refusal: null });
  });

  test("may be applied before the answer to its POST is here", () => {
    const done = after(asked("a", 0.2), recorded("a", "applied"), recorded("a", "accepted"));
    expect(done[GAIN]).toEqual({ ask: null, refusal: null });
  });

  test("that is refused leaves its reason, at the door or by the engine", () => {
    const door = after(asked("a", 7), { kind: "refused", id: "a", reason: "out of bounds" });
    const engine = after(asked("a", 7), recorded("a", "accepted"), recorded("a", "rejected", "out of bounds"));
    for (const wishes of [door, engine]) {
      expect(wishes[GAIN]).toEqual({ ask: null, refusal: { value: 7, reason: "out of bounds" } });
    }
  });

  test("that expires leaves its reason, and one that gave way to a newer one is settled", () => {
    const expired = after(asked("a", 7), recorded("a", "accepted"), recorded("a", "expired", "the run ended"));
    expect(expired[GAIN]).toEqual({ ask: null, refusal: { value: 7, reason: "the run ended" } });
    const gone = after(asked("a", 7), recorded("a", "accepted"), recorded("a", "superseded"));
    expect(gone[GAIN]).toEqual({ ask: null, refusal: null });
  });

  test("clears the refusal of the one before", () => {
    const again = after(asked("a", 7), { kind: "refused", id: "a", reason: "no" }, asked("b", 0.3));
    expect(again[GAIN]).toEqual({ ask: { id: "b", value: 0.3, phase: "sending" }, refusal: null });
  });

  test("that a newer one has overtaken settles nothing", () => {
    const newer = after(asked("a", 0.2), asked("b", 0.3), recorded("a", "applied"), recorded("a", "rejected", "late"));
    expect(newer[GAIN]).toEqual({ ask: { id: "b", value: 0.3, phase: "sending" }, refusal: null });
  });

  test("that the engine found stale stays open, also when the answer to its POST comes late", () => {
    const [first] = messagesOf("commands");
    const stale: CommandRecord = { ...(first as CommandRecord), id: "a", state: "rejected", expected_rev: 4, rev: 6, reason: "late" };
    const wishes = after(asked("a", 7), { kind: "recorded", record: stale }, recorded("a", "accepted"));
    expect(wishes[GAIN]).toEqual({ ask: { id: "a", value: 7, phase: "stale", told: { rev: 6 } }, refusal: null });
    expect(isStale({ ...stale, rev: 4 })).toBe(false);
  });

  test("for a later step is urgent only until the server has it", () => {
    const later: WishEvent = { kind: "asked", id: "a", verb: "set", sets: [{ knob: GAIN, value: 7 }], atStep: 90 };
    expect([after(later), after(later, recorded("a", "accepted")), after(asked("b", 1), recorded("b", "accepted"))].map(isUrgent)).toEqual(
      [true, false, true],
    );
  });

  test("of somebody else does not touch the controls here", () => {
    expect(after(recorded("other", "rejected", "no"))).toEqual({});
  });

  test("to pause stands at its button", () => {
    const wishes = after({ kind: "asked", id: "p", verb: "pause", sets: [] });
    expect(wishes[verbControl("pause")]?.ask?.phase).toBe("sending");
  });
});
