import { address, socketAddress } from "./address";

/**
 * How packets travel. Where a proxy refuses websockets the same packets go over plain HTTP: down as server-sent events,
 * or as answers to polls where a proxy keeps those back, and up as posts.
 */
export type Road = "websocket" | "events" | "polling";

/** The best one first. */
export const ROADS: readonly Road[] = ["websocket", "events", "polling"];

/** What a road tells; nothing after `closed`. */
export interface Ear {
  opened: () => void;
  heard: (packet: Uint8Array) => void;
  /** With the code of the server, or 0 where the road broke off. */
  closed: (code: number) => void;
}

/** One open road. */
export interface Line {
  send: (packet: Uint8Array<ArrayBuffer>) => void;
  close: (code: number) => void;
}

/** Set out on a road. */
export function setOut(road: Road, ear: Ear): Line {
  return road === "websocket" ? bySocket(ear) : byRequests(road, ear);
}

function bySocket(ear: Ear): Line {
  const socket = new WebSocket(socketAddress("ws/view"));
  socket.binaryType = "arraybuffer";
  let over = false;
  const end = (code: number): void => {
    if (!over) ear.closed(code);
    over = true;
  };
  socket.onopen = () => ear.opened();
  socket.onmessage = (event: MessageEvent<unknown>) => {
    if (!over && event.data instanceof ArrayBuffer) ear.heard(new Uint8Array(event.data));
  };
  socket.onclose = (event) => end(event.code);
  return {
    send: (packet) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(packet);
    },
    close: (code) => {
      over = true;
      if (socket.readyState <= WebSocket.OPEN) socket.close(code);
    },
  };
}

function byRequests(road: "events" | "polling", ear: Ear): Line {
  const leaving = new AbortController();
  let base = "";
  let stop = (): void => undefined;
  const end = (code: number): void => {
    if (leaving.signal.aborted) return;
    leaving.abort();
    stop();
    ear.closed(code);
  };
  const post = async (path: string, packet: Uint8Array<ArrayBuffer>): Promise<Response> => {
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await fetch(address(path), { method: "POST", headers, body: packet, signal: leaving.signal });
    if (!response.ok) throw new Refused(await codeOf(response));
    return response;
  };
  const say = async (packet: Uint8Array<ArrayBuffer>): Promise<void> => {
    if (base !== "") {
      await post(base, packet);
      return;
    }
    const { view } = (await (await post("http/view", packet)).json()) as { view: string };
    base = `http/view/${view}`;
    stop = road === "events" ? listen(`${base}/events`, ear, end) : poll(`${base}/poll`, ear, end, leaving.signal);
  };
  // One after the other: what is said first must be heard first.
  let turn = Promise.resolve();
  queueMicrotask(() => ear.opened());
  return {
    send: (packet) => {
      turn = turn.then(() => say(packet)).catch((error: unknown) => end(error instanceof Refused ? error.code : 0));
    },
    close: () => {
      leaving.abort();
      stop();
    },
  };
}

class Refused extends Error {
  constructor(readonly code: number) {
    super(`refused with ${code}`);
  }
}

async function codeOf(response: Response): Promise<number> {
  const told = (await response.json().catch(() => null)) as { code?: unknown } | null;
  return typeof told?.code === "number" ? told.code : 0;
}

function listen(path: string, ear: Ear, end: (code: number) => void): () => void {
  const source = new EventSource(address(path));
  source.onmessage = (event: MessageEvent<string>) =>
    ear.heard(Uint8Array.from(atob(event.data), (letter) => letter.charCodeAt(0)));
  source.addEventListener("close", (event: MessageEvent<string>) => {
    end((JSON.parse(event.data) as { code: number }).code);
  });
  // A browser would connect again by itself, to a stream that has a hole.
  source.onerror = () => end(0);
  return () => source.close();
}

function poll(path: string, ear: Ear, end: (code: number) => void, signal: AbortSignal): () => void {
  const ask = async (): Promise<void> => {
    while (!signal.aborted) {
      const response = await fetch(address(path), { signal });
      if (!response.ok) return end(response.status === 410 ? await codeOf(response) : 0);
      const packet = new Uint8Array(await response.arrayBuffer());
      if (signal.aborted) return;
      if (packet.byteLength > 0) ear.heard(packet);
    }
  };
  ask().catch(() => end(0));
  return () => undefined;
}

