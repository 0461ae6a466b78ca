import type uPlot from "uplot";
import type { Palette } from "./palette";

/** A vertical line at a step, with what it says: of a steer, or of a guard's alarm. */
export interface Marker {
  step: number;
  text: string;
  alarm: boolean;
  /** The last step of a stretch, drawn as a shade: its frames were merged before the server had them. */
  until?: number;
}

/** How many markers were drawn, and how many of them are alarms. */
export interface Drawn {
  markers: number;
  alarms: number;
}

/** A value that is not a number, or none that a log axis can show. */
export interface OddPoint {
  step: number;
  color: number;
  /** `top`: NaN or infinity, at the top edge; `bottom`: not positive on a log axis. */
  edge: "top" | "bottom";
}

const FLAG = 4;
const TRIANGLE = 4.5;

/** Draw the markers that lie in view. */
export function drawMarkers(plot: uPlot, markers: readonly Marker[], colors: Palette): Drawn {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const ratio = devicePixelRatio;
  const drawn: Drawn = { markers: 0, alarms: 0 };
  ctx.save();
  ctx.lineWidth = ratio;
  ctx.setLineDash([4 * ratio, 3 * ratio]);
  for (const marker of markers) {
    if (marker.until !== undefined) {
      shade(plot, marker.step, marker.until, colors);
      continue;
    }
    const x = Math.round(plot.valToPos(marker.step, "x", true)) + 0.5;
    if (x < left || x > left + width) continue;
    ctx.strokeStyle = ctx.fillStyle = marker.alarm ? colors.alarm : colors.steer;
    ctx.globalAlpha = 0.75;
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(x - FLAG * ratio, top);
    ctx.lineTo(x + FLAG * ratio, top);
    ctx.lineTo(x, top + 1.5 * FLAG * ratio);
    ctx.fill();
    drawn.markers++;
    if (marker.alarm) drawn.alarms++;
  }
  ctx.restore();
  return drawn;
}

function shade(plot: uPlot, from: number, to: number, colors: Palette): void {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const start = Math.max(left, plot.valToPos(from, "x", true));
  const end = Math.min(left + width, Math.max(plot.valToPos(to, "x", true), start + devicePixelRatio));
  if (end <= left || start >= left + width) return;
  ctx.fillStyle = colors.faint;
  ctx.globalAlpha = 0.14;
  ctx.fillRect(start, top, end - start, height);
  ctx.globalAlpha = 1;
}

/**
 * Draw a triangle for each value that a line cannot show. Of a run of them only those are drawn that can be told apart
 * (the first and the last always are), so a long run stays a row of triangles.
 */
export function drawOddPoints(plot: uPlot, points: readonly OddPoint[], colors: Palette): void {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const size = TRIANGLE * devicePixelRatio;
  const drawn = new Map<string, number>();
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.fillStyle = colors.alarm;
  for (const [place, point] of points.entries()) {
    const x = plot.valToPos(point.step, "x", true);
    if (x < left || x > left + width) continue;
    const up = point.edge === "top";
    const row = `${point.edge} ${point.color}`;
    const next = points[place + 1];
    const ends = next === undefined || next.color !== point.color || next.edge !== point.edge;
    if (!ends && x - (drawn.get(row) ?? Number.NEGATIVE_INFINITY) < 2.5 * size) continue;
    drawn.set(row, x);
    const base = up ? top + 2 * size : top + height - 2 * size;
    const tip = up ? top + 1 : top + height - 1;
    ctx.strokeStyle = colors.curves[point.color % colors.curves.length] ?? colors.text;
    ctx.beginPath();
    ctx.moveTo(x - size, base);
    ctx.lineTo(x + size, base);
    ctx.lineTo(x, tip);
    ctx.closePath();
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}
