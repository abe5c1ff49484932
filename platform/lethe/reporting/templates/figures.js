"use strict";
// Draws a page's figures with plotly, in the page's colors, and links them: a trial that is hovered or pinned in one
// place is marked in all of them. An element with data-figure="NAME" shows the figure NAME of the page's data; in it,
// .live is where plotly draws, .static is what shows before, without scripts, and on paper.
// Points carry the number of their trial in `customdata`; rows of tables and links carry it in data-trial.

const page = { data: {}, pinned: new Set(), hovered: null, onPins: [] };
const dark = matchMedia("(prefers-color-scheme: dark)");

async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Elements from texts alone: what a model wrote never becomes HTML.
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

function resolved(value, colors) {
  if (typeof value === "string") return value.startsWith("--") ? colors.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((item) => resolved(item, colors));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, colors)]));
}

const axisStyle = {
  gridcolor: "--rule", zeroline: false, exponentformat: "e", linecolor: "--rule", tickcolor: "--rule", automargin: true, fixedrange: true,
  title: { font: { color: "--ink", size: 12.5 }, standoff: 8 },
};
const style = {
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: ["--accent"], hovermode: "closest",
  font: { family: "ui-sans-serif, -apple-system, 'Segoe UI', Inter, Roboto, sans-serif", size: 12, color: "--soft" },
  hoverlabel: { bgcolor: "--tip", bordercolor: "--tip", font: { color: "--tip-ink", size: 12 }, align: "left" },
  legend: { orientation: "h", x: 0, y: -0.16, yanchor: "top", font: { color: "--soft" } },
  margin: { l: 52, r: 14, t: 14, b: 40 }, dragmode: "select", newselection: { line: { color: "--accent" } },
  xaxis: axisStyle, yaxis: axisStyle,
};
const config = {
  displaylogo: false, responsive: true, modeBarButtonsToRemove: ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d",
    "autoScale2d", "resetScale2d", "lasso2d"], toImageButtonOptions: { format: "svg" },
};

// One more trace for each pair of axes; it repeats the points of the trials to be marked, on top of the others.
function overlays(traces) {
  const pairs = new Map(traces.map((trace) => [`${trace.xaxis ?? "x"} ${trace.yaxis ?? "y"}`, trace]));
  return [...pairs.values()].map((trace) => ({
    type: "scatter", mode: "lines+markers", x: [], y: [], hoverinfo: "skip", showlegend: false, xaxis: trace.xaxis,
    yaxis: trace.yaxis, cliponaxis: false, line: { color: "--mark", width: 2.5 },
    marker: { color: "--mark", size: 10, line: { color: "--card", width: 1.5 } },
  }));
}

// Trial -> the points of it for every overlay; a gap (null) ends a line.
function pointsByTrial(traces, marks) {
  const found = new Map();
  for (const trace of traces) {
    const place = marks.findIndex((mark) => mark.xaxis === trace.xaxis && mark.yaxis === trace.yaxis);
    const seen = new Set();
    (trace.customdata ?? []).forEach((number, at) => {
      if (number == null) return;
      if (!found.has(number)) found.set(number, marks.map(() => ({ x: [], y: [] })));
      const points = found.get(number)[place];
      if (!(trace.mode ?? "").includes("lines") || !seen.has(number)) { points.x.push(null); points.y.push(null); }
      seen.add(number);
      points.x.push(trace.x[at]);
      points.y.push(trace.y[at]);
    });
  }
  return found;
}

async function draw(figure) {
  const spec = figure.spec ?? page.data.figures[figure.dataset.figure];
  const box = figure.querySelector(".live");
  const traces = spec.data, marks = overlays(traces);
  figure.marks = { first: traces.length, count: marks.length, points: pointsByTrial(traces, marks) };
  figure.classList.add("drawn");
  const colors = getComputedStyle(document.documentElement);
  const narrow = box.clientWidth < 480;
  const layout = { ...spec.layout, template: { layout: style }, ...(narrow ? spec.layout.meta?.narrow : {}) };
  await Plotly.react(box, resolved([...traces, ...marks], colors), resolved(layout, colors), config);
  if (!figure.linked) link(figure, box);
  mark(figure);
}

function link(figure, box) {
  figure.linked = true;
  const numbers = (event) => (event?.points ?? []).map((point) => point.customdata).filter((n) => n != null);
  box.on("plotly_hover", (event) => hover(numbers(event)[0] ?? null));
  box.on("plotly_unhover", () => hover(null));
  box.on("plotly_click", (event) => numbers(event).slice(0, 1).forEach(togglePin));
  box.on("plotly_selected", (event) => { if (numbers(event).length) pin(numbers(event)); });
  box.on("plotly_deselect", () => pin([]));
}

function mark(figure) {
  if (!figure.linked) return;
  const { first, count, points } = figure.marks;
  const shown = [...page.pinned, ...(page.hovered === null ? [] : [page.hovered])];
  const x = [], y = [];
  for (let place = 0; place < count; place++) {
    x.push(shown.flatMap((number) => points.get(number)?.[place].x ?? []));
    y.push(shown.flatMap((number) => points.get(number)?.[place].y ?? []));
  }
  if (shown.length || figure.marked) {
    Plotly.restyle(figure.querySelector(".live"), { x, y }, x.map((_, place) => first + place));
  }
  figure.marked = shown.length > 0;
}

let waiting = false;
function markAll() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    document.querySelectorAll(".drawn").forEach((figure) => { if (figure.offsetParent) mark(figure); });
    document.querySelectorAll("tr[data-trial]").forEach((row) => {
      const number = Number(row.dataset.trial);
      row.classList.toggle("marked", page.pinned.has(number) || page.hovered === number);
    });
  });
}

function hover(number) { if (page.hovered !== number) { page.hovered = number; markAll(); } }
function pin(numbers) { page.pinned = new Set(numbers); page.onPins.forEach((call) => call()); markAll(); }
function togglePin(number) {
  const pinned = new Set(page.pinned);
  if (!pinned.delete(number)) pinned.add(number);
  pin(pinned);
}

function linkRows(root) {
  root.querySelectorAll("[data-trial]").forEach((row) => {
    const number = Number(row.dataset.trial);
    row.addEventListener("mouseenter", () => hover(number));
    row.addEventListener("mouseleave", () => hover(null));
    row.addEventListener("focusin", () => hover(number));
    row.addEventListener("focusout", () => hover(null));
  });
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "300px" });

async function start(ready, afterwards) {
  document.documentElement.classList.add("scripts");
  page.data = JSON.parse(await unpack("page-data"));
  ready();
  linkRows(document);
  document.head.append(element("script", {}, await unpack("plotly-code")));
  document.querySelectorAll("[data-figure]").forEach((figure) => near.observe(figure));
  dark.addEventListener("change", () => document.querySelectorAll(".drawn").forEach(draw));
  document.documentElement.classList.add("plots-ready");
  afterwards?.();
}
