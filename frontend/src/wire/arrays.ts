import type { DType, WireArray } from "./messages";
import { DecodeError } from "./packet";

/** What the bytes of a wire array become in the browser. */
export type Numbers = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array;

const KINDS: Record<DType, { bytes: number; make: (buffer: ArrayBuffer) => Numbers }> = {
  "<f4": { bytes: 4, make: (buffer) => new Float32Array(buffer) },
  "<f8": { bytes: 8, make: (buffer) => new Float64Array(buffer) },
  "<u2": { bytes: 2, make: (buffer) => new Uint16Array(buffer) },
  "<i4": { bytes: 4, make: (buffer) => new Int32Array(buffer) },
  "|u1": { bytes: 1, make: (buffer) => new Uint8Array(buffer) },
};

/**
 * Give a wire array as a typed array in C order. The bytes are copied, because within a packet they are not aligned.
 * Every machine that runs a browser is little-endian, as the wire is.
 */
export function numbers(array: WireArray): Numbers {
  const kind = KINDS[array.dtype];
  if (kind === undefined) throw new DecodeError(`unknown dtype ${String(array.dtype)}`);
  const count = array.shape.reduce((product, extent) => product * extent, 1);
  if (count * kind.bytes !== array.data.byteLength) {
    throw new DecodeError(`an array of shape ${array.shape.join("x")} cannot hold ${array.data.byteLength} bytes`);
  }
  const copy = new ArrayBuffer(array.data.byteLength);
  new Uint8Array(copy).set(array.data);
  return kind.make(copy);
}
