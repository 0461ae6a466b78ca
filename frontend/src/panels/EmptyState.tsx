import { t } from "../i18n/language";
import { mayBegin } from "../store/engines";
import { run, runs, status } from "../store/live";

/** What stands in the middle while there are no charts: what to run, or how far compiling is. */
export function EmptyState({ begin }: { begin: () => void }) {
  const now = status.value;
  if (run.value === null) {
    if (runs.value === null) return <div class="empty" data-testid="empty" />;
    return (
      <div class="empty" data-testid="empty">
        <h2>{t("empty.title")}</h2>
        <p>{t("empty.lead")}</p>
        {mayBegin.value && (
          <p>
            <button type="button" class="strong" data-testid="btn-first-run" onClick={begin}>
              + {t("runs.new")}
            </button>
          </p>
        )}
        <dl>
          <dt>
            <code>spiral demo</code>
          </dt>
          <dd>{t("empty.demo")}</dd>
          <dt>
            <code>spiral demo --data fashion</code>
          </dt>
          <dd>{t("empty.train")}</dd>
        </dl>
      </div>
    );
  }
  const compiling = now?.status === "compiling";
  const total = now?.total ?? 0;
  const done = now?.done ?? 0;
  return (
    <div class="empty" data-testid="starting">
      <h2>{compiling ? t("compile.title") : t("starting.title")}</h2>
      {compiling && <p>{t("compile.lead")}</p>}
      {compiling && (
        <div
          class="bar"
          role="progressbar"
          aria-label={t("compile.title")}
          aria-valuemin={0}
          aria-valuemax={total}
          aria-valuenow={done}
        >
          <i style={{ width: `${total > 0 ? (100 * done) / total : 0}%` }} />
        </div>
      )}
      {compiling && (
        <p class="hint">
          {total > 0 ? `${done} / ${total}` : ""} <code>{now?.detail}</code>
        </p>
      )}
    </div>
  );
}
