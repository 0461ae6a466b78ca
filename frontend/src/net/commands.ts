import type { Answer } from "../store/steering";
import type { CommandRecord, CommandRequest, Steered, Value } from "../wire/messages";
import { address } from "./address";

const PATIENCE_MS = 10_000;

/** Says a command over the connection that is open; gives null where that cannot be, or no answer is going to come. */
export type Saying = (run: string, request: CommandRequest) => Promise<Steered | null>;

/**
 * Give a command. Accepted is not applied: what the engine made of it comes over the websocket. A command whose answer
 * is lost may be sent again under the same id; the server knows it and does not apply it twice.
 */
export function giveCommand(say: Saying): (run: string, request: CommandRequest) => Promise<Answer> {
  return async (run, request) => {
    const told = await say(run, request);
    return told === null ? postCommand(run, request) : understood(told);
  };
}

function understood({ status, record, reason, rev, values }: Steered): Answer {
  if (status < 300 && record !== null) return { kind: "record", record };
  if (rev !== null) return { kind: "stale", reason, rev, values };
  return { kind: "refused", reason, record };
}

async function postCommand(run: string, request: CommandRequest): Promise<Answer> {
  const url = address(`api/runs/${encodeURIComponent(run)}/commands`);
  const body = JSON.stringify(request);
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
        credentials: "same-origin",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      return await read(response);
    } catch {
      if (attempt === 1) return { kind: "refused", reason: "the server cannot be reached", record: null };
    }
  }
}

async function read(response: Response): Promise<Answer> {
  const content: unknown = await response.json().catch(() => null);
  if (response.ok && isRecord(content)) return { kind: "record", record: content };
  const told = (content ?? {}) as { error?: unknown; detail?: unknown; record?: unknown; rev?: unknown; values?: unknown };
  const said = [told.error, told.detail].find((text) => typeof text === "string") as string | undefined;
  const reason = said ?? `the server answered ${response.status}`;
  if (response.status === 409 && typeof told.rev === "number") {
    return { kind: "stale", reason, rev: told.rev, values: (told.values ?? {}) as Record<string, Value | null> };
  }
  return {
    kind: "refused",
    reason,
    record: isRecord(told.record) ? told.record : null,
  };
}

function isRecord(content: unknown): content is CommandRecord {
  return typeof content === "object" && content !== null && "state" in content && "number" in content && "sets" in content;
}
