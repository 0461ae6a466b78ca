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
