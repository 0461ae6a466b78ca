import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { numbers } from "../src/wire/arrays";
import { PROTOCOL, type ViewerToServer } from "../src/wire/messages";
import { decodePacket, DecodeError, encodePacket, split } from "../src/wire/packet";
import { golden, goldenJson, messagesOf, plain } from "./golden";
import { seeded } from "./random";

describe("packets that Python has written", () => {
  const names = ["greeting", "heartbeat", "snapshot", "bare-snapshot", "deltas", "numbers", "commands", "merged", "resumed"];
  test.each(names)("%s says the same here", (name) => {
    expect(messagesOf(name).map(plain)).toEqual(goldenJson(name));
  });

  test("non-finite values and the smallest numbers arrive bit for bit", () => {
    const [frame] = messagesOf("numbers");
    if (frame?.type !== "frame") throw new Error("no frame");
    expect([...numbers(frame.values)]).toEqual([Number.NaN, Infinity, -Infinity, -0, 5e-324, 0.1]);
    expect([frame.seq, frame.step]).toEqual([2 ** 40, 2 ** 33]);
  });
});

describe("damaged packets", () => {
  test("a cut packet, wherever it is cut, is an error and nothing else", () => {
    const whole = golden("deltas");
    const boundaries = new Set([0]);
    let at = 0;
    for (const part of split(whole)) boundaries.add((at += 4 + part.byteLength));
    for (let end = 1; end < whole.byteLength; end += 7) {
      if (!boundaries.has(end)) expect(() => decodePacket(whole.slice(0, end))).toThrow(DecodeError);
    }
  });

  test("flipped bytes give messages or a DecodeError", () => {
    const random = seeded(3);
    for (let round = 0; round < 300; round++) {
      const bytes = golden("commands").slice();
      bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
      try {
        decodePacket(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(DecodeError);
      }
    }
  });

  test("an array whose bytes do not fill its shape is refused", () => {
    expect(() => numbers({ dtype: "<f8", shape: [2], data: new Uint8Array(15) })).toThrow(DecodeError);
  });
});

test("what the page says can be read back, and is left for Python to read", () => {
  const spoken: Record<string, ViewerToServer[]> = {
    hello: [{ type: "view-hello", protocol: PROTOCOL }],
    watch: [{ type: "watch", run: "needle-針", width: 1600 }],
    resume: [
      { type: "watch", run: "", width: 900, epoch: "e1", since: 70_000 },
      { type: "visibility", visible: false },
    ],
    steer: [
      { type: "steer", run: "needle-針", request: { id: "c1", verb: "set", sets: [{ knob: "zspace.gain", value: 0.25 }], expected_rev: 7, source: "ui" } },
      { type: "steer", run: "r-1", request: { id: "c2", verb: "step", steps: 10, supersede: true } },
    ],
    heartbeat: [
      { type: "ping", time: 12.5 },
      { type: "pong", time: 3 },
    ],
  };
  const folder = process.env.SPIRAL_SPOKEN;
  if (folder !== undefined) mkdirSync(folder, { recursive: true });
  for (const [name, messages] of Object.entries(spoken)) {
    const packet = encodePacket(messages);
    expect(decodePacket(packet)).toEqual(messages);
    if (folder !== undefined) writeFileSync(join(folder, `${name}.bin`), packet);
  }
});
