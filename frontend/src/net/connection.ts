import { backoff } from "../lib/backoff";
import type { Link } from "../store/live";
import {
  CLOSE_BAD_DATA,
  CLOSE_FORBIDDEN,
  CLOSE_NORMAL,
  CLOSE_PROTOCOL,
  CLOSE_SILENT,
  CLOSE_UNAUTHORIZED,
  HEARTBEAT_SECONDS,
  PROTOCOL,
  SILENCE_SECONDS,
  type CommandRequest,
  type Compare,
  type ServerToViewer,
  type Steered,
  type ViewerToServer,
} from "../wire/messages";
import { DecodeError, decodePacket, encodePacket } from "../wire/packet";
import { ROADS, setOut, type Ear, type Line, type Road } from "./roads";

/** What a connection needs from its surroundings; a test gives its own. */
export interface Surroundings {
  open: (road: Road, ear: Ear) => Line;
  later: (seconds: number, job: () => void) => () => void;
  now: () => number;
  random: () => number;
  /** How the server answers a plain request of this page; asked after a connection that never opened. */
  knock: () => Promise<"welcome" | "unauthorized" | "silence">;
}

/** The browser itself. */
export const browser: Surroundings = {
  open: setOut,
  later: (seconds, job) => {
    const timer = setTimeout(job, seconds * 1000);
    return () => clearTimeout(timer);
  },
  now: () => Date.now() / 1000,
  random: Math.random,
  knock: async () => {
    try {
      const response = await fetch("api/runs", { credentials: "same-origin", signal: AbortSignal.timeout(OPEN_SECONDS * 1000) });
      if (response.status === 401 || response.status === 403) return "unauthorized";
      return response.ok ? "welcome" : "silence";
    } catch {
      return "silence";
    }
  },
};

/** A road on which no greeting comes back within this time leads nowhere: some proxies neither pass nor refuse. */
const OPEN_SECONDS = 5;

/** A command that is not answered within this time goes another way: the connection may only look as if it were open. */
const ANSWER_SECONDS = 2;

/** Once may be a server that was just being started. */
const FAILURES = 2;

/** What the page has of a run, by the server's own count. */
interface Cursor {
  run: string;
  epoch: string;
  number: number;
}

/**
 * The page's end of the conversation: greets, watches one run, keeps the heartbeat, and comes back after a loss with
 * the number of what it has, so that the server sends what was missed and not everything. Where websockets do not get
 * through although plain requests do, it takes the next road.
 */
export class Connection {
  private line: Line | null = null;
  private road = 0;
  private failures = 0;
  private attempt = 0;
  private run = "";
  private width = 600;
  private visible = true;
  private compared: Compare | null = null;
  /** Whether we have said who we are and what we want to see. */
  private greeted = false;
  private welcomed = false;
  private cursor: Cursor | null = null;
  /** Who waits for the answer to which command. */
  private readonly waiting = new Map<string, (told: Steered | null) => void>();
  private cancelRetry: () => void = () => undefined;
  private cancelWatchdog: () => void = () => undefined;
  private cancelBeat: () => void = () => undefined;

  constructor(
    private readonly receive: (messages: readonly ServerToViewer[]) => void,
    private readonly tell: (link: Link) => void,
    private readonly around: Surroundings = browser,
  ) {}

  /** Connect now, whatever was planned. */
  connect(): void {
    this.cancelRetry();
    this.drop(CLOSE_NORMAL);
    this.tell({ state: "connecting" });
    this.greeted = this.welcomed = false;
    // Roads never call back before they are returned.
    const line: Line = this.around.open(this.way, {
      // All at once: whether the server takes us in shows soon enough, and waiting for it costs a round trip.
      opened: () => {
        if (this.line === line) this.greet();
      },
      heard: (packet) => {
        if (this.line === line) this.heard(packet);
      },
      closed: (code) => {
        if (this.line === line) void this.lost(code);
      },
    });
    this.line = line;
    this.guard(OPEN_SECONDS);
  }

  /** Show another run; "" means the newest. `width` is the chart width in pixels. */
  watch(run: string, width: number): void {
    this.run = run;
    this.width = Math.max(1, Math.round(width));
    this.cursor = null;
    if (this.greeted) this.say({ type: "watch", run: this.run, width: this.width });
  }

  /** Show curves of several runs side by side, instead of what was compared before; no runs: none. */
  compare(compare: Compare): void {
    const idle = compare.runs.length === 0 && (this.compared?.runs.length ?? 0) === 0;
    this.compared = compare;
    if (this.greeted && !idle) this.say(compare);
  }

  /** Tell whether anybody can see the page; a hidden one is spared what may be lost. */
  show(visible: boolean): void {
    if (this.visible === visible) return;
    this.visible = visible;
    if (this.greeted) this.say({ type: "visibility", visible });
  }

  /**
   * Give a command here, where that is sooner heard than a request of its own. Null where it cannot be said here, or
   * where the answer is not going to come: then nobody knows whether it was heard.
   */
  steer(run: string, request: CommandRequest): Promise<Steered | null> {
    if (!this.welcomed || this.way !== "websocket") return Promise.resolve(null);
    return new Promise((resolve) => {
      const cancel = this.around.later(ANSWER_SECONDS, () => this.answer(request.id, null));
      this.waiting.set(request.id, (told) => {
        cancel();
        resolve(told);
      });
      this.say({ type: "steer", run, request });
    });
  }

  private answer(id: string, told: Steered | null): void {
    this.waiting.get(id)?.(told);
    this.waiting.delete(id);
  }

  private get way(): Road {
    return ROADS[this.road] ?? "websocket";
  }

  private say(...messages: ViewerToServer[]): void {
    this.line?.send(encodePacket(messages));
  }

  private heard(packet: Uint8Array): void {
    let messages: ServerToViewer[];
    try {
      messages = decodePacket(packet);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      // Asked for again it might be as bad: a snapshot is made anew.
      this.cursor = null;
      void this.lost(CLOSE_BAD_DATA);
      return;
    }
    for (const message of messages) {
      if (message.type === "ping") this.say({ type: "pong", time: message.time });
      if (message.type === "view-welcome") {
        if (message.protocol !== PROTOCOL) {
          void this.lost(CLOSE_PROTOCOL);
          return;
        }
        this.welcome();
      }
      this.note(message);
    }
    this.guard(this.welcomed ? SILENCE_SECONDS : OPEN_SECONDS);
    this.receive(messages);
  }

  private greet(): void {
    this.greeted = true;
    const { run, width, cursor } = this;
    const had = cursor !== null && (run === "" || run === cursor.run);
    this.say(
      { type: "view-hello", protocol: PROTOCOL },
      had ? { type: "watch", run, width, epoch: cursor.epoch, since: cursor.number } : { type: "watch", run, width },
    );
    if (this.compared !== null && this.compared.runs.length > 0) this.say(this.compared);
    if (!this.visible) this.say({ type: "visibility", visible: false });
  }

  private welcome(): void {
    this.welcomed = true;
    this.attempt = 0;
    this.failures = 0;
    this.tell({ state: "open", road: this.way });
    this.beat();
  }

  private note(message: ServerToViewer): void {
    if (message.type === "snapshot") this.cursor = { run: message.run.id, epoch: message.epoch, number: message.number };
    else if (message.type === "tick" && message.run === this.cursor?.run) this.cursor.number = message.number;
    else if (message.type === "steered") this.answer(message.id, message);
  }

  private beat(): void {
    this.cancelBeat();
    this.cancelBeat = this.around.later(HEARTBEAT_SECONDS, () => {
      this.say({ type: "ping", time: this.around.now() });
      this.beat();
    });
  }

  /** A server that has said nothing for three heartbeats is lost, even where the network does not say so. */
  private guard(seconds: number): void {
    this.cancelWatchdog();
    this.cancelWatchdog = this.around.later(seconds, () => void this.lost(CLOSE_SILENT));
  }

  private drop(code: number): void {
    this.cancelWatchdog();
    this.cancelBeat();
    const line = this.line;
    this.line = null;
    for (const id of [...this.waiting.keys()]) this.answer(id, null);
    line?.close(code >= 3000 ? code : CLOSE_NORMAL);
  }

  private async lost(code: number): Promise<void> {
    const opened = this.welcomed;
    this.greeted = this.welcomed = false;
    this.drop(code);
    if (code === CLOSE_PROTOCOL) return this.tell({ state: "closed", reason: "protocol" });
    if (code === CLOSE_UNAUTHORIZED || code === CLOSE_FORBIDDEN) return this.tell({ state: "closed", reason: "unauthorized" });
    if (!opened) {
      const answer = await this.around.knock();
      // Somebody has pressed the button meanwhile.
      if (this.line !== null) return;
      if (answer === "unauthorized") return this.tell({ state: "closed", reason: "unauthorized" });
      if (answer === "welcome" && ++this.failures >= FAILURES) {
        this.failures = 0;
        this.attempt = 0;
        this.road = (this.road + 1) % ROADS.length;
        // After the last one the first is tried again, but not at once.
        if (this.road !== 0) return this.connect();
      }
    }
    const seconds = backoff(this.attempt++, this.around.random());
    this.tell({ state: "waiting", until: this.around.now() + seconds, reason: opened ? "lost" : "unreachable" });
    this.cancelRetry = this.around.later(seconds, () => this.connect());
  }
}
