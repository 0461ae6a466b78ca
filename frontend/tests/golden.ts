import { readFileSync } from "node:fs";
import { numbers } from "../src/wire/arrays";
import type { ServerToViewer, Snapshot, WireArray } from "../src/wire/messages";
import { decodePacket } from "../src/wire/packet";

const FOLDER = new URL("../../tests/golden/wire/", import.meta.url);

/** The bytes of a golden packet that Python has written. */
export function golden(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`${name}.bin`, FOLDER)));
}

/** A JSON file of the golden folder. */
export function goldenJson(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), "utf8"));
}

/** The messages of a golden packet. */
export function messagesOf(name: string): ServerToViewer[] {
  return decodePacket(golden(name));
}

/** The golden snapshot, decoded anew at each call. */
export function goldenSnapshot(name = "snapshot"): Snapshot {
  const [message] = messagesOf(name);
  if (message?.type !== "snapshot") throw new Error("the golden packet holds no snapshot");
  return message;
}

/** What a message says as JSON, as Python writes it: arrays nested, non-finite numbers as words. */
export function plain(value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if ("dtype" in value && "shape" in value) {
    const array = value as WireArray;
    return nested([...numbers(array)].map(plain), array.shape);
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

function nested(flat: unknown[], shape: readonly number[]): unknown[] {
  if (shape.length <= 1) return flat;
  const size = flat.length / (shape[0] ?? 1);
  return Array.from({ length: shape[0] ?? 0 }, (_, k) => nested(flat.slice(k * size, (k + 1) * size), shape.slice(1)));
}
