import { decode as unpack, encode as pack } from "@msgpack/msgpack";
import {
  MAX_MESSAGE_BYTES,
  MAX_PACKET_BYTES,
  type AnyMessage,
  type ServerToViewer,
  type ViewerToServer,
} from "./messages";

/** The peer sent bytes that are not a packet of the protocol. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

const LENGTH_BYTES = 4;

/**
 * Take a packet apart: messages one after the other, each behind its length (unsigned 32-bit little-endian).
 * The slices share the packet's memory.
 */
export function split(packet: Uint8Array): Uint8Array[] {
  if (packet.byteLength > MAX_PACKET_BYTES) throw new DecodeError(`a packet of ${packet.byteLength} bytes is too large`);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const parts: Uint8Array[] = [];
  let position = 0;
  while (position < packet.byteLength) {
    if (position + LENGTH_BYTES > packet.byteLength) throw new DecodeError("a packet ends within a length");
    const length = view.getUint32(position, true);
    position += LENGTH_BYTES;
    if (length > MAX_MESSAGE_BYTES) throw new DecodeError(`a message of ${length} bytes is too large`);
    if (position + length > packet.byteLength) throw new DecodeError("a message runs past the end of its packet");
    parts.push(packet.subarray(position, position + length));
    position += length;
  }
  return parts;
}

/** Unpack one message. The tag is checked here; the fields are the server's word, which the same structs guarantee. */
export function decode(bytes: Uint8Array): AnyMessage {
  let value: unknown;
  try {
    value = unpack(bytes);
  } catch (error) {
    throw new DecodeError(`not MessagePack: ${String(error)}`);
  }
  if (typeof value !== "object" || value === null || typeof (value as { type?: unknown }).type !== "string") {
    throw new DecodeError("a message without a type");
  }
  return value as AnyMessage;
}

/** Unpack every message of a packet; all or `DecodeError`. */
export function decodePacket(packet: Uint8Array): ServerToViewer[] {
  return split(packet).map((part) => decode(part) as ServerToViewer);
}

/** Pack messages of the viewer into one packet. */
export function encodePacket(messages: readonly ViewerToServer[]): Uint8Array<ArrayBuffer> {
  const parts = messages.map((message) => pack(message));
  const packet = new Uint8Array(parts.reduce((sum, part) => sum + LENGTH_BYTES + part.byteLength, 0));
  const view = new DataView(packet.buffer);
  let position = 0;
  for (const part of parts) {
    view.setUint32(position, part.byteLength, true);
    packet.set(part, position + LENGTH_BYTES);
    position += LENGTH_BYTES + part.byteLength;
  }
  return packet;
}
