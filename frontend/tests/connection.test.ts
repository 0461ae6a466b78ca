import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { backoff } from "../src/lib/backoff";
import { Connection, type Surroundings } from "../src/net/connection";
import type { Link } from "../src/store/live";
import type { ServerToViewer, ViewerToServer } from "../src/wire/messages";
import { decodePacket } from "../src/wire/packet";
import { golden } from "./golden";

/** A websocket that a test holds both ends of. */
class Wire {
  static OPEN = 1;
  binaryType = "";
  readyState = 1;
  said: ViewerToServer[] = [];
  onopen: () => void = () => undefined;
  onmessage: (event: { data: unknown }) => void = () => undefined;
  onclose: (event: { code: number }) => void = () => undefined;

  send(packet: Uint8Array): void {
    this.said.push(...(decodePacket(packet) as unknown as ViewerToServer[]));
  }

  close(): void {
    this.readyState = 3;
  }

  hear(name: string): void {
    const bytes = golden(name);
    this.onmessage({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) });
  }
}

function stage(unauthorized = false) {
  const wires: Wire[] = [];
  const jobs: { seconds: number; job: () => void; dead: boolean }[] = [];
  const links: Link[] = [];
  const heard: ServerToViewer[] = [];
  const around: Surroundings = {
    open: () => {
      const wire = new Wire();
      wires.push(wire);
      return wire as unknown as WebSocket;
    },
    later: (seconds, job) => {
      const entry = { seconds, job, dead: false };
      jobs.push(entry);
      return () => (entry.dead = true);
    },
    now: () => 100,
    random: () => 0.5,
    unauthorized: () => Promise.resolve(unauthorized),
  };
  const connection = new Connection("ws://x", (messages) => heard.push(...messages), (link) => links.push(link), around);
  const wire = (): Wire => wires[wires.length - 1] as Wire;
  return { connection, wires, wire, jobs, links, heard };
}

beforeEach(() => vi.stubGlobal("WebSocket", Wire));
afterEach(() => vi.unstubAllGlobals());

describe("a connection", () => {
  test("greets, then watches the run that was asked for", () => {
    const { connection, wire, links } = stage();
    connection.watch("r-1", 900.4);
    connection.connect();
    wire().onopen();
    wire().hear("greeting");
    expect(wire().said).toEqual([
      { type: "view-hello", protocol: 1 },
      { type: "watch", run: "r-1", width: 900 },
    ]);
    expect(links.map((link) => link.state)).toEqual(["connecting", "open"]);
  });

  test("answers a ping with the same time", () => {
    const { connection, wire } = stage();
    connection.connect();
    wire().hear("heartbeat");
    expect(wire().said).toEqual([{ type: "pong", time: 12.5 }]);
  });

  test("comes back after a loss and watches again", async () => {
    const { connection, wire, wires, jobs, links } = stage();
    connection.watch("r-1", 900);
    connection.connect();
    wire().hear("greeting");
    wire().onclose({ code: 1006 });
    await Promise.resolve();
    const last = links[links.length - 1];
    expect(last).toMatchObject({ state: "waiting", until: 100 + backoff(0, 0.5) });
    jobs[jobs.length - 1]?.job();
    expect(wires.length).toBe(2);
    wire().hear("greeting");
    expect(wire().said).toContainEqual({ type: "watch", run: "r-1", width: 900 });
  });

  test("takes a server that says nothing for three heartbeats for lost", () => {
    const { connection, wire, jobs, links } = stage();
    connection.connect();
    wire().hear("greeting");
    const watchdog = jobs.find((entry) => !entry.dead && entry.seconds === 60);
    watchdog?.job();
    expect(links[links.length - 1]?.state).toBe("waiting");
  });

  test("does not come back to a server that wants a token or speaks another protocol", async () => {
    const closed = stage();
    closed.connection.connect();
    closed.wire().onclose({ code: 4001 });
    expect(closed.links[closed.links.length - 1]).toEqual({ state: "closed", reason: "unauthorized" });
    const refused = stage(true);
    refused.connection.connect();
    refused.wire().onclose({ code: 1006 });
    await vi.waitFor(() => expect(refused.links[refused.links.length - 1]?.state).toBe("closed"));
    const other = stage();
    other.connection.connect();
    other.wire().onclose({ code: 4000 });
    expect(other.links[other.links.length - 1]).toEqual({ state: "closed", reason: "protocol" });
  });
});

test("waiting doubles up to 15 s and is spread over its upper half", () => {
  expect([0, 1, 2, 20].map((attempt) => backoff(attempt, 1))).toEqual([0.5, 1, 2, 15]);
  expect(backoff(20, 0)).toBe(7.5);
});
