import { afterEach, expect, test, vi } from "vitest";
import { giveCommand } from "../src/net/commands";
import type { CommandRequest, Steered } from "../src/wire/messages";
import { messagesOf } from "./golden";

const request: CommandRequest = { id: "c3", verb: "set", sets: [{ knob: "zspace.gain", value: 0.2 }] };
const [accepted, stale, rejected] = messagesOf("steered") as [Steered, Steered, Steered];

afterEach(() => vi.unstubAllGlobals());

/** A server that takes posts. */
function post(...answers: (Response | Error)[]): CommandRequest[] {
  const posted: CommandRequest[] = [];
  vi.stubGlobal("document", { baseURI: "http://127.0.0.1:6006/" });
  vi.stubGlobal("fetch", (_: string, how: { body: string }) => {
    posted.push(JSON.parse(how.body) as CommandRequest);
    const answer = answers.shift();
    return answer instanceof Response ? Promise.resolve(answer) : Promise.reject(answer ?? new Error("gone"));
  });
  return posted;
}

test("what the server says over the connection is the answer, and nothing is posted", async () => {
  const posted = post();
  const give = (told: Steered) => giveCommand(() => Promise.resolve(told))("r-1", request);
  expect(await give(accepted)).toEqual({ kind: "record", record: accepted.record });
  expect(await give({ ...accepted, status: 200 })).toEqual({ kind: "record", record: accepted.record });
  expect(await give(stale)).toEqual({ kind: "stale", reason: "古い", rev: 2, values: { "zspace.gain": 0.25 } });
  expect(await give(rejected)).toEqual({ kind: "refused", reason: "理由", record: rejected.record });
  expect(posted).toEqual([]);
});

test("what is not answered there is posted under the same id", async () => {
  const posted = post(new Error("lost"), Response.json(accepted.record, { status: 200 }));
  expect(await giveCommand(() => Promise.resolve(null))("r-1", request)).toEqual({ kind: "record", record: accepted.record });
  expect(posted).toEqual([request, request]);
});

test("a server that cannot be reached at all refuses", async () => {
  post();
  expect(await giveCommand(() => Promise.resolve(null))("r-1", request)).toMatchObject({ kind: "refused", record: null });
});
