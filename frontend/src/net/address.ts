/** The address of something of this server, whatever sub-path a proxy serves the page under. */
export function address(path: string): URL {
  const base = new URL(document.baseURI);
  base.search = "";
  base.hash = "";
  return new URL(path, base);
}

/** The address of a websocket of this server. */
export function socketAddress(path: string): string {
  const url = address(path);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/** The token has been exchanged for a cookie; it need not stay in the address, in histories and in shared links. */
export function hideToken(): void {
  const here = new URL(location.href);
  if (!here.searchParams.has("token")) return;
  here.searchParams.delete("token");
  history.replaceState(null, "", here);
}

/** The run that the address names (`#run=ID`); "" for the newest. */
export function runOfAddress(): string {
  return new URLSearchParams(location.hash.slice(1)).get("run") ?? "";
}

/** Pixels that the widest chart can have; the server reduces a snapshot to them. */
export function chartWidth(): number {
  return Math.max(600, screen.width);
}
