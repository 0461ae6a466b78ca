import { signal, useSignal } from "@preact/signals";
import { t } from "../i18n/language";
import { copyText } from "../lib/clipboard";
import { grouped } from "../lib/format";
import { checkpoints, run, version } from "../store/live";
import { visible } from "../store/view";
import type { CheckpointSaved } from "../wire/messages";

/** How long the page says that something was copied. */
const COPIED_MS = 1500;

/** File of the checkpoint whose command line has just been copied. */
const copied = signal<string | null>(null);

/** The command line that goes on from a checkpoint. */
function resumption(checkpoint: CheckpointSaved): string {
  return `spiral train --resume ${checkpoint.run}@${checkpoint.step}`;
}

/** The steps in view as a bar, with the checkpoints that the run can be resumed from. */
export function Timeline() {
  version("frames");
  const shown = useSignal<string | null>(null);
  const { from, to } = visible();
  const inView = checkpoints.value.filter((one) => one.step >= from && one.step <= to);
  if (checkpoints.value.length === 0) return null;
  const open = inView.find((one) => one.file === shown.value);
  const place = (step: number): number => (to > from ? (100 * (step - from)) / (to - from) : 100);
  return (
    <div class="timeline" data-testid="timeline" role="group" aria-label={t("timeline.title")}>
      <span class="timeline-label">{t("timeline.checkpoints")}</span>
      <span class="timeline-end">{grouped(Math.round(from))}</span>
      <div class="timeline-bar" onMouseLeave={() => (shown.value = null)}>
        {inView.map((one) => (
          <button
            key={`${run.value?.id} ${one.file}`}
            type="button"
            class="timeline-mark"
            data-testid={`checkpoint-${one.step}`}
            data-reason={one.reason}
            style={{ left: `${place(one.step)}%` }}
            aria-label={`${words(one)} ${resumption(one)}`}
            onMouseEnter={() => (shown.value = one.file)}
            onFocus={() => (shown.value = one.file)}
            onBlur={() => (shown.value = null)}
            onClick={() => void copy(one)}
          />
        ))}
        {open !== undefined && (
          <div
            class={place(open.step) > 50 ? "timeline-tip left" : "timeline-tip"}
            style={place(open.step) > 50 ? { right: `${100 - place(open.step)}%` } : { left: `${place(open.step)}%` }}
            role="tooltip"
          >
            <span>{words(open)}</span>
            <code>{resumption(open)}</code>
            <span class="soft">{copied.value === open.file ? t("timeline.copied") : t("timeline.copy")}</span>
          </div>
        )}
      </div>
      <span class="timeline-end">{grouped(Math.round(to))}</span>
    </div>
  );
}

function words(checkpoint: CheckpointSaved): string {
  return t("timeline.at", { step: grouped(checkpoint.step), reason: t(`timeline.reason.${checkpoint.reason}`) });
}

async function copy(checkpoint: CheckpointSaved): Promise<void> {
  if (!(await copyText(resumption(checkpoint)))) return;
  copied.value = checkpoint.file;
  setTimeout(() => {
    if (copied.peek() === checkpoint.file) copied.value = null;
  }, COPIED_MS);
}
