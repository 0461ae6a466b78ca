import { describe, expect, test } from "vitest";
import { RunModel } from "../src/store/run";
import { Series } from "../src/store/series";
import type { CommandRecord, Frame, RunMessage, Thinned } from "../src/wire/messages";
import { goldenSnapshot, messagesOf } from "./golden";

function pack(values: number[], dtype: "<f8" | "<u2") {
  const data = dtype === "<f8" ? new Float64Array(values) : new Uint16Array(values);
  return { dtype, shape: [values.length], data: new Uint8Array(data.buffer) };
}

function frame(step: number, values: number[], incarnation = 0): Frame {
  const index = pack([...values.keys()], "<u2");
  return { type: "frame", run: "r-1", incarnation, seq: step, step, time: step, index, values: pack(values, "<f8") };
}

function points(model: RunModel, name: string) {
  const series = model.byName.get(name);
  return { steps: [...(series?.steps.view() ?? [])], values: [...(series?.values.view() ?? [])] };
}

const record = (part: Partial<CommandRecord>): CommandRecord => {
  const [accepted] = messagesOf("commands");
  return { ...(accepted as CommandRecord), ...part };
};

describe("a snapshot", () => {
  test("brings curves with their non-finite points, knobs, journal and maps", () => {
    const model = new RunModel(goldenSnapshot());
    expect(points(model, "train/loss")).toEqual({ steps: [1, 2, 3], values: [2.5, Number.NaN, Infinity] });
    expect(model.knobs.get("zspace.gain")?.value).toBeNull();
    expect([...model.commands.keys()]).toEqual(["c1", "c2"]);
    expect(model.heatMaps?.maps.shape).toEqual([2, 3, 4]);
    expect(model.step).toBe(3);
  });

  test("of a run that has said nothing yet is a run without curves", () => {
    const model = new RunModel(goldenSnapshot("bare-snapshot"));
    expect([model.status.status, model.series.size, model.step]).toEqual(["starting", 0, 3]);
  });
});

describe("deltas", () => {
  test("of Python's own packet change every part that they speak of", () => {
    const model = new RunModel(goldenSnapshot());
    const parts = messagesOf("deltas").map((message) => model.apply(message));
    expect(parts).toEqual(
      [null, "frames", "frames", "strips", "heatMaps", "probe", "status", "knobs", "series", "run", "knobs", "checkpoints"],
    );
    expect(model.checkpoints.map((one) => one.step)).toEqual([2, 5]);
    expect(points(model, "train/loss").values).toEqual([2.5, Number.NaN, Infinity, Number.NaN, 1.5]);
    expect([model.step, model.status.status]).toEqual([5, "lost"]);
    expect(model.knobs.get("zspace.gain")?.value).toBe(0.5);
    expect(model.thinned.map((one) => [one.first_step, one.step, one.frames])).toEqual([[1, 3, 3]]);
    expect(model.guards).toEqual([{ name: "spike", text: "spike: off when train.loss > 4 mark", on: false }]);
  });

  test("merged points join the curve, and none is taken twice", () => {
    const model = new RunModel(goldenSnapshot());
    for (const message of [...messagesOf("merged"), ...messagesOf("merged")]) model.apply(message);
    expect(points(model, "train/loss").steps).toEqual([1, 2, 3, 4, 9, 44]);
    expect(model.step).toBe(44);
  });

  test("count the frames that were merged", () => {
    const model = new RunModel(goldenSnapshot());
    for (const message of messagesOf("merged")) model.apply(message);
    expect(model.merged).toBe(40);
  });

  test("that come again after a cut are taken once, and those of a replaced incarnation not at all", () => {
    const model = new RunModel(goldenSnapshot());
    for (const step of [4, 5, 4, 5, 6]) model.apply(frame(step, [step]));
    expect(model.frames.map((one) => one.step)).toEqual([4, 5, 6]);
    model.apply(frame(5, [50], 1));
    model.apply(frame(7, [7]));
    expect([model.step, points(model, "train/loss").steps]).toEqual([5, [1, 2, 3, 4, 5]]);
  });

  test("that say again after a cut what was merged on disk add nothing", () => {
    const model = new RunModel(goldenSnapshot());
    const [known] = model.thinned;
    const next = { ...(known as Thinned), seq: (known as Thinned).seq + 1 };
    for (const message of [known as Thinned, next, next]) model.apply(message);
    expect(model.thinned).toEqual([known, next]);
  });

  test("of another run change nothing", () => {
    const model = new RunModel(goldenSnapshot());
    expect(model.apply({ ...frame(9, [1]), run: "r-2" } as RunMessage)).toBeNull();
    expect(model.step).toBe(3);
  });

  test("after a resume from a checkpoint replace what the older incarnation said of the same steps", () => {
    const model = new RunModel(goldenSnapshot());
    for (let step = 4; step <= 8; step++) model.apply(frame(step, [step, step]));
    model.apply(frame(6, [60, 60], 1));
    model.apply(frame(7, [70, 70], 1));
    expect(points(model, "train/loss").steps).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(points(model, "optim/learning_rate").values.slice(-2)).toEqual([60, 70]);
    expect(model.step).toBe(7);
  });
});

describe("the journal", () => {
  test("an applied command brings its values into force with its step", () => {
    const model = new RunModel(goldenSnapshot());
    const changes = [{ knob: "zspace.gain", old: null, in_force: 0.4 }];
    model.apply(record({ id: "c9", number: 9, state: "applied", step: 12, rev: 2, changes }));
    expect(model.knobs.get("zspace.gain")).toMatchObject({ value: 0.4, since: 12 });
  });

  test("an acceptance that comes after the final word does not take it back", () => {
    const model = new RunModel(goldenSnapshot());
    model.apply(record({ id: "c1", state: "accepted" }));
    expect(model.commands.get("c1")?.state).toBe("applied");
  });

  test("a record that was overtaken does not bring an old value back", () => {
    const model = new RunModel(goldenSnapshot());
    const change = (value: number) => [{ knob: "zspace.gain", old: null, in_force: value }];
    model.apply(record({ id: "c8", state: "applied", step: 20, rev: 5, changes: change(0.8) }));
    model.apply(record({ id: "c7", state: "applied", step: 19, rev: 4, changes: change(0.7) }));
    expect(model.knobs.get("zspace.gain")?.value).toBe(0.8);
  });

  test("a knob that moved by itself shows where it stands, and no revision is counted", () => {
    const model = new RunModel(goldenSnapshot());
    const rev = model.rev;
    const changes = [{ knob: "zspace.gain", old: null, in_force: 0.31 }];
    const moved = { type: "knobs-moved", run: "r-1", incarnation: 0, seq: 20, step: 9, time: 9, changes } as const;
    expect(model.apply(moved)).toBe("knobs");
    expect(model.knobs.get("zspace.gain")).toMatchObject({ value: 0.31, since: 9 });
    expect(model.rev).toBe(rev);
  });

  test("a refused command changes no knob", () => {
    const model = new RunModel(goldenSnapshot());
    model.apply(record({ id: "c5", state: "rejected", reason: "no" }));
    expect(model.knobs.get("zspace.gain")).toMatchObject({ value: null, since: 3 });
  });
});

test("finer points replace the coarse ones of their part, and only there", () => {
  const [spec] = goldenSnapshot().series;
  if (spec === undefined) throw new Error("no series");
  const series = new Series(spec);
  series.load([1, 10, 20, 30], [1, 10, 20, 30]);
  series.refine(10, 20, [10, 11, 20], [10, Number.NaN, 20]);
  series.append(31, 31);
  expect([...series.steps.view()]).toEqual([1, 10, 11, 20, 30, 31]);
  expect([...series.values.view()]).toEqual([1, 10, Number.NaN, 20, 30, 31]);
});

test("a second evaluation of a step takes the place of the first, and an earlier step stays", () => {
  const [spec] = goldenSnapshot().series;
  if (spec === undefined) throw new Error("no series");
  const series = new Series(spec);
  series.load([1, 10], [1, 10]);
  series.append(10, 11);
  series.append(1, 5);
  expect([[...series.steps.view()], [...series.values.view()]]).toEqual([[1, 10], [1, 11]]);
});

test("checkpoints that are gone leave the page", () => {
  const model = new RunModel(goldenSnapshot());
  const [saved] = messagesOf("deltas").filter((message) => message.type === "checkpoint-saved");
  if (saved === undefined) throw new Error("no checkpoint");
  model.apply({ ...saved, step: 9, file: "step-00000009.safetensors", files: ["step-00000009.safetensors"] });
  expect(model.checkpoints.map((one) => one.step)).toEqual([9]);
});

test("a very long series stays bounded and keeps its spikes", () => {
  const [spec] = goldenSnapshot().series;
  if (spec === undefined) throw new Error("no series");
  const series = new Series(spec);
  for (let step = 1; step <= 400_000; step++) series.append(step, step === 1234 ? 99 : Math.sin(step));
  expect(series.steps.length).toBeLessThanOrEqual(120_000);
  expect(Math.max(...series.values.view())).toBe(99);
  const steps = series.steps.view();
  expect(steps.every((step, k) => k === 0 || step > (steps[k - 1] as number))).toBe(true);
});
