import type { Points } from "../lib/decimate";
import type { ChartSpec, CurveSpec } from "./catalogue";
import type { Marker } from "./marks";
import { faded, palette, type Palette } from "./palette";

/** The part of Plotly that the page uses. */
interface Plotly {
  newPlot: (host: HTMLElement, data: unknown[], layout: unknown, config: unknown) => Promise<unknown>;
  purge: (host: HTMLElement) => void;
  Plots: { resize: (host: HTMLElement) => void };
}

declare global {
  interface Window {
    Plotly?: Plotly;
  }
}

let loading: Promise<Plotly> | null = null;

/** Load Plotly from this server, once and only when a chart is opened full size (4.8 MB). */
export function loadPlotly(): Promise<Plotly> {
  loading ??= new Promise<Plotly>((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "plotly.min.js";
    script.onload = () => (window.Plotly ? resolve(window.Plotly) : reject(new Error("plotly.min.js defines no Plotly")));
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error("plotly.min.js cannot be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

/** Nothing may leave the machine: no upload button, no server to send to. */
const CONFIG = {
  displaylogo: false,
  showSendToCloud: false,
  showEditInChartStudio: false,
  plotlyServerURL: "",
  responsive: false,
  displayModeBar: true,
  scrollZoom: true,
  modeBarButtonsToRemove: ["sendDataToCloud", "sendChartToCloud", "editInChartStudio"],
};

/** The two edges of a band follow each other, low then high, before all lines. */
function bandRank(curve: CurveSpec): number {
  if (curve.kind === "band-low") return 2 * curve.color - 100;
  return curve.kind === "band-high" ? 2 * curve.color - 99 : 0;
}

/** A small flag for each step with markers; what they say is shown on hover, because many of them lie close together. */
function steerFlags(markers: readonly Marker[], colors: Palette): unknown[] {
  const at = new Map<number, Marker[]>();
  for (const marker of markers) if (marker.until === undefined) at.set(marker.step, [...(at.get(marker.step) ?? []), marker]);
  return [...at].map(([x, here]) => {
    const hovertext = here.map(({ text }) => text).join("<br>");
    const font = { size: 12, color: here.some(({ alarm }) => alarm) ? colors.alarm : colors.steer };
    return { x, y: 1, yref: "paper", yanchor: "top", text: "▼", showarrow: false, font, hovertext };
  });
}

/** Most triangles for values that a line cannot show; the small chart shows where all of them are. */
const MOST_FLAGS = 100;

function oddFlags(curves: readonly Points[], color: string): unknown[] {
  const steps = new Set<number>();
  for (const { steps: at, values } of curves) {
    values.forEach((value, k) => {
      if (!Number.isFinite(value) && steps.size < MOST_FLAGS) steps.add(at[k] as number);
    });
  }
  const font = { size: 12, color };
  return [...steps].map((x) => ({ x, y: 1, yref: "paper", yanchor: "bottom", text: "▲", showarrow: false, font, hovertext: "NaN / ∞" }));
}

/** Draw a chart full size. */
export async function drawLarge(
  host: HTMLElement,
  spec: ChartSpec,
  curves: readonly Points[],
  markers: readonly Marker[],
  log: boolean,
): Promise<Plotly> {
  const plotly = await loadPlotly();
  const colors = palette();
  const ordered = spec.curves.map((curve, k) => ({ curve, k })).sort((a, b) => bandRank(a.curve) - bandRank(b.curve));
  const traces = ordered.map(({ curve, k }) => {
    const color = colors.curves[curve.color % colors.curves.length] ?? colors.text;
    const edge = curve.kind === "band-low" || curve.kind === "band-high";
    return {
      type: "scatter",
      mode: "lines",
      name: curve.kind === "floor" ? `1 − ${curve.series}` : curve.series,
      x: curves[k]?.steps,
      y: curves[k]?.values,
      yaxis: curve.axis === "right" ? "y2" : "y",
      line: {
        color: curve.kind === "line" ? color : faded(color, 0.6),
        width: edge ? 0.7 : 1.6,
        dash: curve.kind === "floor" ? "dot" : curve.axis === "right" || curve.kind === "faint" ? "dash" : "solid",
      },
      connectgaps: false,
      showlegend: !edge,
      fill: curve.kind === "band-high" ? "tonexty" : "none",
      fillcolor: faded(color, 0.12),
    };
  });
  const axis = { gridcolor: colors.grid, zerolinecolor: colors.grid, linecolor: colors.grid };
  const layout = {
    width: host.clientWidth,
    height: host.clientHeight,
    margin: { l: 64, r: 64, t: 36, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colors.text, size: 12 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: getComputedStyle(document.documentElement).getPropertyValue("--panel").trim() },
    legend: { orientation: "h", y: -0.12, traceorder: "normal" },
    xaxis: { ...axis, title: { text: "step" } },
    yaxis: { ...axis, type: log ? "log" : "linear", range: log ? undefined : (spec.left.fixed ?? undefined) },
    yaxis2: { overlaying: "y", side: "right", showgrid: false, tickmode: "auto", type: spec.right?.scale ?? "linear" },
    shapes: markers.map(({ step, alarm, until }) => ({
      type: until === undefined ? "line" : "rect",
      x0: step,
      x1: until ?? step,
      yref: "paper",
      y0: 0,
      y1: 1,
      fillcolor: until === undefined ? undefined : faded(colors.faint, 0.14),
      layer: until === undefined ? "above" : "below",
      line: until !== undefined ? { width: 0 } : { color: alarm ? colors.alarm : colors.steer, width: 1, dash: "dash" },
    })),
    annotations: [...steerFlags(markers, colors), ...oddFlags(curves, colors.alarm)],
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colors.faint, activecolor: colors.text },
  };
  await plotly.newPlot(host, traces, layout, CONFIG);
  return plotly;
}
