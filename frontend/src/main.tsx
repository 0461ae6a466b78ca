import { batch, effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./App";
import { hold, release } from "./charts/scheduler";
import { handle } from "./handle";
import { chartWidth, runOfAddress } from "./net/address";
import { giveCommand } from "./net/commands";
import { connection, hand } from "./net/early";
import { overHttp } from "./net/launches";
import { fetchPoints } from "./net/points";
import { applyLook } from "./store/appearance";
import { isUrgent } from "./store/asks";
import { byTime, choose as chooseCompared, comparing, comparison, metric, receiveCompared, request } from "./store/compare";
import { refineOnZoom } from "./store/detail";
import { setLaunchTransport } from "./store/engines";
import { asked, link, receive, run, runs, wishes } from "./store/live";
import { setTransport } from "./store/steering";

/** Write a part of the address; an empty word takes it out. The rest stays as it is. */
function inAddress(words: Record<string, string>): void {
  const now = new URLSearchParams(location.hash.slice(1));
  for (const [name, word] of Object.entries(words)) {
    if (word === "") now.delete(name);
    else now.set(name, word);
  }
  // Slashes and commas need no disguise in a fragment, and links are read by people.
  const text = now.toString().replace(/%2F/g, "/").replace(/%2C/g, ",");
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text === "" ? location.pathname + location.search : `#${text}`);
}

/** Compare what the address says. */
function compareAddress(): void {
  const now = new URLSearchParams(location.hash.slice(1));
  const named = (now.get("compare") ?? "").split(",").filter((id) => id !== "");
  batch(() => {
    if (named.length > 0) chooseCompared(named);
    metric.value = now.get("metric") ?? metric.peek();
    byTime.value = now.get("axis") === "time";
    comparing.value = named.length > 0;
  });
}

applyLook(document.documentElement);
setTransport(giveCommand((run, request) => connection.steer(run, request)));
setLaunchTransport(overHttp);
refineOnZoom(fetchPoints, chartWidth());

asked.value = runOfAddress();
hand((messages) => batch(() => (receive(messages), receiveCompared(messages))), (now) => (link.value = now));
const watch = (id: string): void => {
  asked.value = id;
  connection.watch(id, chartWidth());
};
const choose = (id: string): void => {
  inAddress({ run: id });
  watch(id);
};

const tellVisibility = (): void => connection.show(document.visibilityState !== "hidden");
tellVisibility();
document.addEventListener("visibilitychange", tellVisibility);
window.addEventListener("hashchange", () => {
  if (runOfAddress() !== run.peek()?.id) watch(runOfAddress());
  compareAddress();
});

compareAddress();
effect(() => {
  const now = comparison.value;
  inAddress({
    compare: now?.runs.join(",") ?? "",
    metric: now?.metric ?? "",
    axis: now?.byTime === true ? "time" : "",
  });
  connection.compare(request(now, chartWidth()));
});

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
