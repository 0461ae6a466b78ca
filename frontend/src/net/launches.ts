import type { Begun, Engines, LaunchTransport, TrainingOption } from "../store/engines";
import { address } from "./address";

/** An engine says within a few seconds which run it trains; on a busy machine it takes longer. */
const PATIENCE_MS = 90_000;

async function ask(path: string): Promise<unknown> {
  const response = await fetch(address(path), { credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response.json();
}

async function post(path: string, body: unknown): Promise<Begun> {
  try {
    const response = await fetch(address(path), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const told = (await response.json().catch(() => ({}))) as { run?: string; error?: string; field?: string };
    if (response.ok && told.run !== undefined) return { run: told.run };
    return { error: told.error ?? `the server answered ${response.status}`, field: told.field ?? "" };
  } catch {
    return { error: "the server cannot be reached", field: "" };
  }
}

const of = (run: string, verb: string): string => `api/runs/${encodeURIComponent(run)}/${verb}`;

/** Starting, stopping and listing engines, over HTTP. */
export const overHttp: LaunchTransport = {
  engines: async () => (await ask("api/engines")) as Engines,
  options: async () => ((await ask("api/training")) as { options: TrainingOption[] }).options,
  start: (asked) => post("api/runs", asked),
  stop: (run) => post(of(run, "stop"), {}),
  restart: (run) => post(of(run, "restart"), {}),
};
