import { useEffect } from "preact/hooks";
import { useSignal } from "@preact/signals";
import { language, LANGUAGES, speak, t } from "../i18n/language";
import { duration, grouped, short } from "../lib/format";
import { link, run, runs, status, step, version } from "../store/live";
import { theme, type Theme } from "../store/preferences";
import { rate } from "../store/view";

/** The name, the run, what it does, how fast, and how the page stands with the server. */
export function Header({ watch }: { watch: (run: string) => void }) {
  return (
    <header class="header">
      <a class="skip" href="#steer">
        {t("header.skip")}
      </a>
      <h1 class="brand">
        <Logo />
        Spiral
      </h1>
      <RunPicker watch={watch} />
      <StatusPill />
      <Progress />
      <span class="grow" />
      <LinkState />
      <ThemeSwitch />
      <LanguageSwitch />
      <a class="reference" href="docs" target="_blank" rel="noopener" data-testid="reference" title={t("header.reference")}>
        API
      </a>
    </header>
  );
}

function Logo() {
  return (
    <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
      <path
        d="M16 17c0-1.400 2-1.600 2.700-.2 1 2-1 4-3 4-3.200 0-5-2.800-4.700-5.600C11.400 11.600 14.400 9.200 18 9.600c4.500.5 7.200 4.500 6.600 8.700-.7 4.900-5.200 7.900-10 7.300C8.300 24.900 4.800 19.600 5.400 13.600"
        fill="none"
        stroke="currentColor"
        stroke-width="2.600"
        stroke-linecap="round"
      />
    </svg>
  );
}

function RunPicker({ watch }: { watch: (run: string) => void }) {
  const listed = runs.value ?? [];
  version("run");
  if (listed.length === 0) return null;
  return (
    <label class="picker">
      <span class="visually-hidden">{t("header.runs")}</span>
      <select
        data-testid="run-picker"
        value={run.value?.id ?? ""}
        onChange={(event) => watch(event.currentTarget.value)}
      >
        {listed.map((one) => (
          <option key={one.id} value={one.id}>
            {one.name || one.id} · {one.connected || !one.trouble ? t(`status.${one.status}`) : t("status.trouble")}
          </option>
        ))}
      </select>
    </label>
  );
}

function StatusPill() {
  const now = status.value;
  const key = now?.status ?? "none";
  const progress = now?.status === "compiling" && now.total > 0;
  const words = progress ? t("status.compiling.progress", { done: now.done, total: now.total }) : t(`status.${key}`);
  return (
    <span class={`pill pill-${key}`} data-testid="status" data-status={key} role="status" title={now?.detail ?? ""}>
      <span class="dot" aria-hidden="true" />
      {words}
    </span>
  );
}

function Progress() {
  version("run");
  version("knobs");
  const model = run.value;
  if (model === null) return null;
  const steps = model.knobs.get("run.steps")?.value;
  const total = typeof steps === "number" ? steps : model.summary.total_steps || model.started?.total_steps || 0;
  const speed = rate.value;
  const training = status.value?.status === "training";
  const left = total > 0 && speed > 0 && training ? duration((total - step.value) / speed) : "";
  return (
    <span class="progress">
      <span>
        {t("header.step")} <b data-testid="step">{grouped(step.value)}</b>
        {total > 0 && <span class="soft"> {t("header.of", { total: grouped(total) })}</span>}
      </span>
      {training && speed > 0 && <span data-testid="rate">{t("header.rate", { rate: short(speed, 3) })}</span>}
      {left !== "" && <span class="soft">{t("header.left", { time: left })}</span>}
    </span>
  );
}

const ROAD_NAMES = { events: "SSE", polling: "HTTP" } as const;

function LinkState() {
  const now = link.value;
  const seconds = useCountdown(now.state === "waiting" ? now.until : null);
  version("frames");
  const merged = run.value?.merged ?? 0;
  const words =
    now.state === "waiting"
      ? t("link.waiting", { seconds })
      : now.state === "closed"
        ? t(`link.${now.reason}`)
        : t(`link.${now.state}`);
  const remarks: string[] = [];
  if (now.state === "open" && now.road !== "websocket") remarks.push(t(`link.${now.road}`));
  if (merged > 0) remarks.push(t("link.merged", { count: merged }));
  return (
    <span
      class={`link link-${now.state}`}
      data-testid="connection"
      data-state={now.state}
      data-road={now.state === "open" ? now.road : ""}
      title={remarks.join("\n")}
    >
      <span class="dot" aria-hidden="true" />
      {words}
      {now.state === "open" && now.road !== "websocket" && <span class="soft"> · {ROAD_NAMES[now.road]}</span>}
      {merged > 0 && (
        <span class="soft" data-testid="merged">
          {" · "}
          {t("link.merged.short", { count: grouped(merged) })}
        </span>
      )}
    </span>
  );
}

/** Whole seconds until a time (seconds since 1970), counted down while it is shown. */
function useCountdown(until: number | null): number {
  const now = useSignal(Date.now() / 1000);
  useEffect(() => {
    if (until === null) return undefined;
    now.value = Date.now() / 1000;
    const timer = setInterval(() => (now.value = Date.now() / 1000), 250);
    return () => clearInterval(timer);
  }, [until]);
  return until === null ? 0 : Math.max(0, Math.ceil(until - now.value));
}

const THEMES: readonly Theme[] = ["auto", "dark", "light"];

function ThemeSwitch() {
  return (
    <label class="picker small">
      <span class="visually-hidden">{t("header.theme")}</span>
      <select
        data-testid="theme"
        value={theme.value}
        onChange={(event) => (theme.value = event.currentTarget.value as Theme)}
      >
        {THEMES.map((name) => (
          <option key={name} value={name}>
            {t(`theme.${name}`)}
          </option>
        ))}
      </select>
    </label>
  );
}

const LANGUAGE_NAMES = { en: "EN", ja: "日本語" } as const;

function LanguageSwitch() {
  return (
    <div class="segments" role="group" aria-label={t("header.language")}>
      {LANGUAGES.map((name) => (
        <button
          key={name}
          type="button"
          lang={name}
          data-testid={`language-${name}`}
          aria-pressed={language.value === name}
          onClick={() => speak(name)}
        >
          {LANGUAGE_NAMES[name]}
        </button>
      ))}
    </div>
  );
}
