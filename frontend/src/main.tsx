import { effect } from "@preact/signals";
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./style/tokens.css";
import "./style/page.css";
import "./style/panels.css";
import { App } from "./App";
import { hold, release } from "./charts/scheduler";
import { handle } from "./handle";
import { postCommand } from "./net/commands";
import { Connection } from "./net/connection";
import { fetchPoints } from "./net/points";
import { applyLook } from "./store/appearance";
import { isUrgent } from "./store/asks";
import { refineOnZoom } from "./store/detail";
import { asked, link, receive, run, runs, wishes } from "./store/live";
import { setTransport } from "./store/steering";

/** The token has been exchanged for a cookie; it need not stay in the address, in histories and in shared links. */
function hideToken(): void {
  const here = new URL(location.href);
  if (!here.searchParams.has("token")) return;
  here.searchParams.delete("token");
  history.replaceState(null, "", here);
}

/** The run that the address names (`#run=ID`); "" for the newest. */
function runOfAddress(): string {
  return new URLSearchParams(location.hash.slice(1)).get("run") ?? "";
}

/** Pixels that the widest chart can have; the server reduces a snapshot to them. */
function chartWidth(): number {
  return Math.max(600, screen.width);
}

hideToken();
applyLook(document.documentElement);
setTransport(postCommand);
refineOnZoom(fetchPoints, chartWidth());

const connection = new Connection(receive, (now) => (link.value = now));
const watch = (id: string): void => {
  asked.value = id;
  connection.watch(id, chartWidth());
};
const choose = (id: string): void => {
  history.replaceState(null, "", `#run=${encodeURIComponent(id)}`);
  watch(id);
};

watch(runOfAddress());
const tellVisibility = (): void => connection.show(document.visibilityState !== "hidden");
tellVisibility();
connection.connect();
document.addEventListener("visibilitychange", tellVisibility);
window.addEventListener("hashchange", () => watch(runOfAddress()));

// The first run of a server that had none is shown without being asked for; so is the newest one where the address
// names a run that is gone.
let wanting = false;
effect(() => {
  const listed = runs.value;
  if (listed === null || run.value !== null) return;
  const named = runOfAddress();
  if (listed.length === 0 || (named !== "" && !listed.some((one) => one.id === named))) wanting = true;
  if (listed.length > 0 && wanting) {
    wanting = false;
    watch("");
  }
});

// While a person steers, the answer comes before the curves: from the press of a button to the acknowledgement, or for as
// long as an engine in good health may take.
const HOLD_MS = 200;
document.addEventListener("pointerdown", (event) => {
  if (event.target instanceof Element && event.target.closest("#steer") !== null) hold(HOLD_MS);
}, { capture: true });
effect(() => {
  if (isUrgent(wishes.value)) hold(HOLD_MS);
  else release();
});

// While the address names no run, the page follows: once the run shown is over and a newer one begins, that is shown.
const OVER = new Set<string>(["finished", "stopped", "failed", "lost"]);
effect(() => {
  const newest = runs.value?.[0];
  const shown = runs.value?.find((one) => one.id === run.value?.id);
  if (newest === undefined || shown === undefined || runOfAddress() !== "") return;
  if (newest.id !== shown.id && OVER.has(shown.status) && !OVER.has(newest.status)) watch("");
});

window.spiral = handle;
const page = document.getElementById("page");
if (page !== null) render(<App watch={choose} reconnect={() => connection.connect()} />, page);
