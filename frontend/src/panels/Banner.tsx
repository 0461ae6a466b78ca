import { t } from "../i18n/language";
import { link, run, status, unreadable, version } from "../store/live";

/** What a person must know before trusting the screen: server or engine lost, failure, notices of the engine, NaN. */
export function Banner({ reconnect }: { reconnect: () => void }) {
  const now = link.value;
  const engine = status.value;
  if (now.state === "waiting") {
    return (
      <Strip tone="warn" testid="banner-link" action={{ words: t("banner.now"), act: reconnect }}>
        {t("banner.waiting")}
      </Strip>
    );
  }
  if (now.state === "closed") {
    const reload = now.reason === "protocol" ? { words: t("banner.reload"), act: () => location.reload() } : undefined;
    return (
      <Strip tone="bad" testid="banner-link" action={reload}>
        {t(`banner.${now.reason}`)}
      </Strip>
    );
  }
  version("run");
  const silent = unreadable.value;
  if (silent !== null) {
    const words = t("banner.unreadable", { run: silent.id, reason: silent.trouble ?? "" });
    return <Strip tone="bad" testid="banner-unreadable">{words}</Strip>;
  }
  const trouble = run.value?.summary.trouble ?? "";
  if (trouble !== "") return <Strip tone="bad" testid="banner-trouble">{t("banner.trouble", { reason: trouble })}</Strip>;
  if (engine?.status === "failed") return <Strip tone="bad" testid="banner-failed">{t("banner.failed", { detail: engine.detail })}</Strip>;
  if (engine?.status === "lost") {
    const { detail } = engine;
    return <Strip tone="warn" testid="banner-lost">{detail === "" ? t("banner.lost") : t("banner.lost.detail", { detail })}</Strip>;
  }
  return (
    <>
      {/* What the engine says of a run that goes on: a step that was skipped, a target out of reach, what guards did. */}
      {(engine?.status === "training" || engine?.status === "paused") && engine.detail !== "" && (
        <Strip tone="warn" testid="banner-notice">
          {engine.detail}
        </Strip>
      )}
      <NotANumber />
    </>
  );
}

/** Speaks while the newest values of watched series are not finite. */
function NotANumber() {
  version("frames");
  const sick: string[] = [];
  let since = Number.POSITIVE_INFINITY;
  for (const name of ["train/loss", "val/loss", "optim/gradient_norm"]) {
    const series = run.value?.byName.get(name);
    if (series === undefined || series.values.length === 0 || Number.isFinite(series.values.last)) continue;
    sick.push(name);
    let at = series.values.length - 1;
    while (at > 0 && !Number.isFinite(series.values.at(at - 1))) at--;
    since = Math.min(since, series.steps.at(at));
  }
  if (sick.length === 0) return null;
  return <Strip tone="bad" testid="banner-nan">{t("banner.nan", { names: sick.join(", "), step: since })}</Strip>;
}

interface StripProps {
  tone: "warn" | "bad";
  testid: string;
  action?: { words: string; act: () => void } | undefined;
  children: string;
}

function Strip({ tone, testid, action, children }: StripProps) {
  return (
    <div class={`banner banner-${tone}`} role="alert" data-testid={testid}>
      <span aria-hidden="true" class="banner-mark">
        !
      </span>
      <span>{children}</span>
      {action !== undefined && (
        <button type="button" onClick={action.act}>
          {action.words}
        </button>
      )}
    </div>
  );
}
