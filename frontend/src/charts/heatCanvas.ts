import { colored, colorTable, type ColormapName } from "../lib/colormap";
import { bilinear, nearest, normalised, positive, type Plane } from "../lib/upsample";

/** A probe image: (H, W, C) in 0..1, C order. */
export interface Picture {
  values: Float32Array;
  height: number;
  width: number;
  channels: number;
}

/** How a heat map lies on its image. */
export interface HeatStyle {
  overlay: boolean;
  opacity: number;
  colormap: ColormapName;
  cells: boolean;
  outline: boolean;
  /** Value that takes the full colour; undefined: the map's own maximum. */
  peak?: number | undefined;
  /** Colour of the outline. */
  ink: string;
}

/** Canvas pixels for each image pixel: enough for a smooth overlay and sharp pixels, cheap to compute. */
function enlargement(picture: Picture): number {
  return Math.max(6, Math.ceil(160 / picture.width));
}

const tables = new Map<ColormapName, Uint8ClampedArray>();

/** The colour table of a map, made once. */
export function table(name: ColormapName): Uint8ClampedArray {
  const known = tables.get(name) ?? colorTable(name);
  tables.set(name, known);
  return known;
}

/** Stretch pixels over the whole canvas. */
export function paste(context: CanvasRenderingContext2D, pixels: ImageData): void {
  const sheet = new OffscreenCanvas(pixels.width, pixels.height);
  sheet.getContext("2d")?.putImageData(pixels, 0, 0);
  context.drawImage(sheet, 0, 0, context.canvas.width, context.canvas.height);
}

/** Draw a probe image with its map. */
export function drawHeat(
  canvas: HTMLCanvasElement,
  picture: Picture,
  map: Plane | null,
  mask: Uint8Array | null,
  style: HeatStyle,
): void {
  const times = enlargement(picture);
  const width = picture.width * times;
  const height = picture.height * times;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.imageSmoothingEnabled = false;
  paste(context, photograph(picture));
  const heat = map === null ? null : positive(map);
  if (heat !== null && style.overlay) {
    const grown = normalised((style.cells ? nearest : bilinear)(heat, height, width), style.peak);
    paste(context, new ImageData(colored(grown.values, table(style.colormap), style.opacity), width, height));
  }
  if (mask !== null && style.outline) outline(context, mask, picture, times, style.ink);
}

function photograph(picture: Picture): ImageData {
  const { values, height, width, channels } = picture;
  const pixels = new ImageData(width, height);
  for (let at = 0; at < height * width; at++) {
    for (let channel = 0; channel < 3; channel++) {
      pixels.data[at * 4 + channel] = 255 * (values[at * channels + Math.min(channel, channels - 1)] as number);
    }
    pixels.data[at * 4 + 3] = 255;
  }
  return pixels;
}

/** Trace the edge between masked and unmasked pixels. */
function outline(
  context: CanvasRenderingContext2D,
  mask: Uint8Array,
  { width, height }: Picture,
  times: number,
  ink: string,
): void {
  const edge = (x0: number, y0: number, x1: number, y1: number): void => {
    context.moveTo(x0 * times, y0 * times);
    context.lineTo(x1 * times, y1 * times);
  };
  const on = (x: number, y: number): boolean => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] !== 0;
  context.save();
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.setLineDash([5, 3]);
  context.beginPath();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (on(x, y) !== on(x - 1, y)) edge(x, y, x, y + 1);
      if (on(x, y) !== on(x, y - 1)) edge(x, y, x + 1, y);
    }
  }
  context.stroke();
  context.restore();
}

/** Draw one number (0..1) for each feature or sample as a row of coloured cells, one row for each moment, newest at the bottom. */
export function drawStrips(canvas: HTMLCanvasElement, rows: readonly Float32Array[], height: number, colormap: ColormapName): void {
  const width = Math.max(1, rows[0]?.length ?? 1);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  if (context === null) return;
  const pixels = context.createImageData(width, height);
  // Until the picture is full, its oldest row fills the top.
  for (let y = 0; y < height; y++) {
    const row = rows[Math.max(0, rows.length - height + y)];
    if (row !== undefined) paintRow(pixels, y * width, row, table(colormap));
  }
  context.putImageData(pixels, 0, 0);
}

function paintRow(pixels: ImageData, start: number, values: Float32Array, colors: Uint8ClampedArray): void {
  for (let place = 0; place < values.length; place++) {
    const k = start + place;
    const value = values[place] as number;
    const entry = Number.isFinite(value) ? Math.round(Math.min(1, Math.max(0, value)) * 255) * 3 : -1;
    for (let channel = 0; channel < 3; channel++) {
      pixels.data[k * 4 + channel] = entry < 0 ? (channel === 0 ? 255 : 60) : (colors[entry + channel] as number);
    }
    pixels.data[k * 4 + 3] = 255;
  }
}
