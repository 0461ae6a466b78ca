import { computed, signal } from "@preact/signals";
import { language } from "./i18n/language";
import { Banner } from "./panels/Banner";
import { ChartCard, pointsOf } from "./panels/ChartCard";
import { ChartsPanel, markers } from "./panels/ChartsPanel";
import { ComparePanel } from "./panels/ComparePanel";
import { EmptyState } from "./panels/EmptyState";
import { Header } from "./panels/Header";
import { HeatTile } from "./panels/HeatTile";
import { Journal } from "./panels/Journal";
import { KnobControl } from "./panels/KnobControl";
import { KnobState } from "./panels/KnobState";
import { LargeChart, type Opened } from "./panels/LargeChart";
import { LaterStep } from "./panels/LaterStep";
import { NewRun } from "./panels/NewRun";
import { RunActs } from "./panels/RunActs";
import { RunPicker } from "./panels/RunPicker";
import { SeePanel } from "./panels/SeePanel";
import { Timeline } from "./panels/Timeline";
import { SteerPanel } from "./panels/SteerPanel";
import { Verbs } from "./panels/Verbs";
import { ZSpacePanel } from "./panels/ZSpacePanel";
import { comparison } from "./store/compare";
import { run, step, version } from "./store/live";

const opened = signal<Opened>(null);
const beginning = signal(false);
const begin = (): void => void (beginning.value = true);

/** Whether there is anything to draw yet; changes once, so that the page is not laid out anew at every frame. */
const started = computed(() => {
  version("series");
  return run.value !== null && run.value.series.size > 0 && step.value > 0;
});

const hasRun = computed(() => run.value !== null);

interface AppProps {
  watch: (run: string) => void;
  reconnect: () => void;
}

/** The page: header; steer, charts, see. The only place where panels meet. */
export function App({ watch, reconnect }: AppProps) {
  document.documentElement.lang = language.value;
  return (
    <div class={hasRun.value ? "page" : "page page-empty"}>
      <Header
        picker={
          <RunPicker
            watch={watch}
            acts={(summary, engine) => <RunActs summary={summary} engine={engine} />}
            begin={begin}
          />
        }
      />
      <Banner reconnect={reconnect} />
      <main class="columns">
        {hasRun.value && (
          <SteerPanel
            verbs={<Verbs />}
            knob={(spec, disabled) => (
              <KnobControl
                spec={spec}
                disabled={disabled}
                under={(open, preview) => (
                  <>
                    <KnobState spec={spec} disabled={disabled} preview={preview} />
                    <LaterStep spec={spec} disabled={disabled} open={open} />
                  </>
                )}
              />
            )}
            journal={<Journal />}
          />
        )}
        {comparison.value !== null ? (
          <ComparePanel markers={() => markers.value} watch={watch} />
        ) : started.value ? (
          <ChartsPanel
            timeline={<Timeline />}
            card={(spec) => (
              <ChartCard spec={spec} markers={() => markers.value} expand={(one, log) => (opened.value = { spec: one, log })} />
            )}
          />
        ) : (
          <EmptyState begin={begin} />
        )}
        {hasRun.value && (
          <div class="right-column">
            <SeePanel tile={(index) => <HeatTile key={index} index={index} />} />
            <ZSpacePanel />
          </div>
        )}
      </main>
      <NewRun open={beginning} begun={watch} />
      <LargeChart opened={opened} points={pointsOf} markers={() => markers.value} />
    </div>
  );
}
