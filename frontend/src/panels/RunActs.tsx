import { useSignal } from "@preact/signals";
import { t } from "../i18n/language";
import { engines, launches, refreshEngines, type EngineLine } from "../store/engines";
import type { RunSummary } from "../wire/messages";

const OVER = new Set<string>(["stopped", "failed", "lost"]);

/** What an operator may do to a run from the list: stop it while it trains, go on with it afterwards. */
export function RunActs({ summary, engine }: { summary: RunSummary; engine: EngineLine | undefined }) {
  const sure = useSignal(false);
  const busy = useSignal(false);
  const trouble = useSignal("");
  if (engines.value?.may_steer !== true) return null;
  const running = engine?.running === true || summary.connected;
  if (!running && !OVER.has(summary.status)) return null;

  const act = async (): Promise<void> => {
    if (running && !sure.value) {
      sure.value = true;
      return;
    }
    sure.value = false;
    busy.value = true;
    trouble.value = "";
    const told = await (running ? launches().stop(summary.id) : launches().restart(summary.id));
    busy.value = false;
    if ("error" in told) trouble.value = told.error;
    await refreshEngines();
  };
  const words = busy.value ? "runs.working" : running ? (sure.value ? "runs.stop.sure" : "runs.stop") : "runs.resume";
  return (
    <>
      <button
        type="button"
        class={sure.value ? "run-act sure" : "run-act"}
        data-testid={`${running ? "stop" : "resume"}-${summary.id}`}
        disabled={busy.value}
        onBlur={() => (sure.value = false)}
        onClick={() => void act()}
      >
        {t(words)}
      </button>
      {trouble.value !== "" && <p class="run-trouble" role="alert">{trouble.value}</p>}
    </>
  );
}
