import { colored } from "../lib/colormap";
import { bilinear, nearest, normalised, positive, type Plane } from "../lib/upsample";
import { paste, table, type HeatStyle, type Picture } from "./heatCanvas";

/** Canvas pixels for each time step. */
const STEP_WIDTH = 6;

/** Height of the canvas: with 64 steps about that of the tile on screen, so that lines keep their width. */
const HEIGHT = 160;

/** Free pixels above and below the curves. */
const MARGIN = 14;

/** One colour for each feature; a lone signal is drawn in the first. */
const CURVES = ["#f2f2f5", "#7cc4ff", "#ffb86b", "#b6f09c"];

/** Dark seam under a curve, so that it stands out on any heat colour. */
const SEAM = "#000b";

/** Draw a sequence, an image of height 1, as curves over time with its map as bands behind them. */
export function drawSignal(
  canvas: HTMLCanvasElement,
  picture: Picture,
  map: Plane | null,
  mask: Uint8Array | null,
  style: HeatStyle,
): void {
  const width = picture.width * STEP_WIDTH;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== HEIGHT) canvas.height = HEIGHT;
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, HEIGHT);
  const heat = map === null ? null : positive(map);
  if (heat !== null && style.overlay) {
    const grown = normalised((style.cells ? nearest : bilinear)(heat, 1, width), style.peak);
    paste(context, new ImageData(colored(grown.values, table(style.colormap), style.opacity), width, 1));
  }
  for (let feature = 0; feature < picture.channels; feature++) curve(context, picture, feature);
  if (mask !== null && style.outline) spans(context, mask, style.ink);
}

function curve(context: CanvasRenderingContext2D, { values, width, channels }: Picture, feature: number): void {
  const path = new Path2D();
  for (let step = 0; step < width; step++) {
    const value = values[step * channels + feature] as number;
    const y = MARGIN + (1 - value) * (HEIGHT - 2 * MARGIN);
    if (Number.isFinite(y)) path.lineTo((step + 0.5) * STEP_WIDTH, y);
  }
  context.lineJoin = "round";
  for (const [ink, thick] of [[SEAM, 5], [CURVES[feature % CURVES.length] as string, 2]] as const) {
    context.strokeStyle = ink;
    context.lineWidth = thick;
    context.stroke(path);
  }
}

/** Mark where the object is: a dashed frame around each span of masked steps. */
function spans(context: CanvasRenderingContext2D, mask: Uint8Array, ink: string): void {
  context.save();
  context.strokeStyle = ink;
  context.lineWidth = 2;
  context.setLineDash([6, 4]);
  for (let step = 0; step < mask.length; step++) {
    if (mask[step] === 0 || (step > 0 && mask[step - 1] !== 0)) continue;
    let end = step;
    while (end < mask.length && mask[end] !== 0) end++;
    context.strokeRect(step * STEP_WIDTH + 1, 2, (end - step) * STEP_WIDTH - 2, HEIGHT - 4);
  }
  context.restore();
}
