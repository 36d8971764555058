// All plots. The colours are those of Okabe and Ito, which the colour-blind tell apart.

const COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98"];
const MOST_PARAMETERS = 12;
const MOST_CATEGORIES = 30;
const FEW = 12;
const SEED = /(^|[._-])seed$/i;
const brushes = new Map(); // column -> ranges of positions on its axis

function columnsOf(space) {
  return DATA.columns.map((column, index) => ({ ...column, index })).filter((column) => column.space === space);
}

function startPlots() {
  const metrics = columnsOf("value").filter((column) => column.numeric);
  fillSelect("metric", metrics, drawMetrics);
  fillSelect("curve", DATA.curveNames.map((name) => ({ name, index: name })), drawCurves);
  byId("metrics").hidden = !metrics.length || !parameters().length;
  byId("curves").hidden = !DATA.curves.length;
  byId("timeline").hidden = !DATA.records.some((record) => record.started);
  drawParallel();
}

function fillSelect(id, options, draw) {
  byId(id).append(...options.map(({ name, index }) => element("option", { value: index }, name)));
  byId(id).addEventListener("change", draw);
}

/** The swept parameters, without those that name each task differently. */
function parameters() {
  return columnsOf("config").slice(0, MOST_PARAMETERS);
}

function drawPlots() {
  drawParallel();
  drawChosen();
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(changes = {}) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--text"), family: "system-ui, Liberation Sans, sans-serif", size: 12 },
    colorway: COLORS,
    margin: { l: 56, r: 20, t: 44, b: 48 },
    height: 320,
    hovermode: "closest",
    showlegend: false,
    ...changes,
    xaxis: { ...axis, ...changes.xaxis },
    yaxis: { ...axis, ...changes.yaxis },
  };
}

function plot(target, traces, changes) {
  const config = { displaylogo: false, responsive: true, displayModeBar: false };
  Plotly.react(target, traces, layout(changes), config);
}

/** Names reach the plots without the few tags that these understand. */
function plain(value) {
  return cellText(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function numbersOf(rows, index) {
  return rows.map((row) => DATA.rows[row][index]).filter((cell) => typeof cell === "number");
}

/** A logarithmic axis where positive values span more than two decades. */
function axisType(values) {
  const [least, most] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return least > 0 && most / least > 100 ? "log" : "linear";
}

function kindsOf(rows, index) {
  return [...new Set(rows.map((row) => cellText(DATA.rows[row][index])))];
}

// each metric against each parameter

function drawMetrics() {
  if (byId("metrics").hidden) return;
  const metric = { ...DATA.columns[byId("metric").value], index: Number(byId("metric").value) };
  const rows = state.rows.filter((row) => typeof DATA.rows[row][metric.index] === "number");
  byId("plots").querySelectorAll(".plot").forEach((box) => Plotly.purge(box));
  byId("plots").replaceChildren();
  parameters().forEach((parameter) => drawOne((box) => drawMetric(box, metric, parameter, rows)));
  const pair = pairForMap(rows);
  if (pair) drawOne((box) => drawMap(box, metric, pair, rows));
}

function drawOne(draw) {
  const box = element("div", { className: "plot" });
  byId("plots").append(box);
  draw(box);
}

function drawMetric(box, metric, parameter, rows) {
  const title = { text: `${plain(metric.name)} by ${plain(parameter.name)}`, font: { size: 13 }, x: 0.02, xanchor: "left" };
  const yaxis = { type: axisType(numbersOf(rows, metric.index)) };
  if (!parameter.numeric) {
    plot(box, boxes(metric, parameter, rows), { title, yaxis, xaxis: { type: "category" } });
    return;
  }
  const hasSeeds = DATA.columns.some((column) => column.space === "config" && SEED.test(column.name));
  const kinds = kindsOf(rows, parameter.index).length;
  const isLine = hasSeeds && !SEED.test(parameter.name) && kinds > 1 && kinds <= MOST_CATEGORIES && kinds < rows.length;
  const points = scatter(metric, parameter, rows);
  const traces = isLine ? [...spread(metric, parameter, rows), points] : [points];
  plot(box, traces, { title, yaxis, xaxis: { type: axisType(numbersOf(rows, parameter.index)) } });
  box.on("plotly_click", (event) => {
    const row = event.points[0]?.customdata;
    if (typeof row === "number") openDetails(row);
  });
}

function scatter(metric, parameter, rows) {
  const there = rows.filter((row) => typeof DATA.rows[row][parameter.index] === "number");
  return {
    type: "scatter",
    mode: "markers",
    x: there.map((row) => DATA.rows[row][parameter.index]),
    y: there.map((row) => DATA.rows[row][metric.index]),
    customdata: there,
    text: there.map((row) => plain(DATA.records[row].overrides || DATA.records[row].uid)),
    hovertemplate: "%{text}<br>%{y}<extra></extra>",
    marker: { color: COLORS[0], size: 7, opacity: 0.65 },
  };
}

/** The mean over what repeats, and one standard deviation to each side. */
function spread(metric, parameter, rows) {
  const groups = new Map();
  for (const row of rows) {
    const x = DATA.rows[row][parameter.index];
    if (typeof x === "number") groups.set(x, [...(groups.get(x) ?? []), DATA.rows[row][metric.index]]);
  }
  const x = [...groups.keys()].sort((a, b) => a - b);
  const means = x.map((key) => mean(groups.get(key)));
  const deviations = x.map((key) => deviation(groups.get(key)));
  const band = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip" };
  return [
    { ...band, y: means.map((value, index) => value - deviations[index]) },
    { ...band, y: means.map((value, index) => value + deviations[index]), fill: "tonexty", fillcolor: "rgba(230,159,0,.22)" },
    { type: "scatter", mode: "lines", x, y: means, name: "mean", line: { color: COLORS[1], width: 2 } },
  ];
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
}

function boxes(metric, parameter, rows) {
  return kindsOf(rows, parameter.index).slice(0, MOST_CATEGORIES).map((kind, index) => {
    const own = rows.filter((row) => cellText(DATA.rows[row][parameter.index]) === kind);
    return {
      type: "box",
      y: own.map((row) => DATA.rows[row][metric.index]),
      x: own.map(() => plain(kind || "(none)").slice(0, 40)),
      name: plain(kind).slice(0, 40),
      boxpoints: own.length <= 100 ? "all" : "outliers",
      marker: { color: COLORS[index % COLORS.length], size: 4, opacity: 0.7 },
      line: { width: 1.5 },
    };
  });
}

/** Two parameters of few values each, seeds only if there is nothing else. */
function pairForMap(rows) {
  const few = parameters().filter(({ index }) => {
    const kinds = kindsOf(rows, index).length;
    return kinds > 1 && kinds <= FEW;
  });
  const pair = [...few.filter(({ name }) => !SEED.test(name)), ...few.filter(({ name }) => SEED.test(name))].slice(0, 2);
  return pair.length === 2 ? pair : null;
}

function drawMap(box, metric, [first, second], rows) {
  const ordered = (index) => kindsOf(rows, index).sort((a, b) => (isNumber(a) && isNumber(b) ? a - b : a.localeCompare(b)));
  const [x, y] = [ordered(first.index), ordered(second.index)];
  const cells = new Map();
  for (const row of rows) {
    const key = JSON.stringify([cellText(DATA.rows[row][first.index]), cellText(DATA.rows[row][second.index])]);
    cells.set(key, [...(cells.get(key) ?? []), DATA.rows[row][metric.index]]);
  }
  const at = (b, a) => (cells.has(JSON.stringify([a, b])) ? mean(cells.get(JSON.stringify([a, b]))) : null);
  const z = y.map((b) => x.map((a) => at(b, a)));
  const trace = { type: "heatmap", x: x.map(plain), y: y.map(plain), z, colorscale: "Cividis", xgap: 2, ygap: 2 };
  trace.colorbar = { thickness: 10, outlinewidth: 0 };
  const title = { text: `mean ${plain(metric.name)}`, font: { size: 13 }, x: 0.02, xanchor: "left" };
  const named = (name) => ({ type: "category", title: { text: plain(name) } });
  plot(box, [trace], { title, xaxis: named(first.name), yaxis: named(second.name) });
}

// parallel coordinates, whose ranges choose tasks

function axes() {
  const metrics = columnsOf("value").filter((column) => column.numeric);
  return [...parameters().slice(0, 9), ...metrics.slice(0, 4)].map(toAxis).filter((axis) => axis.values.length > 1);
}

function toAxis(column) {
  const cells = DATA.rows.map((row) => row[column.index]);
  if (!column.numeric) {
    const values = [...new Set(cells.map(cellText))].slice(0, MOST_CATEGORIES);
    return { column, values, position: (cell) => Math.max(0, values.indexOf(cellText(cell))) };
  }
  const values = [...new Set(cells.filter((cell) => typeof cell === "number"))];
  const isLog = axisType(values) === "log";
  return { column, values, isLog, position: (cell) => (typeof cell === "number" ? (isLog ? Math.log10(cell) : cell) : NaN) };
}

function toDimension(axis, rows) {
  const { column, values, isLog, position } = axis;
  const dimension = { label: plain(column.name).slice(0, 24), values: rows.map((row) => position(row[column.index])) };
  if (brushes.has(column.index)) dimension.constraintrange = brushes.get(column.index).ranges;
  const ticks = column.numeric ? (isLog || values.length <= FEW ? values.slice().sort((a, b) => a - b) : null) : values;
  if (ticks) {
    const few = ticks.length <= FEW ? ticks : ticks.filter((_, index) => index % Math.ceil(ticks.length / FEW) === 0);
    dimension.tickvals = few.map(position);
    dimension.ticktext = few.map((value) => (column.numeric ? shortText(value) : value).slice(0, 18));
  }
  return dimension;
}

function drawParallel() {
  const shown = axes();
  // a line needs a place on each axis: a task without a value has none
  const rows = DATA.rows.filter((row) => shown.every(({ column, position }) => !Number.isNaN(position(row[column.index]))));
  const isDrawn = shown.length > 1 && rows.length > 0;
  byId("overview").hidden = !isDrawn;
  if (!isDrawn) return;
  const missing = DATA.rows.length - rows.length;
  byId("undrawn").textContent = missing ? `${missing} of ${DATA.rows.length} tasks lack a value, and are not drawn.` : "";
  const metric = shown.findLast((axis) => axis.column.space === "value" && axis.column.numeric);
  const dimensions = shown.map((axis) => toDimension(axis, rows));
  const color = metric ? dimensions[shown.indexOf(metric)].values : 0;
  const unselected = { line: { color: css("--line"), opacity: 0.3 } };
  const colorscale = theme() === "dark" ? [[0, "#56b4e9"], [1, "#ffe08a"]] : "Cividis";
  const trace = { type: "parcoords", dimensions, line: { color, colorscale }, unselected };
  const box = byId("parallel");
  const frame = { margin: { l: 80, r: 80, t: 56, b: 28 }, height: 340 };
  Plotly.newPlot(box, [trace], layout(frame), { displayModeBar: false, responsive: true });
  box.removeAllListeners("plotly_restyle");
  box.on("plotly_restyle", () => readBrushes(box, shown));
}

function readBrushes(box, shown) {
  brushes.clear();
  box.data[0].dimensions.forEach((dimension, index) => {
    const range = dimension.constraintrange;
    if (!range?.length) return;
    const ranges = Array.isArray(range[0]) ? range : [range];
    brushes.set(shown[index].column.index, { ranges, position: shown[index].position });
  });
  update();
}

function clearBrushes() {
  brushes.clear();
  drawParallel();
}

function passesBrushes(row) {
  return [...brushes].every(([index, { ranges, position }]) => {
    const value = position(DATA.rows[row][index]);
    return ranges.some(([least, most]) => value >= least && value <= most);
  });
}

// curves, and jobs by node

function drawCurves() {
  if (byId("curves").hidden) return;
  const chosen = new Set(state.rows);
  const name = byId("curve").value;
  const shown = DATA.curves.filter((curve) => curve.name === name && chosen.has(curve.row));
  const traces = shown.slice(0, 300).map((curve, index) => ({
    type: "scatter",
    mode: "lines",
    x: curve.x,
    y: curve.y,
    line: { width: 1.5, color: COLORS[index % COLORS.length] },
    opacity: shown.length > 12 ? 0.55 : 0.9,
    text: plain(DATA.records[curve.row].overrides || DATA.records[curve.row].uid),
    hovertemplate: "%{text}<br>%{x}: %{y}<extra></extra>",
  }));
  const type = axisType(shown.flatMap((curve) => curve.y).filter((value) => typeof value === "number"));
  const axis = shown[0]?.axis ?? "";
  plot(byId("lines"), traces, { xaxis: { title: { text: plain(axis) } }, yaxis: { type }, margin: { l: 56, r: 20, t: 20, b: 48 } });
}

function drawTimeline() {
  if (byId("timeline").hidden) return;
  const rows = state.rows.filter((row) => DATA.records[row].started);
  const statuses = [...new Set(rows.map((row) => DATA.records[row].status))];
  const hosts = new Set(rows.map((row) => DATA.records[row].host));
  const traces = statuses.map((status, index) => {
    const own = rows.map((row) => DATA.records[row]).filter((record) => record.status === status);
    return {
      type: "bar",
      orientation: "h",
      name: status,
      base: own.map((record) => record.started),
      x: own.map((record) => Math.max(1, (record.ended ?? DATA.now) - record.started)),
      y: own.map((record) => plain(record.host ?? "unknown")),
      text: own.map((record) => plain(record.overrides || record.uid)),
      textposition: "none",
      hovertemplate: "%{text}<extra>%{y}</extra>",
      marker: { color: status === "failed" ? COLORS[5] : COLORS[index % 5], opacity: 0.6 },
    };
  });
  const height = Math.min(900, 130 + 34 * hosts.size);
  const changes = { barmode: "overlay", showlegend: statuses.length > 1, height, legend: { orientation: "h", y: 1.15 } };
  plot(byId("bars"), traces, { ...changes, xaxis: { type: "date" }, yaxis: { type: "category" }, margin: { l: 80, r: 20, t: 40, b: 40 } });
}
