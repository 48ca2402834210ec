// Charts of this page: what Chart.js is told. It is in window.Chart, from the package chartkick.
// Colours are those of page.css, and change with the reader's system.

import { count } from "./words.js";

const AXIS_PX = 46;  // so that charts above one another line up
const made = new Map();  // canvas -> [chart, how it is dressed]

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Draws in a place, or draws again what is there. `dress` gives the whole configuration, in the
// colours of the moment; `summary` is what is read out instead of it.
export function draw(place, summary, dress) {
  if (!window.Chart) return;  // its file did not come; all figures stand as text, too
  const canvas = place.querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", summary);
  const wanted = dress();
  const known = made.get(canvas);
  if (!known) {
    made.set(canvas, [new Chart(canvas, wanted), dress]);
    return;
  }
  const [chart] = known;
  known[1] = dress;
  chart.data = wanted.data;
  chart.options = wanted.options;
  chart.update("none");
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [chart, dress] of made.values()) {
    const wanted = dress();
    [chart.data, chart.options] = [wanted.data, wanted.options];
    chart.update("none");
  }
});

// What all charts have in common: still, quiet, in the page's type.
function options(more) {
  const { plugins = {}, ...rest } = more;
  return {
    animation: false, responsive: true, maintainAspectRatio: false, locale: "en",
    color: colour("dim"), font: font(), events: ["mousemove", "mouseout", "click", "touchstart"],
    ...rest,
    plugins: {
      legend: { display: false }, title: { display: false },
      ...plugins,
      tooltip: { ...tooltip(), ...plugins.tooltip },
    },
  };
}

function font() {
  return { family: getComputedStyle(document.body).fontFamily, size: 12 };
}

function tooltip() {
  return {
    animation: false, backgroundColor: colour("ink"), titleColor: colour("ground"),
    bodyColor: colour("ground"), titleFont: { ...font(), weight: "600" }, bodyFont: font(),
    padding: 8, cornerRadius: 4, displayColors: false,
  };
}

function axis(more = {}) {
  const { ticks = {}, ...rest } = more;
  return {
    border: { display: false }, grid: { color: colour("line"), drawTicks: false, lineWidth: 1 },
    ...rest,
    ticks: { color: colour("dim"), font: font(), padding: 6, ...ticks },
  };
}

function left(more = {}) {
  return axis({ beginAtZero: true, afterFit: (scale) => { scale.width = AXIS_PX; }, ...more });
}

function roundAxis(first, last, isShown = true) {
  return axis({
    type: "linear", offset: false, min: first, max: Math.max(last, first + 1), grid: { display: false },
    ticks: { display: isShown, precision: 0, maxTicksLimit: 8, maxRotation: 0, align: "inner", callback: (value) => count(value) },
  });
}

const ofRound = (items) => (items.length ? `round ${count(items[0].parsed.x)}` : "");

// Lines over rounds. Each: {name, points: [{x, y}], colour, width, dash, dots, band: {low, high}, quiet}.
export function lines(wanted, { first, last, say, top, low, isFloating = false }) {
  const datasets = [];
  for (const one of wanted) {
    const line = {
      label: one.name, data: one.points, borderColor: colour(one.colour), borderWidth: one.width ?? 2,
      borderDash: one.dash ?? [], pointRadius: one.dots ?? 0, pointHitRadius: one.quiet ? 0 : 8,
      pointHoverRadius: one.quiet ? 0 : 4, pointBackgroundColor: colour(one.colour), tension: 0,
      spanGaps: true, isQuiet: one.quiet ?? false, clip: 6,
    };
    datasets.push(line);
    if (!one.band) continue;
    const edge = { ...line, borderWidth: 0, pointRadius: 0, pointHitRadius: 0, pointHoverRadius: 0, isQuiet: true };
    datasets.push({ ...edge, data: one.band.low, fill: false });
    datasets.push({ ...edge, data: one.band.high, fill: "-1", backgroundColor: `${colour(one.colour)}26` });
  }
  return {
    type: "line",
    data: { datasets },
    options: options({
      parsing: true, normalized: false, interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: {
        x: roundAxis(first, last),
        y: left({ beginAtZero: !isFloating, max: top, min: low, ticks: { maxTicksLimit: 5, callback: say } }),
      },
      plugins: {
        tooltip: {
          filter: (item) => !item.dataset.isQuiet,
          callbacks: { title: ofRound, label: (item) => `${item.dataset.label} ${say(item.parsed.y)}` },
        },
      },
    }),
  };
}

// Bars over rounds: [{x, y}].
export function roundBars(points, { first, last, name, width }) {
  return {
    type: "bar",
    data: { datasets: [{ label: name, data: points, backgroundColor: colour("foreign"), barPercentage: 0.85, categoryPercentage: 1, barThickness: width }] },
    options: options({
      parsing: true,
      interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: {
        x: roundAxis(first, last, false),
        y: left({ ticks: { maxTicksLimit: 3, precision: 0 }, suggestedMax: 1 }),
      },
      plugins: { tooltip: { callbacks: { title: ofRound, label: (item) => `${Math.round(item.parsed.y * 10) / 10} groups` } } },
    }),
  };
}

// One bar per name, lying: [[name, value], …].
export function bars(rows, { colours = () => "foreign", unit }) {
  return {
    type: "bar",
    data: {
      labels: rows.map(([name]) => name),
      datasets: [{ data: rows.map(([, value]) => value), backgroundColor: rows.map((row) => colour(colours(row))), barThickness: 12 }],
    },
    options: options({
      indexAxis: "y",
      scales: {
        x: axis({ beginAtZero: true, suggestedMax: 1, ticks: { precision: 0, maxTicksLimit: 5 } }),
        y: axis({ grid: { display: false }, ticks: { autoSkip: false, color: colour("ink") } }),
      },
      plugins: { tooltip: { callbacks: { label: (item) => unit(item.parsed.x) } } },
    }),
  };
}

// Shares of a whole as one lying bar: [[name, share, colour], …].
export function shares(parts, say) {
  return {
    type: "bar",
    data: {
      labels: [""],
      datasets: parts.map(([name, share, look]) => ({ label: name, data: [share], backgroundColor: colour(look), borderColor: colour("ground"), borderWidth: { right: 1 }, borderSkipped: false, barThickness: 14 })),
    },
    options: options({
      indexAxis: "y",
      layout: { padding: 0 },
      scales: {
        x: { display: false, stacked: true, min: 0, max: 1 },
        y: { display: false, stacked: true },
      },
      plugins: { tooltip: { callbacks: { title: () => "", label: (item) => `${item.dataset.label} ${say(item.parsed.x)}` } } },
    }),
  };
}

// A map: this node in the middle and others around it. Each: {x, y, size, look, shape, isHollow,
// isLinked, isDashed, name, tip, label}; `reach` is how far out they are, and `chosen(index)` is called
// when one is clicked.
export function map(places, { chosen, reach }) {
  const dots = places.map(({ x, y }) => ({ x, y }));
  const links = places.filter((one) => one.isLinked);
  const link = (which) => links.filter((one) => Boolean(one.isDashed) === which)
    .flatMap(({ x, y }) => [{ x: 0, y: 0 }, { x, y }, { x: NaN, y: NaN }]);
  const line = { type: "line", borderColor: colour("line"), borderWidth: 1.5, pointRadius: 0, pointHitRadius: 0, spanGaps: false, isQuiet: true, order: 3 };
  return {
    type: "scatter",
    data: {
      datasets: [
        {
          data: dots, order: 1, pointRadius: places.map((one) => one.size), pointHoverRadius: places.map((one) => one.size + 2),
          pointStyle: places.map((one) => one.shape), pointHitRadius: 6,
          pointBackgroundColor: places.map((one) => colour(one.isHollow ? "ground" : one.look)),
          pointBorderColor: places.map((one) => colour(one.look)), pointBorderWidth: places.map((one) => (one.isHollow ? 2 : 1)),
        },
        { data: [{ x: 0, y: 0 }], order: 2, pointRadius: 11, pointHoverRadius: 11, pointBackgroundColor: colour("own"), pointBorderWidth: 0, isQuiet: true },
        { ...line, data: link(false) },
        { ...line, data: link(true), borderDash: [4, 4] },
      ],
    },
    options: options({
      layout: { padding: 4 },
      onClick: (_, found) => { if (found.length && found[0].datasetIndex === 0) chosen(found[0].index); },
      interaction: { mode: "nearest", intersect: true },
      scales: {
        x: { display: false, min: -reach, max: reach },
        y: { display: false, min: -reach, max: reach },
      },
      plugins: {
        tooltip: {
          filter: (item) => !item.dataset.isQuiet,
          callbacks: { title: (items) => (items.length ? places[items[0].dataIndex].name : ""), label: (item) => places[item.dataIndex].tip },
        },
        names: { texts: places.map((one) => one.label) },
      },
    }),
    plugins: [NAMES],
  };
}

// Writes names beside the dots of a map.
const NAMES = {
  id: "names",
  afterDatasetsDraw(chart, _, { texts }) {
    const { ctx } = chart;
    ctx.save();
    ctx.font = `11px ${font().family}`;
    ctx.fillStyle = colour("dim");
    ctx.textBaseline = "middle";
    ctx.textAlign = "center";
    chart.getDatasetMeta(0).data.forEach((dot, index) => {
      if (texts[index]) ctx.fillText(texts[index], dot.x, dot.y + dot.options.radius + 9);
    });
    ctx.fillText("this node", chart.scales.x.getPixelForValue(0), chart.scales.y.getPixelForValue(0) + 21);
    ctx.restore();
  },
};
