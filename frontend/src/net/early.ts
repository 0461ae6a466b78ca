import type { Link } from "../store/live";
import type { ServerToViewer } from "../wire/messages";
import { chartWidth, hideToken, runOfAddress } from "./address";
import { browser, Connection } from "./connection";

/**
 * The conversation with the server begins before the rest of the page is there: while the browser makes ready what draws,
 * the server reads the run. What is heard meanwhile is kept, and handed over in order.
 */
type Listener = (messages: readonly ServerToViewer[]) => void;

let listener: Listener | null = null;
let teller: ((link: Link) => void) | null = null;
let kept: ServerToViewer[] = [];
let told: Link | null = null;

let nowAsked: () => void = () => undefined;

/** Settled once the server has been asked for the run, or is slow to be reached. */
export const asked = new Promise<void>((resolve) => {
  nowAsked = resolve;
  setTimeout(resolve, 100);
});

export const connection = new Connection(
  (messages) => {
    if (listener === null) kept.push(...messages);
    else listener(messages);
  },
  (link) => {
    told = link;
    teller?.(link);
  },
  {
    ...browser,
    open: (road, ear) =>
      browser.open(road, {
        ...ear,
        opened: () => {
          ear.opened();
          nowAsked();
        },
      }),
  },
);

/** Hand over what has been heard, and everything that will be. */
export function hand(receive: Listener, tell: (link: Link) => void): void {
  listener = receive;
  teller = tell;
  if (told !== null) tell(told);
  const missed = kept;
  kept = [];
  if (missed.length > 0) receive(missed);
}

hideToken();
connection.watch(runOfAddress(), chartWidth());
connection.show(document.visibilityState !== "hidden");
connection.connect();
