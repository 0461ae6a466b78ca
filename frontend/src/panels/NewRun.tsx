import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n/language";
import { STRINGS, type StringKey } from "../i18n/strings";
import { asAsked, launches, refreshEngines, type TrainingOption } from "../store/engines";

/** What most people set; the rest is behind a fold. */
const FIRST = ["data", "model", "optimizer", "lr", "steps", "epochs", "batch_size", "seed", "gain", "rate", "name"];

/** A dialog that asks what to train, and starts it on the server's machine. */
export function NewRun({ open, begun }: { open: Signal<boolean>; begun: (run: string) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const options = useSignal<readonly TrainingOption[]>([]);
  const typed = useSignal<Readonly<Record<string, string>>>({});
  const wrong = useSignal({ error: "", field: "" });
  const note = useSignal("");
  const busy = useSignal(false);
  const more = useSignal(false);

  useEffect(() => {
    if (!open.value) return;
    if (dialog.current?.open === false) dialog.current.showModal();
    wrong.value = { error: "", field: "" };
    note.value = options.peek().length === 0 ? t("new.loading") : "";
    launches()
      .options()
      .then((told) => {
        options.value = told;
        note.value = "";
      })
      .catch((error: unknown) => {
        note.value = t("new.failed", { reason: error instanceof Error ? error.message : String(error) });
      });
  }, [open.value]);

  useEffect(() => {
    if (wrong.value.field !== "") dialog.current?.querySelector<HTMLElement>(`[name="${wrong.value.field}"]`)?.focus();
  }, [wrong.value]);

  if (!open.value) return null;
  const start = async (): Promise<void> => {
    if (busy.value) return;
    busy.value = true;
    const told = await launches().start(asAsked(options.value, typed.value));
    busy.value = false;
    if ("error" in told) {
      if (told.field !== "" && !FIRST.includes(told.field)) more.value = true;
      wrong.value = told;
      return;
    }
    dialog.current?.close();
    void refreshEngines();
    begun(told.run);
  };
  const first = FIRST.flatMap((name) => options.value.filter((option) => option.name === name));
  const rest = options.value.filter((option) => !FIRST.includes(option.name));
  const known = options.value.some((option) => option.name === wrong.value.field);
  const field = (option: TrainingOption) => (
    <Field key={option.name} option={option} typed={typed} error={wrong.value.field === option.name ? wrong.value.error : ""} />
  );
  return (
    <dialog class="new-run" ref={dialog} data-testid="new-run" aria-labelledby="new-run-title" onClose={() => (open.value = false)}>
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void start();
        }}
      >
        <h2 id="new-run-title">{t("new.title")}</h2>
        <p class="hint">{note.value === "" ? t("new.lead") : note.value}</p>
        <div class="new-run-scroll">
          <div class="new-run-fields">{first.map(field)}</div>
          {rest.length > 0 && (
            <details open={more.value} onToggle={(event) => (more.value = event.currentTarget.open)}>
              <summary>{t("new.more", { count: rest.length })}</summary>
              <div class="new-run-fields">{rest.map(field)}</div>
            </details>
          )}
        </div>
        {wrong.value.error !== "" && !known && <p class="field-error" role="alert" data-testid="new-run-error">{wrong.value.error}</p>}
        <div class="new-run-foot">
          <button type="button" onClick={() => dialog.current?.close()}>{t("new.cancel")}</button>
          <button type="submit" class="strong" data-testid="btn-start" disabled={busy.value || options.value.length === 0}>
            {t(busy.value ? "new.starting" : "new.start")}
          </button>
        </div>
      </form>
    </dialog>
  );
}

interface FieldProps {
  option: TrainingOption;
  typed: Signal<Readonly<Record<string, string>>>;
  error: string;
}

function Field({ option, typed, error }: FieldProps) {
  const { name, kind, choices } = option;
  const key = `field.${name}`;
  // An option that is newer than this table of words is called as the engine calls it.
  const label = key in STRINGS ? t(key as StringKey) : name;
  const preset = option.default === null || option.default === "" || option.default === false ? t("new.default") : String(option.default);
  const id = `field-${name}`;
  const common = {
    id,
    name,
    value: typed.value[name] ?? "",
    "aria-invalid": error !== "",
    "aria-describedby": error === "" ? undefined : `${id}-error`,
    title: option.help,
    onInput: (event: Event) => {
      const { value } = event.currentTarget as HTMLInputElement;
      typed.value = { ...typed.value, [name]: value };
    },
  };
  const listed = kind === "switch" ? ["true"] : choices;
  return (
    <div class={kind === "lines" ? "field wide" : "field"}>
      <label for={id} title={option.help}>{label}</label>
      {listed.length > 0 ? (
        <select {...common} data-testid={id}>
          <option value="">{preset}</option>
          {listed.filter((choice) => choice !== option.default).map((choice) => (
            <option key={choice} value={choice}>{kind === "switch" ? t("new.yes") : choice}</option>
          ))}
        </select>
      ) : kind === "lines" ? (
        <textarea {...common} data-testid={id} rows={2} />
      ) : (
        <input {...common} data-testid={id} type="text" inputMode={kind === "text" ? "text" : "decimal"} placeholder={preset} autocomplete="off" />
      )}
      {error !== "" && <p class="field-error" id={`${id}-error`} role="alert">{error}</p>}
    </div>
  );
}
