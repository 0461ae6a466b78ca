import { describe, expect, test, vi } from "vitest";
import { backoff } from "../src/lib/backoff";
import { Connection, type Surroundings } from "../src/net/connection";
import type { Ear, Line, Road } from "../src/net/roads";
import type { Link } from "../src/store/live";
import type { CommandRequest, ServerToViewer, ViewerToServer } from "../src/wire/messages";
import { decodePacket } from "../src/wire/packet";
import { golden } from "./golden";

/** A road that a test holds the other end of. */
class Wire implements Line {
  said: ViewerToServer[] = [];
  code: number | null = null;

  constructor(readonly road: Road, readonly ear: Ear) {}

  send(packet: Uint8Array): void {
    this.said.push(...(decodePacket(packet) as unknown as ViewerToServer[]));
  }

  close(code: number): void {
    this.code = code;
  }

  /** Open, and hear the greeting of the server. */
  greet(): void {
    this.ear.opened();
    this.hear("greeting");
  }

  hear(name: string): void {
    this.ear.heard(golden(name));
  }
}

const command = (id: string): CommandRequest => ({ id, verb: "pause" });

type Answer = "welcome" | "unauthorized" | "silence";

function stage(answer: Answer = "silence") {
  const wires: Wire[] = [];
  const jobs: { seconds: number; job: () => void; dead: boolean }[] = [];
  const links: Link[] = [];
  const heard: ServerToViewer[] = [];
  const around: Surroundings = {
    open: (road, ear) => {
      const wire = new Wire(road, ear);
      wires.push(wire);
      return wire;
    },
    later: (seconds, job) => {
      const entry = { seconds, job, dead: false };
      jobs.push(entry);
      return () => (entry.dead = true);
    },
    now: () => 100,
    random: () => 0.5,
    knock: () => Promise.resolve(answer),
  };
  const connection = new Connection((messages) => heard.push(...messages), (link) => links.push(link), around);
  const wire = (): Wire => wires[wires.length - 1] as Wire;
  const due = (seconds: number) => jobs.find((entry) => !entry.dead && entry.seconds === seconds);
  return { connection, wires, wire, jobs, due, links, heard };
}

describe("a connection", () => {
  test("greets, then watches the run that was asked for", () => {
    const { connection, wire, links } = stage();
    connection.watch("r-1", 900.4);
    connection.connect();
    wire().ear.opened();
    expect(wire().said).toEqual([
      { type: "view-hello", protocol: 1 },
      { type: "watch", run: "r-1", width: 900 },
    ]);
    wire().hear("greeting");
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
    wire().greet();
    wire().ear.closed(1006);
    await Promise.resolve();
    const last = links[links.length - 1];
    expect(last).toMatchObject({ state: "waiting", until: 100 + backoff(0, 0.5) });
    jobs[jobs.length - 1]?.job();
    expect(wires.length).toBe(2);
    wire().greet();
    expect(wire().said).toContainEqual({ type: "watch", run: "r-1", width: 900 });
  });

  test("takes a server that says nothing for three heartbeats for lost", () => {
    const { connection, wire, due, links } = stage();
    connection.connect();
    wire().greet();
    due(60)?.job();
    expect(links[links.length - 1]?.state).toBe("waiting");
    expect(wire().code).toBe(4010);
  });

  test("says every 20 s that it is there", () => {
    const { connection, wire, due } = stage();
    connection.connect();
    wire().greet();
    due(20)?.job();
    due(20)?.job();
    expect(wire().said.filter((message) => message.type === "ping").length).toBe(2);
  });

  test("says after a loss what it has, and asks for a snapshot once a person has chosen another run", () => {
    const { connection, wire, jobs } = stage();
    connection.connect();
    wire().greet();
    wire().hear("snapshot");
    wire().hear("deltas");
    wire().ear.closed(4008);
    jobs[jobs.length - 1]?.job();
    wire().greet();
    expect(wire().said).toContainEqual({ type: "watch", run: "", width: 600, epoch: "e1", since: 70_000 });
    wire().hear("resumed");
    connection.watch("r-2", 600);
    expect(wire().said[wire().said.length - 1]).toEqual({ type: "watch", run: "r-2", width: 600 });
    wire().ear.closed(1006);
    jobs[jobs.length - 1]?.job();
    wire().greet();
    expect(wire().said).toContainEqual({ type: "watch", run: "r-2", width: 600 });
  });

  test("asks for a snapshot after bytes that it could not read", () => {
    const { connection, wire, jobs } = stage();
    connection.connect();
    wire().greet();
    wire().hear("snapshot");
    wire().ear.heard(new Uint8Array([9, 0, 0, 0, 1]));
    jobs[jobs.length - 1]?.job();
    wire().greet();
    expect(wire().said).toContainEqual({ type: "watch", run: "", width: 600 });
  });

  test("tells the server when nobody can see the page, also one that it has just come back to", () => {
    const { connection, wire, jobs } = stage();
    connection.connect();
    wire().greet();
    connection.show(true);
    connection.show(false);
    const last = (): ViewerToServer | undefined => wire().said[wire().said.length - 1];
    expect(last()).toEqual({ type: "visibility", visible: false });
    wire().ear.closed(1006);
    jobs[jobs.length - 1]?.job();
    wire().greet();
    expect(last()).toEqual({ type: "visibility", visible: false });
  });

  test("gives a command over the open websocket and hears what became of it at the door", async () => {
    const { connection, wire } = stage();
    connection.connect();
    expect(await connection.steer("r-1", command("c0"))).toBeNull();
    wire().greet();
    const told = ["c2", "c3", "c4"].map((id) => connection.steer("r-1", command(id)));
    expect(wire().said.slice(-3)).toEqual(["c2", "c3", "c4"].map((id) => ({ type: "steer", run: "r-1", request: command(id) })));
    wire().hear("steered");
    expect((await Promise.all(told)).map((one) => [one?.id, one?.status])).toEqual([["c2", 422], ["c3", 202], ["c4", 409]]);
  });

  test("tells that a command will not be answered once the connection is lost, or after a while", async () => {
    const { connection, wire, jobs, due } = stage();
    connection.connect();
    wire().greet();
    const lost = connection.steer("r-1", command("c7"));
    wire().ear.closed(1006);
    expect(await lost).toBeNull();
    jobs[jobs.length - 1]?.job();
    wire().greet();
    const late = connection.steer("r-1", command("c8"));
    due(2)?.job();
    expect(await late).toBeNull();
    wire().hear("steered");
  });

  test("gives no command over a road that is made of requests", async () => {
    const { connection, wire, jobs } = stage("welcome");
    connection.connect();
    wire().ear.closed(1006);
    await vi.waitFor(() => expect(jobs[jobs.length - 1]?.seconds).toBe(backoff(0, 0.5)));
    jobs[jobs.length - 1]?.job();
    wire().ear.closed(1006);
    await vi.waitFor(() => expect(wire().road).toBe("events"));
    wire().greet();
    expect(await connection.steer("r-1", command("c1"))).toBeNull();
    expect(wire().said.some((message) => message.type === "steer")).toBe(false);
  });

  test("takes the next road when the server answers plain requests and twice no websocket", async () => {
    const { connection, wire, wires, jobs, due } = stage("welcome");
    connection.connect();
    wire().ear.closed(1006);
    await vi.waitFor(() => expect(jobs[jobs.length - 1]?.seconds).toBe(backoff(0, 0.5)));
    jobs[jobs.length - 1]?.job();
    expect(wires.map((one) => one.road)).toEqual(["websocket", "websocket"]);
    // Neither passed nor refused.
    due(5)?.job();
    await vi.waitFor(() => expect(wires.length).toBe(3));
    expect(wire().road).toBe("events");
    wire().greet();
    wire().ear.closed(1006);
    jobs[jobs.length - 1]?.job();
    expect(wire().road).toBe("events");
  });

  test("stays on its road while the server is away", async () => {
    const { connection, wire, wires, jobs } = stage("silence");
    connection.connect();
    for (let round = 0; round < 4; round++) {
      const waiting = jobs.length;
      wire().ear.closed(1006);
      await vi.waitFor(() => expect(jobs.length).toBeGreaterThan(waiting));
      jobs[jobs.length - 1]?.job();
    }
    expect(new Set(wires.map((one) => one.road))).toEqual(new Set(["websocket"]));
  });

  test("does not come back to a server that wants a token or speaks another protocol", async () => {
    const closed = stage();
    closed.connection.connect();
    closed.wire().ear.closed(4001);
    expect(closed.links[closed.links.length - 1]).toEqual({ state: "closed", reason: "unauthorized" });
    const refused = stage("unauthorized");
    refused.connection.connect();
    refused.wire().ear.closed(1006);
    await vi.waitFor(() => expect(refused.links[refused.links.length - 1]?.state).toBe("closed"));
    const other = stage();
    other.connection.connect();
    other.wire().ear.closed(4000);
    expect(other.links[other.links.length - 1]).toEqual({ state: "closed", reason: "protocol" });
  });
});

test("waiting doubles up to 15 s and is spread over its upper half", () => {
  expect([0, 1, 2, 20].map((attempt) => backoff(attempt, 1))).toEqual([0.5, 1, 2, 15]);
  expect(backoff(20, 0)).toBe(7.5);
});
