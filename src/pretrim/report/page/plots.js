"use strict";
// The plots. Each is drawn anew from the state; the chosen network is marked in all of them.

// Colours that people with any colour vision tell apart (Okabe and Ito 2008), and a shape each.
const MODES = new Map(Object.entries({
  dense: ["#7f7f7f", "star"], balanced: ["", "diamond-tall"], params: ["#0072b2", "circle"], macs: ["#d55e00", "square"],
  memory: ["#009e73", "diamond"], latency: ["#cc79a7", "triangle-up"], joint: ["#e69f00", "triangle-down"],
  uniform: ["#56b4e9", "x"], random: ["#999933", "cross"], waterfill: ["#aa4499", "hexagon"],
}));
const TITLES = new Map(Object.entries({ params: "PA (params)", macs: "FA (macs)", memory: "MA (memory)", latency: "LA (latency)" }));
const look = (mode) => {
  const [colour, symbol] = MODES.get(mode) ?? ["#888888", "circle"];
  return [colour || css("--ink"), symbol]; // black on a dark page could not be seen
};
const titleOf = (mode) => escaped(TITLES.get(mode) ?? shortened(mode));
const MOST_LINES = 300; // of the plot of all resources: more could not be told apart
const MOST_NAMES = 40; // of classes or layers on an axis
const isNarrow = () => innerWidth < 640;

const layout = (more) => {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink"), family: "system-ui, sans-serif" },
    // The toolbar has a margin of its own, on the right: it lies on neither the legend nor the points.
    margin: { l: 60, r: isNarrow() ? 12 : 46, t: 16, b: 50 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest",
    hoverlabel: { align: "left" },
    modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
};
// Plotly 7 would upload charts to a cloud of its own, by a button that earlier ones hide. Phones have no room for the
// toolbar; there, two fingers do the same.
const config = () => ({
  displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", displayModeBar: isNarrow() ? false : "hover",
  modeBarButtonsToRemove: ["lasso2d", "select2d"],
});
const draw = (id, traces, settings) => {
  const width = at(id).clientWidth; // said outright: on paper nothing tells the plot that the page became narrower
  return Plotly.react(at(id), traces, layout({ ...settings, width: width || undefined }), config());
};
const clear = (id) => { at(id).hidden = true; };

// ---------------------------------------------------------------------------------- accuracy against a resource

const frontOf = (all) => {
  const sorted = [...all].sort((a, b) => a.x - b.x || worth(a.trial, b.trial));
  let top = -Infinity;
  return sorted.filter((point) => point.trial.worth > top && ((top = point.trial.worth), true));
};
const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
const spread = (list) => (list.length < 2 ? 0 : Math.sqrt(list.reduce((a, b) => a + (b - mean(list)) ** 2, 0) / (list.length - 1)));

const hover = (trial, place) => [
  escaped(named(trial)), `${escaped(resources[place].title)} ${amount(resources[place].unit, trial.costs[place])}`,
  `validation ${score(trial.accuracy)}${trial.interval ? ` (${interval(trial.interval)})` : ""}`,
].join("<br>");

const meanTrace = (mode, own, place, scale) => {
  const groups = new Map();
  own.forEach((t) => groups.set(t.name, [...(groups.get(t.name) ?? []), t]));
  const { unit, title } = resources[place], [colour, symbol] = look(mode);
  const rows = [...groups.values()].map((list) => {
    const xs = list.map((t) => t.costs[place]), ys = list.map((t) => SCALE * t.accuracy);
    return { x: scale * mean(xs), y: mean(ys), ex: scale * spread(xs), ey: spread(ys),
      text: `${escaped(list[0].name)}, n = ${list.length}<br>${escaped(title)} ${amount(unit, mean(xs))}<br>validation ${score(mean(ys) / SCALE)} ± ${score(spread(ys) / SCALE)}` };
  }).sort((a, b) => a.x - b.x);
  return {
    x: rows.map((r) => r.x), y: rows.map((r) => r.y), mode: "lines+markers", name: titleOf(mode), text: rows.map((r) => r.text), hoverinfo: "text",
    error_x: { type: "data", array: rows.map((r) => r.ex), thickness: 1 }, error_y: { type: "data", array: rows.map((r) => r.ey), thickness: 1 },
    line: { color: colour, width: 1, dash: mode === "uniform" ? "dash" : "solid" }, marker: { color: colour, symbol, size: 9 },
  };
};

const pointTraces = (mode, own, place, scale) => {
  const [colour, symbol] = look(mode), grey = css("--grey"), fitting = own.map((t) => fits(t));
  return [{
    x: own.map((t) => scale * t.costs[place]), y: own.map((t) => SCALE * t.accuracy), mode: "markers", name: titleOf(mode),
    showlegend: false, legendgroup: mode, customdata: own.map((t) => t.key), text: own.map((t) => hover(t, place)), hoverinfo: "text",
    marker: { symbol, size: 9, color: fitting.map((fit) => (fit ? colour : grey)), opacity: fitting.map((fit) => (fit ? 0.9 : 0.5)) },
  },
  // The legend would show the first point's colour, grey where that does not fit.
  { x: [null], y: [null], mode: "markers", name: titleOf(mode), legendgroup: mode, marker: { color: colour, symbol, size: 9 } }];
};

const rangeOf = (values, isLog) => {
  const ends = [Math.min(...values), Math.max(...values)].map((v) => (isLog ? Math.log10(v) : v));
  const pad = 0.06 * (ends[1] - ends[0]) || 0.1 * Math.abs(ends[1]) || 1;
  return [ends[0] - pad, ends[1] + pad];
};

// The limit on this axis, or what the recommendation goes by where no limit is set.
const boundary = (place, scale, isLog, xs) => {
  const limit = state.limits[place], accent = css("--accent"), than = reference();
  if (limit !== Infinity) {
    const x = scale * limit;
    const inView = (isLog ? Math.log10(x) : x) <= xs[1];
    if (!inView) return { shapes: [], annotations: [] };
    const right = isLog ? 10 ** xs[1] : xs[1];
    return {
      shapes: [
        { type: "rect", x0: x, x1: right, y0: 0, y1: 1, yref: "paper", fillcolor: accent, opacity: 0.07, line: { width: 0 }, layer: "below" },
        { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: accent, width: 2, dash: "dash" } },
      ],
      annotations: [{
        x: isLog ? Math.log10(x) : x, y: 0, yref: "paper", xanchor: "right", yanchor: "bottom", showarrow: false, font: { color: accent, size: 12 },
        text: `limit ${amount(resources[place].unit, limit)}`,
      }],
    };
  }
  if (isLimited() || !than) return { shapes: [], annotations: [] };
  const y = SCALE * (than.accuracy - (metric.higher_is_better ? 1 : -1) * part(CLOSE, than)), what = isDense(than) ? "dense" : "best";
  return {
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: accent, width: 1.5, dash: "dash" } }],
    annotations: [{ xref: "paper", x: 0, y, xanchor: "left", yanchor: "bottom", showarrow: false, font: { color: accent, size: 12 }, text: `${what} ${metric.higher_is_better ? "−" : "+"} ${POINT}` }],
  };
};

// What was measured says on which machine, in lines that fit a phone.
const axisTitle = (resource, unit) => {
  const title = escaped(resource.title) + (unit && `, ${unit}`), words = escaped(resource.detail).split(/(?<=,) /), lines = [""];
  for (const word of words) {
    if (lines.at(-1).length + word.length > (isNarrow() ? 40 : 90)) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  return resource.detail ? `${title}<br><span style="font-size:12px">${lines.join("<br>")}</span>` : title;
};

const drawTradeoff = () => {
  const place = state.axis, resource = resources[place];
  if (!resource) return;
  const there = trials.filter((t) => t.costs[place] !== null);
  const [scale, unit] = axisOf(resource);
  const front = frontOf(there.map((t) => ({ x: t.costs[place], y: SCALE * t.accuracy, trial: t })));
  const traces = [{
    x: front.map((p) => p.x * scale), y: front.map((p) => p.y), mode: "lines", name: "front", hoverinfo: "skip",
    line: { color: css("--soft"), width: 1.5, dash: "dot", shape: "hv" },
  }];
  for (const mode of new Set(there.map((t) => t.mode))) {
    const own = there.filter((t) => t.mode === mode);
    traces.push(...(state.means ? [meanTrace(mode, own, place, scale)] : pointTraces(mode, own, place, scale)));
  }
  const chosen = shownTrial();
  if (chosen && chosen.costs[place] !== null) {
    traces.push({
      x: [scale * chosen.costs[place]], y: [SCALE * chosen.accuracy], mode: "markers", showlegend: false, hoverinfo: "skip", name: "chosen",
      marker: { symbol: "circle-open", size: 20, color: css("--accent"), line: { width: 3 } },
    });
  }
  const values = there.map((t) => scale * t.costs[place]), isLog = state.logarithmic;
  const isWide = Math.max(...values) > 8 * Math.min(...values); // 1, 2, 5; else those would be one or two
  const xs = rangeOf(values, isLog);
  draw("tradeoff", traces, {
    xaxis: {
      title: { text: axisTitle(resource, unit) }, type: isLog ? "log" : "linear", range: xs, ...(isLog && isWide ? { dtick: "D2" } : {}),
      tickformat: unit ? ",~f" : "~s",
    },
    yaxis: { title: { text: `validation ${escaped(METRIC)}${UNIT}` }, range: rangeOf(there.map((t) => SCALE * t.accuracy), false) },
    ...boundary(place, scale, isLog, xs),
    uirevision: `${resource.name} ${isLog} ${innerWidth}`,
  });
  at("knee").textContent = kneeText(front, resource);
};

const kneeText = (front, resource) => {
  if (front.length < 3) return "";
  const [first, last] = [front[0], front[front.length - 1]];
  const above = front.map((p) => (p.y - first.y) / (last.y - first.y) - (p.x - first.x) / (last.x - first.x));
  const knee = front[above.indexOf(Math.max(...above))];
  return `Knee: after ${named(knee.trial)} (${amount(resource.unit, knee.x)}, ${score(knee.trial.accuracy)}), more ${resource.title} buys the least.`;
};

// ---------------------------------------------------------------------------------- all resources at once

// A vertical axis for each resource that differs: by its logarithm, from the smallest value to the largest.
const parallelAxes = () => {
  const differ = resources.map((_, place) => place).filter((place) => new Set(trials.map((t) => t.costs[place])).size > 1);
  const axes = differ.map((place) => ({
    title: resources[place].title, value: (t) => (t.costs[place] === null ? null : Math.log(t.costs[place])),
    say: (v) => amount(resources[place].unit, Math.exp(v)), limit: state.limits[place] === Infinity ? null : Math.log(state.limits[place]),
  }));
  axes.push({ title: METRIC[0].toUpperCase() + METRIC.slice(1), value: (t) => t.accuracy, say: score, limit: null });
  for (const axis of axes) {
    const values = trials.map(axis.value).filter((v) => v !== null && Number.isFinite(v));
    [axis.low, axis.high] = [Math.min(...values), Math.max(...values)];
    axis.at = (v) => (v === null || !Number.isFinite(v) ? null : axis.high > axis.low ? (v - axis.low) / (axis.high - axis.low) : 0.5);
  }
  return axes;
};

const lineTrace = (axes, own, settings) => {
  const trace = { x: [], y: [], text: [], customdata: [], mode: "lines", showlegend: false, hoverinfo: "text", ...settings };
  for (const trial of own) {
    axes.forEach((axis, n) => {
      const value = axis.value(trial);
      trace.x.push(n);
      trace.y.push(axis.at(value));
      trace.text.push(`${escaped(named(trial))}<br>${escaped(axis.title)} ${value === null ? "-" : axis.say(value)}`);
      trace.customdata.push(trial.key);
    });
    for (const list of [trace.x, trace.y, trace.text, trace.customdata]) list.push(null); // the end of a line
  }
  return trace;
};

const drawParallel = () => {
  const axes = parallelAxes(), grey = css("--grey"), chosen = shownTrial();
  const shown = trials.length > MOST_LINES ? [...trials].sort(worth).slice(0, MOST_LINES) : trials;
  const traces = [lineTrace(axes, shown.filter((t) => !fits(t)), { opacity: 0.3, line: { color: grey, width: 1.2 } })];
  for (const mode of new Set(shown.map((t) => t.mode))) {
    const own = shown.filter((t) => t.mode === mode && fits(t));
    traces.push(lineTrace(axes, own, { opacity: 0.75, line: { color: look(mode)[0], width: 1.3 } }));
  }
  if (chosen) traces.push(lineTrace(axes, [chosen], { line: { color: css("--accent"), width: 5 } }));
  const limits = axes.map((axis, n) => ({ n, y: axis.limit === null ? null : axis.at(axis.limit) })).filter(({ y }) => y !== null && y >= 0 && y <= 1);
  traces.push({
    x: limits.map(({ n }) => n), y: limits.map(({ y }) => y), mode: "markers", showlegend: false, hoverinfo: "skip", name: "limits",
    marker: { symbol: "line-ew-open", size: 26, color: css("--accent"), line: { width: 3, color: css("--accent") } },
  });
  const size = isNarrow() ? 9 : 11;
  const label = (n, y, text, yanchor) => ({
    x: n, y, text, showarrow: false, xanchor: "left", xshift: 3, yanchor,
    font: { size, color: css("--soft") }, bgcolor: css("--paper"), opacity: 0.85,
  });
  draw("parallel", traces, {
    margin: { l: isNarrow() ? 16 : 50, r: isNarrow() ? 42 : 60, t: 16, b: 20 }, // titles that stick out would be left out
    xaxis: {
      tickvals: axes.map((_, n) => n), ticktext: axes.map((axis) => escaped(shortened(axis.title)).replace(/,? (?=\()|, /g, "<br>")), range: [-0.08, axes.length - 0.92],
      showgrid: false, zeroline: false, tickangle: isNarrow() ? -60 : 0, tickfont: { size: size + 1 }, fixedrange: true,
    },
    yaxis: { visible: false, range: [-0.08, 1.08], fixedrange: true },
    shapes: axes.map((_, n) => ({ type: "line", x0: n, x1: n, y0: 0, y1: 1, line: { color: css("--line"), width: 1.5 }, layer: "below" })),
    annotations: axes.flatMap((axis, n) => [
      label(n, 0, axis.say(axis.low), "top"), label(n, 1, axis.say(axis.high), "bottom"),
      ...(axis.high > axis.low && !isNarrow() ? [label(n, 0.5, axis.say((axis.low + axis.high) / 2), "middle")] : []),
    ]),
  });
};

// ---------------------------------------------------------------------------------- one network

// An axis of layers: the ends of their names, which tell them apart, and no more of them than there is room for.
const MOST_LETTERS = 22;
const layerAxis = (layers) => {
  const every = Math.ceil(layers.length / (isNarrow() ? 24 : 64)), shown = layers.map((_, n) => n).filter((n) => n % every === 0);
  const ending = (name) => (name.length > MOST_LETTERS ? `…${name.slice(1 - MOST_LETTERS)}` : name);
  return { tickvals: shown, ticktext: shown.map((n) => escaped(ending(layers[n]))), tickangle: -60, showgrid: false };
};

const drawWidths = (detail) => {
  const network = data.network, known = detail && detail.widths && network;
  at("widths").hidden = !known;
  if (!known) return;
  const groups = network.groups.map(escaped), places = groups.map((_, n) => n);
  const text = network.channels.map((dense, n) => `${groups[n]}<br>${detail.widths[n]} of ${dense} filters`);
  draw("widths", [
    { x: places, y: network.channels, type: "bar", name: "dense", marker: { color: css("--grey") }, text, textposition: "none", hoverinfo: "text" },
    { x: places, y: detail.widths, type: "bar", name: "kept", marker: { color: css("--accent") }, text, textposition: "none", hoverinfo: "text" },
  ], { barmode: "overlay", yaxis: { title: { text: "filters" } }, xaxis: layerAxis(network.groups) });
};

const drawCurve = (detail) => {
  const curve = detail?.curve;
  at("curve").hidden = !curve;
  if (!curve) return;
  const epochs = curve.map((_, n) => n + 1);
  const line = (column, name, colour) => ({
    x: epochs, y: curve.map((row) => (row[column] === null ? null : SCALE * row[column])), mode: "lines+markers", name, line: { color: colour },
    hovertemplate: `epoch %{x}<br>${name} ${escaped(METRIC)} %{y:${metric.is_share ? ".1f} %" : ".3g}"}<extra></extra>`,
  });
  draw("curve", [line(1, "training", "#e69f00"), line(2, "validation", css("--accent"))], {
    xaxis: { title: { text: "epoch" }, dtick: Math.max(1, Math.ceil(epochs.length / 15)) }, yaxis: { title: { text: `${escaped(METRIC)}${UNIT}` } },
  });
};

// Accuracy of each class with its interval, and the confusion matrix, of the test images.
const drawMistakes = (detail) => {
  const classes = detail?.classes, names = (data.network?.classes ?? []).map((name) => escaped(shortened(name)));
  at("mistakes").hidden = !classes;
  at("confusion").hidden = !detail?.confusion;
  if (!classes) return;
  const known = classes.map(([accuracy, images, low, high], n) => ({ n, accuracy, images, low, high })).filter(({ accuracy }) => accuracy !== null);
  // The weakest classes, where there are more than can be named.
  const rows = known.sort((a, b) => a.accuracy - b.accuracy).slice(0, MOST_NAMES).sort((a, b) => a.n - b.n);
  const longest = Math.max(...rows.map(({ n }) => (names[n] ?? "").length));
  const angle = longest > 3 && (rows.length > 6 || isNarrow()) ? -45 : 0;
  draw("classes", [{
    x: rows.map(({ n }) => names[n] ?? String(n)), y: rows.map(({ accuracy }) => 100 * accuracy), type: "bar", marker: { color: css("--accent"), opacity: 0.6 },
    error_y: { type: "data", symmetric: false, array: rows.map((r) => 100 * (r.high - r.accuracy)), arrayminus: rows.map((r) => 100 * (r.accuracy - r.low)), color: css("--ink"), thickness: 1 },
    text: rows.map((r) => `${names[r.n] ?? r.n}<br>${percent(r.accuracy)} (${interval([r.low, r.high])}), n = ${r.images}`), textposition: "none", hoverinfo: "text",
  }], { yaxis: { title: { text: "test accuracy, %" }, range: [0, 100] }, xaxis: { type: "category", tickangle: angle } });
  if (detail.confusion) drawConfusion(detail.confusion, names);
};

const drawConfusion = (counts, names) => {
  const sums = counts.map((row) => row.reduce((a, b) => a + b, 0) || 1);
  const labels = counts.map((_, n) => names[n] ?? String(n)), isFew = counts.length <= 20;
  draw("confusion", [{
    type: "heatmap", z: counts.map((row, n) => row.map((v) => v / sums[n])), zmin: 0, zmax: 1, showscale: false, xgap: 1, ygap: 1,
    colorscale: [[0, css("--tint")], [1, css("--accent")]],
    ...(isFew ? { text: counts.map((row) => row.map(String)), texttemplate: "%{text}", textfont: { size: isNarrow() ? 9 : 11 } } : {}),
    hovertext: counts.map((row, i) => row.map((v, j) => `${v} of ${sums[i]} ${labels[i]}<br>are called ${labels[j]}`)), hoverinfo: "text",
  }], {
    // By place, not by name: two classes may have the same.
    xaxis: { title: { text: "the network says" }, tickvals: labels.map((_, n) => n), ticktext: counts.length <= MOST_NAMES ? labels : labels.map(() => ""), tickangle: -45, showgrid: false, zeroline: false },
    yaxis: { title: { text: "class" }, tickvals: labels.map((_, n) => n), ticktext: counts.length <= MOST_NAMES ? labels : labels.map(() => ""), autorange: "reversed", showgrid: false, zeroline: false },
  });
};

const drawShares = () => {
  const shares = data.network?.shares;
  at("shares-part").hidden = !shares;
  if (!shares) return;
  const layers = data.network.layers.map(escaped), places = layers.map((_, n) => n);
  const traces = Object.entries(shares).map(([mode, values]) => ({
    x: places, y: values.map((v) => 100 * v), type: "bar", name: titleOf(mode), marker: { color: look(mode)[0] },
    text: values.map((v, n) => `${layers[n]}<br>${titleOf(mode)} ${percent(v)}`), textposition: "none", hoverinfo: "text",
  }));
  draw("shares", traces, { barmode: "group", yaxis: { title: { text: "share, %" } }, xaxis: layerAxis(data.network.layers) });
};
