import { computed, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n/language";
import { chosen, choose, comparing, MOST_CHOSEN, toggle } from "../store/compare";
import { engines, refreshEngines, type EngineLine } from "../store/engines";
import { run, runs, version } from "../store/live";
import { grouped } from "../lib/format";
import type { RunSummary } from "../wire/messages";

const OVER = new Set<string>(["finished", "stopped", "failed", "lost"]);
/** Rows of ended runs that are drawn; a person who looks for another one types a part of its name. */
const MOST_ROWS = 100;
const REFRESH_MS = 2000;
/** Letters of a word that is looked for in ids, too. */
const ID_WORD = 4;

/** What a run is called: one that cannot be read has an id alone. */
const nameOf = (one: RunSummary): string => one.name || one.id;

/** How a run stands; of one whose data cannot be read or written nothing better is known. */
const standing = (one: RunSummary): string => (one.connected || !one.trouble ? t(`status.${one.status}`) : t("status.trouble"));

const open = signal(false);
const search = signal("");

const fitting = computed(() => {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const fits = (one: RunSummary): boolean => {
    const text = `${nameOf(one)} ${one.model} ${one.data} ${one.status} ${standing(one)}`.toLowerCase();
    // Ids are full of digits: a short word such as the "2" of "seed 2" would be in every one.
    return words.every((word) => text.includes(word) || (word.length >= ID_WORD && one.id.includes(word)));
  };
  const found = (runs.value ?? []).filter(fits);
  return { live: found.filter((one) => !OVER.has(one.status)), over: found.filter((one) => OVER.has(one.status)) };
});

interface PickerProps {
  watch: (run: string) => void;
  /** What a person may do to one run. */
  acts: (run: RunSummary, engine: EngineLine | undefined) => ComponentChildren;
  /** Opens the form for a new run. */
  begin: () => void;
}

/** The run that is shown, and behind it the list of all: search, watch, compare, start and stop. */
export function RunPicker({ watch, acts, begin }: PickerProps) {
  const host = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  version("run");
  const listed = runs.value;
  // The list is told of a name that came later; the snapshot of a run that had none yet is not.
  const shown = listed?.find((one) => one.id === run.value?.id) ?? run.value?.summary ?? null;

  useEffect(() => {
    const outside = (event: PointerEvent): void => {
      if (event.target instanceof Node && host.current?.contains(event.target) === false) open.value = false;
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, []);
  useEffect(() => {
    if (!open.value) return undefined;
    void refreshEngines();
    const timer = setInterval(() => void refreshEngines(), REFRESH_MS);
    host.current?.querySelector<HTMLInputElement>("input[type=search]")?.focus();
    return () => clearInterval(timer);
  }, [open.value]);

  if (listed === null) return null;
  const close = (): void => {
    open.value = false;
    button.current?.focus();
  };
  return (
    <div class="runs" ref={host} onKeyDown={(event) => keyed(event, host.current, close)}>
      <button
        type="button"
        ref={button}
        class="runs-button"
        data-testid="run-picker"
        aria-haspopup="dialog"
        aria-expanded={open.value}
        aria-label={`${t("header.runs")}: ${shown === null ? t("runs.none") : nameOf(shown)}`}
        onClick={() => (open.value = !open.value)}
      >
        <span class="runs-name">{shown === null ? t("runs.none") : nameOf(shown)}</span>
        <span class="soft">{listed.length > 1 ? grouped(listed.length) : ""} ▾</span>
      </button>
      {open.value && (
        <div class="runs-list" role="dialog" aria-label={t("runs.title")} data-testid="runs">
          <Tools begin={begin} close={close} />
          <div class="runs-rows">
            <Group title={t("runs.live", { count: fitting.value.live.length })} rows={fitting.value.live} watch={watch} acts={acts} close={close} />
            <Group title={t("runs.over", { count: fitting.value.over.length })} rows={fitting.value.over} watch={watch} acts={acts} close={close} />
            {fitting.value.live.length + fitting.value.over.length === 0 && <p class="hint">{t("runs.empty")}</p>}
          </div>
        </div>
      )}
    </div>
  );
}

/** Escape closes; arrows go from row to row. */
function keyed(event: KeyboardEvent, host: HTMLElement | null, close: () => void): void {
  if (!open.peek() || host === null) return;
  if (event.key === "Escape") {
    close();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const stops = [...host.querySelectorAll<HTMLElement>("input[type=search], .run-watch")];
    const at = stops.findIndex((one) => one.closest(".run-row, .runs-tools")?.contains(document.activeElement));
    stops[Math.min(stops.length - 1, Math.max(0, at + (event.key === "ArrowDown" ? 1 : -1)))]?.focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function Tools({ begin, close }: { begin: () => void; close: () => void }) {
  const count = chosen.value.length;
  const hindrance = engines.value?.may_steer !== true ? t("runs.viewer") : (engines.value?.hindrance ?? "");
  return (
    <div class="runs-tools">
      <input
        type="search"
        data-testid="runs-search"
        aria-label={t("runs.search")}
        placeholder={t("runs.search")}
        value={search.value}
        onInput={(event) => (search.value = event.currentTarget.value)}
      />
      <div class="runs-deeds">
        <button
          type="button"
          class={count > 0 ? "strong" : ""}
          data-testid="btn-compare"
          disabled={count === 0}
          title={count === 0 ? t("runs.compare.pick") : ""}
          onClick={() => {
            comparing.value = true;
            close();
          }}
        >
          {t("runs.compare", { count })}
        </button>
        {count > 0 && (
          <button type="button" data-testid="btn-clear" onClick={() => choose([])}>
            {t("runs.clear")}
          </button>
        )}
        <span class="grow" />
        <button type="button" data-testid="btn-new-run" disabled={hindrance !== ""} title={hindrance} onClick={() => (close(), begin())}>
          + {t("runs.new")}
        </button>
      </div>
    </div>
  );
}

interface GroupProps {
  title: string;
  rows: readonly RunSummary[];
  watch: (run: string) => void;
  acts: PickerProps["acts"];
  close: () => void;
}

function Group({ title, rows, watch, acts, close }: GroupProps) {
  if (rows.length === 0) return null;
  const known = new Map((engines.value?.engines ?? []).map((one) => [one.run, one]));
  return (
    <section aria-label={title}>
      <h3 class="runs-group">{title}</h3>
      <ul>
        {rows.slice(0, MOST_ROWS).map((one) => (
          <li key={one.id} class={one.id === run.value?.id ? "run-row shown" : "run-row"} data-testid={`run-${one.id}`} data-status={one.status}>
            <input
              type="checkbox"
              data-testid={`check-${one.id}`}
              checked={chosen.value.includes(one.id)}
              disabled={chosen.value.length >= MOST_CHOSEN && !chosen.value.includes(one.id)}
              aria-label={t("runs.check", { name: nameOf(one) })}
              onChange={() => toggle(one.id)}
            />
            <button
              type="button"
              class="run-watch"
              aria-current={one.id === run.value?.id}
              title={one.id}
              onClick={() => (watch(one.id), close())}
            >
              <span class={`run-dot pill-${one.status}`} aria-hidden="true">
                <span class="dot" />
              </span>
              <span class="run-name">{nameOf(one)}</span>
              <span class="soft run-facts">
                {standing(one)} · {grouped(one.step)} · {one.model} {one.data}
              </span>
            </button>
            <Badge engine={known.get(one.id)} />
            {acts(one, known.get(one.id))}
          </li>
        ))}
      </ul>
      {rows.length > MOST_ROWS && <p class="hint">{t("runs.more", { count: grouped(rows.length - MOST_ROWS) })}</p>}
    </section>
  );
}

/** Where an engine comes from, and how one that did not end well has ended. */
function Badge({ engine }: { engine: EngineLine | undefined }) {
  if (engine === undefined) return null;
  if (engine.exit !== null && engine.exit !== 0) {
    const words = engine.exit < 0 ? t("runs.killed", { number: -engine.exit }) : t("runs.exit", { status: engine.exit });
    return <span class="run-badge bad" title={engine.said.join("\n")}>{words}</span>;
  }
  if (engine.origin === "adopted") return <span class="run-badge" title={t("runs.adopted.help")}>{t("runs.adopted")}</span>;
  if (engine.running !== true) return null;
  return <span class="run-badge" title={t("runs.launched.help", { pid: engine.pid ?? "–" })}>{t("runs.launched")}</span>;
}
