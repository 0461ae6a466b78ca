import { numbers, type Numbers } from "../wire/arrays";
import type {
  Change,
  CheckpointSaved,
  Column,
  CommandRecord,
  Frame,
  GuardSpec,
  HeatMaps,
  KnobSpec,
  ProbeBatch,
  RunMessage,
  RunStarted,
  RunStatus,
  RunSummary,
  SeriesSpec,
  ServerToViewer,
  Snapshot,
  Strip,
  Thinned,
} from "../wire/messages";
import { Series } from "./series";

/** What the engine is doing, from whichever side said it last. */
export interface StatusNow {
  status: RunStatus;
  done: number;
  total: number;
  detail: string;
}

/** A frame as it came, kept for scripts. */
export interface RawFrame {
  step: number;
  time: number;
  index: Numbers;
  values: Numbers;
}

/** The parts of a run that a message may change; panels listen to the parts they draw. */
export type Part = "run" | "status" | "frames" | "series" | "knobs" | "commands" | "probe" | "heatMaps" | "strips" | "checkpoints";

const FRAMES_KEPT = 512;

/** Rows of the picture that a layer's strips make over time. */
const STRIPS_KEPT = 44;

/**
 * The whole state of one run: a snapshot, with every message since folded in. Knows nothing of sockets, signals or
 * the screen.
 */
export class RunModel {
  summary: RunSummary;
  incarnation: number;
  started: RunStarted | null;
  status: StatusNow;
  rev: number;
  step: number;
  /** Frames that the server merged because this page read too slowly. */
  merged = 0;
  readonly series = new Map<number, Series>();
  readonly byName = new Map<string, Series>();
  readonly knobs = new Map<string, KnobSpec>();
  /** The guard rules in force. */
  guards: readonly GuardSpec[];
  /** Where frames were merged in the engine's log before they were sent. */
  thinned: readonly Thinned[];
  readonly commands = new Map<string, CommandRecord>();
  probe: ProbeBatch | null;
  heatMaps: HeatMaps | null;
  /** By name, oldest first. */
  readonly strips = new Map<string, Strip[]>();
  readonly frames: RawFrame[] = [];
  /** Those that the run can be resumed from, oldest first. */
  checkpoints: readonly CheckpointSaved[];
  /** Of the newest frame taken in. */
  private frameSeq = -1;

  constructor(snapshot: Snapshot) {
    this.summary = snapshot.run;
    this.incarnation = snapshot.incarnation;
    this.started = snapshot.started;
    this.rev = snapshot.rev;
    this.step = snapshot.run.step;
    this.guards = snapshot.guards;
    this.thinned = snapshot.thinned;
    this.probe = snapshot.probe;
    this.heatMaps = snapshot.heat_maps;
    this.checkpoints = snapshot.checkpoints;
    const { status, detail } = snapshot.run;
    const said = snapshot.status?.status === status ? snapshot.status : { done: 0, total: 0, detail };
    this.status = { status, done: said.done, total: said.total, detail: said.detail || detail };
    this.declare(snapshot.series);
    for (const column of snapshot.columns) {
      const series = this.series.get(column.index);
      series?.load(numbers(column.steps), numbers(column.values));
      if (series !== undefined) series.coarse = column.reduced;
    }
    for (const knob of snapshot.knobs) this.knobs.set(knob.name, knob);
    for (const record of snapshot.commands) this.commands.set(record.id, record);
    for (const strip of snapshot.strips) this.strip(strip);
  }

  get id(): string {
    return this.summary.id;
  }

  /** Fold one message in; gives the part that it changed. Messages of other runs change nothing. */
  apply(message: ServerToViewer): Part | null {
    switch (message.type) {
      case "run-changed":
        if (message.run.id !== this.id) return null;
        this.summary = message.run;
        if (message.run.status !== this.status.status) {
          this.status = { status: message.run.status, done: 0, total: 0, detail: message.run.detail };
        }
        return "run";
      case "merged":
        if (message.run !== this.id) return null;
        this.merged += message.frames;
        this.fill(message.columns);
        this.step = Math.max(this.step, message.step);
        return "frames";
      case "command-record":
        return message.run === this.id ? this.record(message) : null;
      case "run-started":
      case "series-declared":
      case "knobs-declared":
      case "knobs-moved":
      case "guards-declared":
      case "status-changed":
      case "frame":
      case "strip":
      case "probe-batch":
      case "heat-maps":
      case "ack":
      case "checkpoint-saved":
      case "thinned":
        return message.run === this.id ? this.follow(message) : null;
      default:
        return null;
    }
  }

  private follow(message: RunMessage): Part | null {
    if (message.incarnation < this.incarnation) return null;
    if (message.incarnation > this.incarnation) {
      this.incarnation = message.incarnation;
      this.frameSeq = -1;
      this.step = message.step;
      for (const series of this.series.values()) series.rewind();
    }
    switch (message.type) {
      case "run-started":
        this.started = message;
        return "run";
      case "series-declared":
        this.declare(message.series);
        return "series";
      case "knobs-declared":
        this.knobs.clear();
        for (const knob of message.knobs) this.knobs.set(knob.name, knob);
        this.rev = message.rev;
        return "knobs";
      case "knobs-moved":
        this.inForce(message.changes, message.step, null);
        return "knobs";
      case "guards-declared":
        this.guards = message.guards;
        return "knobs";
      case "status-changed":
        this.status = { status: message.status, done: message.done, total: message.total, detail: message.detail };
        return "status";
      case "frame":
        this.frame(message);
        return "frames";
      case "strip":
        this.strip(message);
        return "strips";
      case "probe-batch":
        this.probe = message;
        return "probe";
      case "heat-maps":
        this.heatMaps = message;
        return "heatMaps";
      case "ack":
        if (message.state !== "applied") return null;
        this.inForce(message.changes, message.step, message.rev);
        return "knobs";
      case "thinned":
        // After a cut the server may say again what this page has heard.
        if (!this.thinned.some((one) => one.incarnation === message.incarnation && one.seq === message.seq)) {
          this.thinned = [...this.thinned, message];
        }
        return "status";
      case "checkpoint-saved":
        this.checkpoints = [...this.checkpoints.filter((one) => one.file !== message.file), message].filter((one) =>
          message.files.includes(one.file),
        );
        return "checkpoints";
    }
  }

  private declare(specs: readonly SeriesSpec[]): void {
    for (const spec of specs) {
      if (this.series.get(spec.index)?.spec.name === spec.name) continue;
      const series = new Series(spec);
      this.series.set(spec.index, series);
      this.byName.set(spec.name, series);
    }
  }

  private frame(message: Frame): void {
    // After a cut the server may repeat what was on its way.
    if (message.seq <= this.frameSeq) return;
    this.frameSeq = message.seq;
    const index = numbers(message.index);
    const values = numbers(message.values);
    for (let k = 0; k < index.length; k++) {
      this.series.get(index[k] as number)?.append(message.step, values[k] as number);
    }
    this.step = message.step;
    this.frames.push({ step: message.step, time: message.time, index, values });
    if (this.frames.length > 2 * FRAMES_KEPT) this.frames.splice(0, this.frames.length - FRAMES_KEPT);
  }

  private strip(strip: Strip): void {
    const kept = this.strips.get(strip.name) ?? [];
    const newest = kept[kept.length - 1];
    if (newest !== undefined && newest.incarnation === strip.incarnation && strip.seq <= newest.seq) return;
    // A layer of another width begins a new picture.
    const same = kept[0] === undefined || kept[0].values.shape[0] === strip.values.shape[0];
    this.strips.set(strip.name, same ? [...kept.slice(1 - STRIPS_KEPT), strip] : [strip]);
  }

  private fill(columns: readonly Column[]): void {
    for (const column of columns) {
      const series = this.series.get(column.index);
      const steps = numbers(column.steps);
      const values = numbers(column.values);
      for (let k = 0; k < steps.length; k++) series?.append(steps[k] as number, values[k] as number);
    }
  }

  private record(record: CommandRecord): Part {
    const known = this.commands.get(record.id);
    // A final word stands: an "accepted" that comes late changes nothing.
    if (known !== undefined && known.state !== "accepted" && record.state === "accepted") return "commands";
    this.commands.set(record.id, record);
    if (record.state === "applied") this.inForce(record.changes, record.step, record.rev);
    return "commands";
  }

  private inForce(changes: readonly Change[], step: number | null, rev: number | null): void {
    // Records come in the order of their revisions; one that was overtaken must not bring an old value back.
    if (rev !== null && rev < this.rev) return;
    if (rev !== null) this.rev = rev;
    for (const change of changes) {
      const knob = this.knobs.get(change.knob);
      if (knob !== undefined) {
        this.knobs.set(change.knob, { ...knob, value: change.in_force, since: step ?? knob.since });
      }
    }
  }
}
