import { beforeEach, describe, expect, test } from "vitest";
import { alarms, journal, receive, steers } from "../src/store/live";
import { markers } from "../src/panels/ChartsPanel";
import type { CommandRecord } from "../src/wire/messages";
import { goldenSnapshot, messagesOf } from "./golden";

const said = messagesOf("commands") as CommandRecord[];

beforeEach(() => receive([goldenSnapshot(), ...said]));

describe("what guards did", () => {
  test("is an alarm at its step, with its reason, and no steer of a person", () => {
    expect(alarms.value.map(({ step, record }) => [step, record.verb])).toEqual([
      [9, "mark"],
      [10, "rollback"],
    ]);
    expect(steers.value.map(({ step }) => step)).toEqual([3]);
    // Where frames were merged is a stretch, and lies below all that is a line.
    expect(markers.value.map(({ step, until }) => [step, until])[0]).toEqual([1, 3]);
    expect(markers.value.slice(1).map(({ step, alarm }) => [step, alarm])).toEqual([
      [3, false],
      [9, true],
      [10, true],
    ]);
    expect(markers.value.at(-1)?.text).toContain("explosion: 9 > 1");
  });

  test("has its place in the journal by time, for its numbers are below 0", () => {
    const [rollback] = said.filter(({ number }) => number === -1);
    receive([{ ...(rollback as CommandRecord), id: "later", number: -3, time: (rollback as CommandRecord).time + 1 }]);
    expect(journal.value[0]?.number).toBe(-3);
  });
});
