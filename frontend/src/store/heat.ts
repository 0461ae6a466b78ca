import { computed, signal } from "@preact/signals";
import type { Plane } from "../lib/upsample";
import { numbers } from "../wire/arrays";
import type { HeatMaps } from "../wire/messages";
import { run, version } from "./live";
import { see } from "./preferences";

/** A probe image with its mask, ready to draw. */
export interface Picture {
  values: Float32Array;
  height: number;
  width: number;
  channels: number;
  mask: Uint8Array | null;
  label: number;
}

/** Whether a picture is a sequence: an image of height 1, whose columns are time steps. */
export function isSequence(picture: Picture): boolean {
  return picture.height === 1;
}

/** Whether the watched run has said that it will never show heat maps: it declares curves, but none of probes. */
export const mapless = computed<boolean>(() => {
  version("series");
  const names = [...(run.value?.byName.keys() ?? [])];
  return names.length > 0 && !names.some((name) => name.startsWith("xai/"));
});

/** The probe images of the watched run. */
export const pictures = computed<readonly Picture[]>(() => {
  version("probe");
  const probe = run.value?.probe ?? null;
  if (probe === null) return [];
  const [count = 0, height = 0, width = 0, channels = 1] = probe.images.shape;
  const values = numbers(probe.images) as Float32Array;
  const masks = probe.masks === null ? null : (numbers(probe.masks) as Uint8Array);
  const area = height * width;
  return Array.from({ length: count }, (_, k) => ({
    values: values.subarray(k * area * channels, (k + 1) * area * channels),
    height,
    width,
    channels,
    mask: masks === null ? null : masks.subarray(k * area, (k + 1) * area),
    label: probe.labels[k] ?? -1,
  }));
});

/** The newest heat maps of the watched run. */
export const heat = computed<{ message: HeatMaps; maps: readonly Plane[] } | null>(() => {
  version("heatMaps");
  const message = run.value?.heatMaps ?? null;
  if (message === null) return null;
  const [count = 0, height = 0, width = 0] = message.maps.shape;
  const values = numbers(message.maps) as Float32Array;
  const maps = Array.from({ length: count }, (_, k) => ({
    values: values.subarray(k * height * width, (k + 1) * height * width),
    height,
    width,
  }));
  return { message, maps };
});

const greatest = signal<{ run: string; peak: number }>({ run: "", peak: 0 });

/**
 * The value that takes the full colour while the scale is locked: the greatest peak seen since it was locked, over all
 * images and frames. Undefined while each map is on its own scale.
 */
export function lockedPeak(): number | undefined {
  const now = heat.value;
  const id = run.value?.id ?? "";
  if (!see.value.lockScale || now === null) {
    greatest.value = { run: "", peak: 0 };
    return undefined;
  }
  const peak = now.message.raw_max.reduce((most, value) => (value > most ? value : most), 0);
  const before = greatest.peek();
  if (before.run !== id || peak > before.peak) greatest.value = { run: id, peak };
  return greatest.peek().peak;
}
