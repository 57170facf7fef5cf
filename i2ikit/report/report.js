// The sliders of the grids, and the charts. All data are in <script type="application/json"> of the page.
"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

for (const [n, grid] of read("grids").entries()) {
  const figure = document.getElementById(`grid-${n}`);
  const slider = figure.querySelector("input");
  if (!slider) continue;
  const image = figure.querySelector("img");
  const output = figure.querySelector("output");
  const show = () => {
    image.src = grid.pictures[slider.value];
    output.textContent = `step ${grid.steps[slider.value]}`;
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.addEventListener("input", show);
  show();
}

const HEIGHT = 230;
const number = (value) => {
  if (value == null) return "–";
  const short = Number(value.toPrecision(4));
  const plain = !short || (Math.abs(short) >= 1e-3 && Math.abs(short) < 1e5);
  return plain ? short.toString() : short.toExponential().replace("e+", "e");
};

const WHOLE = Array.from({ length: 30 }, (_, n) => [1, 2, 5][n % 3] * 10 ** Math.floor(n / 3));  // steps between ticks

function options(chart, width) {
  const labels = Object.keys(chart.curves);
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  return {
    width, height: HEIGHT,
    scales: { x: { time: false } },
    cursor: { sync: { key: "steps" }, y: false },
    axes: [
      { ...axis, incrs: WHOLE, values: (_, values) => values.map((value) => value >= 1e4 ? `${value / 1e3}k` : value) },
      { ...axis, size: 62, values: (_, values) => values.map(number) },
    ],
    series: [
      { label: "step", value: (_, step) => step == null ? "–" : String(step) },
      ...labels.map((label, n) => ({
        label, stroke: colour(`curve-${n % 8}`), width: 1.5, dash: n >= 8 ? [6, 3] : undefined,
        value: (_, value) => number(value),
        points: { show: chart.steps.length < 40 },
      })),
    ],
    hooks: {
      draw: [(plot) => mark(plot, chart.best)],
      ready: [showLast],
      setCursor: [(plot) => plot.cursor.idx == null && showLast(plot)],
    },
  };
}

function showLast(plot) {  // the values of the last step, while the pointer is elsewhere
  plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function mark(plot, best) {  // a line at the best validation
  if (best == null) return;
  const x = plot.valToPos(best, "x", true);
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour("good");
  ctx.setLineDash([4, 4]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

const charts = read("charts");
const plots = [];
const places = [...document.querySelectorAll(".chart")];

function draw(n) {
  const chart = charts[n];
  plots[n]?.destroy();
  const data = [chart.steps, ...Object.values(chart.curves)];
  plots[n] = new uPlot(options(chart, places[n].clientWidth), data, places[n]);
}

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const n = places.indexOf(target);
    if (!plots[n]) draw(n);
    else if (plots[n].width !== target.clientWidth) plots[n].setSize({ width: target.clientWidth, height: HEIGHT });
  }
});
places.forEach((place) => sizes.observe(place));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => places.forEach((_, n) => draw(n)));
