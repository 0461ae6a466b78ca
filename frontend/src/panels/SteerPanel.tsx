import type { ComponentChildren } from "preact";
import { named, t } from "../i18n/language";
import { short } from "../lib/format";
import { groupsOf, PROMINENT, type KnobGroup } from "../store/knobs";
import { link, run, version } from "../store/live";
import { openGroups } from "../store/preferences";
import { FINAL_STATUSES, type KnobSpec } from "../wire/messages";

interface SteerProps {
  verbs: ComponentChildren;
  /** Draws one knob; given from outside, so that panels do not know each other. */
  knob: (spec: KnobSpec, disabled: boolean) => ComponentChildren;
  journal: ComponentChildren;
}

/** Everything that steers: what the run is told to do, the knobs, and the journal of what was asked. */
export function SteerPanel({ verbs, knob, journal }: SteerProps) {
  version("knobs");
  const model = run.value;
  const knobs = [...(model?.knobs.values() ?? [])];
  const over = model === null || FINAL_STATUSES.includes(model.status.status);
  const disabled = over || link.value.state !== "open";
  version("status");
  const first = PROMINENT.map((name) => knobs.find((spec) => spec.name === name)).filter((spec) => spec !== undefined);
  const gain = model?.knobs.get("zspace.gain")?.value;
  return (
    <section class="panel steer" id="steer" aria-label={t("steer.title")} tabIndex={-1}>
      {verbs}
      {knobs.length === 0 && <p class="hint">{t("steer.none")}</p>}
      {first.map((spec) => (
        <div key={spec.name} class="prominent">
          {knob(spec, disabled)}
        </div>
      ))}
      {typeof gain === "number" && <p class="hint floor">{t("steer.floor", { floor: short(1 - gain) })}</p>}
      <div class="knob-groups">
        {groupsOf(knobs).map((group) => (
          <Group key={group.key} group={group} knob={(spec) => knob(spec, disabled)} />
        ))}
      </div>
      {journal}
    </section>
  );
}

interface GroupProps {
  group: KnobGroup;
  knob: (spec: KnobSpec) => ComponentChildren;
}

/** Knobs that belong together, folded until they are wanted, so that the journal stays in sight. */
function Group({ group, knob }: GroupProps) {
  const open = openGroups.value[group.key] ?? false;
  return (
    <details
      class="more"
      open={open}
      onToggle={(event) => (openGroups.value = { ...openGroups.peek(), [group.key]: event.currentTarget.open })}
      data-testid={`group-${group.key}`}
    >
      <summary>
        {named("group", group.key)} <span class="count">{group.knobs.length}</span>
      </summary>
      {open &&
        group.knobs.map((spec) => (
          <div key={spec.name}>
            <RuleText knob={spec.name} />
            {knob(spec)}
          </div>
        ))}
    </details>
  );
}

/** The line of a guard rule, above the switch that turns it on and off. */
function RuleText({ knob }: { knob: string }) {
  version("knobs");
  const rule = run.value?.guards.find(({ name }) => knob === `guard.${name}.on`);
  return rule === undefined ? null : (
    <p class="rule-text" data-testid={`rule-${rule.name}`}>
      {rule.text}
    </p>
  );
}
