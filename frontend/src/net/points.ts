import type { FinerPoints } from "../store/detail";
import { address } from "./address";

interface Told {
  series: { name: string; steps: number[]; values: (number | string)[]; reduced: boolean }[];
}

/** Ask the server for the points of a part of a run, reduced to `width` pixels where there are more. */
export async function fetchPoints(run: string, from: number, to: number, width: number): Promise<FinerPoints[]> {
  const url = address(`api/runs/${encodeURIComponent(run)}/series`);
  url.search = new URLSearchParams({ from: String(from), to: String(to), width: String(width) }).toString();
  const response = await fetch(url, { credentials: "same-origin" });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const told = (await response.json()) as Told;
  // Non-finite numbers come as the words "NaN", "Infinity" and "-Infinity", which Number reads.
  return told.series.map((one) => ({ ...one, values: one.values.map(Number) }));
}
