import { backoff } from "../lib/backoff";
import type { Link } from "../store/live";
import {
  CLOSE_BAD_DATA,
  CLOSE_FORBIDDEN,
  CLOSE_PROTOCOL,
  CLOSE_UNAUTHORIZED,
  PROTOCOL,
  SILENCE_SECONDS,
  type ServerToViewer,
} from "../wire/messages";
import { DecodeError, decodePacket, encodePacket } from "../wire/packet";

/** What a connection needs from its surroundings; a test gives its own. */
export interface Surroundings {
  open: (url: string) => WebSocket;
  later: (seconds: number, job: () => void) => () => void;
  now: () => number;
  random: () => number;
  /** Whether the server refuses this page's cookie; asked after a connection that never opened. */
  unauthorized: () => Promise<boolean>;
}

/** The browser itself. */
export const browser: Surroundings = {
  open: (url) => new WebSocket(url),
  later: (seconds, job) => {
    const timer = setTimeout(job, seconds * 1000);
    return () => clearTimeout(timer);
  },
  now: () => Date.now() / 1000,
  random: Math.random,
  unauthorized: async () => {
    try {
      const response = await fetch("api/runs", { credentials: "same-origin" });
      return response.status === 401 || response.status === 403;
    } catch {
      return false;
    }
  },
};

/**
 * The page's end of `/ws/view`: greets, watches one run, answers pings, and comes back after a loss. Each new
 * connection asks for the run again and gets a fresh snapshot, so nothing is resumed and nothing can be missed.
 */
export class Connection {
  private socket: WebSocket | null = null;
  private attempt = 0;
  private run = "";
  private width = 600;
  private welcomed = false;
  private cancelRetry: () => void = () => undefined;
  private cancelWatchdog: () => void = () => undefined;

  constructor(
    private readonly url: string,
    private readonly receive: (messages: readonly ServerToViewer[]) => void,
    private readonly tell: (link: Link) => void,
    private readonly around: Surroundings = browser,
  ) {}

  /** Connect now, whatever was planned. */
  connect(): void {
    this.cancelRetry();
    this.drop();
    this.tell({ state: "connecting" });
    const socket = this.around.open(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.welcomed = false;
    socket.onopen = () => socket.send(encodePacket([{ type: "view-hello", protocol: PROTOCOL }]));
    socket.onmessage = (event: MessageEvent<unknown>) => this.heard(socket, event.data);
    socket.onclose = (event) => {
      if (this.socket === socket) void this.lost(event.code);
    };
  }

  /** Show another run; "" means the newest. `width` is the chart width in pixels. */
  watch(run: string, width: number): void {
    this.run = run;
    this.width = Math.max(1, Math.round(width));
    if (this.welcomed) this.socket?.send(encodePacket([{ type: "watch", run: this.run, width: this.width }]));
  }

  private heard(socket: WebSocket, data: unknown): void {
    if (this.socket !== socket || !(data instanceof ArrayBuffer)) return;
    let messages: ServerToViewer[];
    try {
      messages = decodePacket(new Uint8Array(data));
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      void this.lost(CLOSE_BAD_DATA);
      return;
    }
    this.guard();
    for (const message of messages) {
      if (message.type === "ping") socket.send(encodePacket([{ type: "pong", time: message.time }]));
      if (message.type === "view-welcome") {
        if (message.protocol !== PROTOCOL) {
          void this.lost(CLOSE_PROTOCOL);
          return;
        }
        this.welcomed = true;
        this.attempt = 0;
        this.tell({ state: "open" });
        this.watch(this.run, this.width);
      }
    }
    this.receive(messages);
  }

  /** A server that has said nothing for three heartbeats is lost, even where the network does not say so. */
  private guard(): void {
    this.cancelWatchdog();
    this.cancelWatchdog = this.around.later(SILENCE_SECONDS, () => void this.lost(0));
  }

  private drop(): void {
    this.cancelWatchdog();
    const socket = this.socket;
    this.socket = null;
    if (socket !== null && socket.readyState <= WebSocket.OPEN) socket.close();
  }

  private async lost(code: number): Promise<void> {
    const opened = this.welcomed;
    this.welcomed = false;
    this.drop();
    if (code === CLOSE_PROTOCOL) return this.tell({ state: "closed", reason: "protocol" });
    const refused = code === CLOSE_UNAUTHORIZED || code === CLOSE_FORBIDDEN;
    if (refused || (!opened && (await this.around.unauthorized()))) {
      return this.tell({ state: "closed", reason: "unauthorized" });
    }
    const seconds = backoff(this.attempt++, this.around.random());
    this.tell({ state: "waiting", until: this.around.now() + seconds, reason: opened ? "lost" : "unreachable" });
    this.cancelRetry = this.around.later(seconds, () => this.connect());
  }
}
