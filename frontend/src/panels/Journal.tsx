import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { knobText, named, t, timeText, whoText } from "../i18n/language";
import { copyText } from "../lib/clipboard";
import { grouped } from "../lib/format";
import { FILTERS, journalJson, passes, type Filter } from "../store/journal";
import { journal, status } from "../store/live";
import { askedAgain } from "../store/steering";
import type { CommandRecord, Value } from "../wire/messages";

/** Rows drawn at once; older ones are in the API. */
const SHOWN = 200;

/** A journal up to this long is seen at a glance. */
const GLANCE = 5;

const filter = signal<Filter>("all");

/** Every command of the run, newest first: step, what, old and new value, who, when, and why when it was refused. */
export function Journal() {
  const records = journal.value;
  const filtered = records.length > GLANCE;
  const shown = filtered ? records.filter((record) => passes(record, filter.value, askedAgain(record))) : records;
  return (
    <section class="journal" aria-label={t("journal.title")}>
      <div class="journal-head">
        <h2>
          {t("journal.title")} <span class="count">{records.length > 0 && grouped(records.length)}</span>
        </h2>
        <span class="grow" />
        {filtered && <FilterSwitch />}
        {records.length > 0 && <CopyButton records={shown} />}
      </div>
      {records.length === 0 && <p class="hint">{t("journal.empty")}</p>}
      {records.length > 0 && shown.length === 0 && <p class="hint">{t("journal.nothing")}</p>}
      <ol>
        {shown.slice(0, SHOWN).map((record) => (
          <Row key={record.id} record={record} />
        ))}
      </ol>
    </section>
  );
}

function FilterSwitch() {
  return (
    <span class="segments" role="group" aria-label={t("journal.filter")}>
      {FILTERS.map((name) => (
        <button
          key={name}
          type="button"
          data-testid={`journal-${name}`}
          aria-pressed={filter.value === name}
          onClick={() => (filter.value = name)}
        >
          {t(`journal.filter.${name}`)}
        </button>
      ))}
    </span>
  );
}

/** How long the button says that it has copied. */
const SAID_MS = 2000;

function CopyButton({ records }: { records: readonly CommandRecord[] }) {
  const copied = useSignal(false);
  useEffect(() => {
    if (!copied.value) return undefined;
    const timer = setTimeout(() => (copied.value = false), SAID_MS);
    return () => clearTimeout(timer);
  }, [copied.value]);
  const words = t(copied.value ? "journal.copied" : "journal.copy");
  return (
    <button
      type="button"
      class="journal-copy"
      data-testid="journal-copy"
      aria-label={words}
      title={words}
      onClick={() => void copyText(journalJson(records)).then((done) => (copied.value = done))}
    >
      <svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true">
        <path
          d={copied.value ? "M3 8.500l3.500 3.500L13 4.500" : "M5.500 5.500h7v8h-7zM3.500 10.500v-8h7"}
          fill="none"
          stroke="currentColor"
          stroke-width="1.600"
        />
      </svg>
    </button>
  );
}

function Row({ record }: { record: CommandRecord }) {
  const when = new Date(record.time * 1000);
  const again = askedAgain(record);
  return (
    <li
      class={`entry entry-${again === null ? record.state : "again"} ${record.source === "guard" ? "entry-guard" : ""}`}
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
        {again !== null && <span class="soft"> · {t("journal.again", { number: again.number })}</span>}
        {record.state === "applied" && record.reason !== "" && <span class="entry-reason">{record.reason}</span>}
        {(record.state === "rejected" || record.state === "expired") && again === null && (
          <span class="entry-reason">
            {t(`journal.${record.state}`)}: {record.reason}
          </span>
        )}
      </span>
      <span class="entry-who" title={when.toLocaleString()}>
        {/* An engine numbers what it does by itself below 0; nobody refers to these. */}
        {record.number > 0 && `#${record.number} · `}
        {timeText(when)} · {whoText(record)}
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
