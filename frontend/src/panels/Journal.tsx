import { knobText, named, t } from "../i18n/language";
import { grouped } from "../lib/format";
import { journal, status } from "../store/live";
import type { CommandRecord, Value } from "../wire/messages";

/** Rows drawn at once; older ones are in the API. */
const SHOWN = 200;

/** Every command of the run, newest first: step, what, old and new value, who, and why when it was refused. */
export function Journal() {
  const records = journal.value;
  return (
    <section class="journal" aria-label={t("journal.title")}>
      <h2>
        {t("journal.title")} <span class="count">{records.length > 0 && grouped(records.length)}</span>
      </h2>
      {records.length === 0 && <p class="hint">{t("journal.empty")}</p>}
      <ol>
        {records.slice(0, SHOWN).map((record) => (
          <Row key={record.id} record={record} />
        ))}
      </ol>
    </section>
  );
}

function Row({ record }: { record: CommandRecord }) {
  const when = new Date(record.time * 1000);
  return (
    <li
      class={`entry entry-${record.state} ${record.source === "guard" ? "entry-guard" : ""}`}
      data-testid="journal-row"
      data-state={record.state}
      data-number={record.number}
      data-source={record.source}
    >
      <span class="entry-step">{record.step === null || record.state !== "applied" ? "—" : grouped(record.step)}</span>
      <span class="entry-what">
        {what(record)}
        {record.state === "accepted" && <span class="soft"> · {waits(record)}</span>}
        {record.state === "superseded" && <span class="soft"> · {t("journal.superseded", { number: record.by ?? "" })}</span>}
        {record.state === "applied" && record.reason !== "" && <span class="entry-reason">{record.reason}</span>}
        {(record.state === "rejected" || record.state === "expired") && (
          <span class="entry-reason">
            {t(`journal.${record.state}`)}: {record.reason}
          </span>
        )}
      </span>
      <span class="entry-who" title={when.toLocaleString()}>
        {record.actor === "" || record.actor === record.source ? record.source : `${record.actor} (${record.source})`}
      </span>
    </li>
  );
}

function waits(record: CommandRecord): string {
  if (status.value?.status === "lost") return t("steer.waits");
  const step = record.at_step ?? null;
  return step === null ? t("journal.accepted") : t("journal.held", { step: grouped(step) });
}

function what(record: CommandRecord): string {
  if (record.verb === "step") return `${t("verb.step")} ${grouped(record.steps ?? 1)}`;
  const settings = record.sets.map((set) => {
    const change = record.changes.find((one) => one.knob === set.knob);
    const words = (value: Value | null): string => knobText(set.knob, value);
    const moved = change === undefined ? words(set.value) : `${words(change.old)} → ${words(change.in_force)}`;
    return `${named("knob", set.knob)} ${moved}`;
  });
  return [...(record.verb === "set" ? [] : [t(`verb.${record.verb}`)]), ...settings].join(", ");
}
