"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (kind, text, parent, settings) => {
    const element = document.createElement(kind);
    if (text !== null && text !== undefined) element.textContent = text;
    if (settings) Object.assign(element, settings);
    if (parent) parent.append(element);
    return element;
  };
  // Colours that people with any colour vision tell apart (Okabe and Ito 2008), and a shape each.
  const MODES = {
    dense: ["#7f7f7f", "star"], balanced: ["#000000", "diamond-tall"], params: ["#0072b2", "circle"], macs: ["#d55e00", "square"], memory: ["#009e73", "diamond"],
    latency: ["#cc79a7", "triangle-up"], joint: ["#e69f00", "triangle-down"], uniform: ["#56b4e9", "x"],
    random: ["#999933", "cross"], waterfill: ["#882255", "hexagon"],
  };
  const TITLES = { params: "PA (params)", macs: "FA (macs)", memory: "MA (memory)", latency: "LA (latency)" };
  const resources = data.resources, trials = data.trials;
  const limits = resources.map(() => Infinity);
  let chosen = null, touched = false, order = { column: "accuracy", down: true }, best = null;

  // ------------------------------------------------------------------------------------ numbers

  const prefixed = (value, base, prefixes, unit) => {
    let place = 0;
    while (place < prefixes.length - 1 && Math.abs(value) / base ** place >= base) place += 1;
    const scaled = value / base ** place;
    const digits = place === 0 || scaled >= 100 ? scaled.toFixed(0) : scaled.toPrecision(3);
    return `${digits} ${prefixes[place]}${unit}`.trim();
  };
  const amount = (unit, value) => {
    if (value === null || value === undefined) return "-";
    if (unit === "B") return prefixed(value, 1024, ["", "Ki", "Mi", "Gi"], "B");
    if (unit === "s") return value < 1 ? `${(1e3 * value).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
    return prefixed(value, 1000, ["", "k", "M", "G"], "");
  };
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const sureness = (ends, images) => (ends
    ? ` (95 %: ${(100 * ends[0]).toFixed(1)} to ${percent(ends[1])}${images ? `, n = ${images.toLocaleString("en")}` : ""})` : "");
  const named = (trial) => `${trial.name}, seed ${trial.seed}`;

  // ------------------------------------------------------------------------------------ choosing

  const fits = (trial, skip) =>
    limits.every((limit, place) => place === skip || limit === Infinity
      || (trial.takes[place] !== null && trial.takes[place] <= limit));
  const worth = (a, b) => b.accuracy - a.accuracy || (a.takes[1] ?? 0) - (b.takes[1] ?? 0);

  // The second network minus the first on the same validation images, as Python compared them (McNemar's test).
  const pair = (first, second) => {
    const there = (data.pairs[first.key] ?? {})[second.key];
    if (there) return there;
    const turned = (data.pairs[second.key] ?? {})[first.key];
    return turned ? [-turned[0], -turned[2], -turned[1], turned[3]] : null;
  };
  const LEVEL = 0.05;
  const points = (share) => `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)}`;
  const against = (first, second) => {
    const found = pair(first, second);
    if (!found) return "";
    const [difference, low, high, p] = found;
    const said = `${points(difference)} points (95 %: ${points(low)} to ${points(high)}) on the same images, McNemar p = ${p.toPrecision(2)}`;
    return p < LEVEL ? said : `${said}: cannot be told apart`;
  };
  const unsure = (first, second) => {
    const found = pair(first, second);
    return found && found[3] >= LEVEL ? ` (McNemar p = ${found[3].toPrecision(2)}: cannot be told apart)` : "";
  };

  const recommend = () => {
    const inside = trials.filter((trial) => fits(trial)).sort(worth);
    best = inside[0] ?? null;
    const box = at("answer");
    box.replaceChildren();
    if (!trials.length) {
      make("p", "No trial is done yet.", box);
      return;
    }
    if (!best) {
      make("strong", "Nothing fits.", box);
      const list = make("ul", null, box);
      limits.forEach((limit, place) => {
        if (limit === Infinity) return;
        const beyond = trials.filter((t) => fits(t, place) && t.takes[place] !== null);
        if (beyond.length) {
          const needed = Math.min(...beyond.map((t) => t.takes[place]));
          make("li", `It would with ${resources[place].title} of ${amount(resources[place].unit, needed)}.`, list);
        }
      });
      return;
    }
    make("strong", `${named(best)}: ${percent(best.accuracy)} validation${sureness(best.interval, best.images)}`, box);
    const takes = resources.map((r, place) => `${r.title} ${amount(r.unit, best.takes[place])}`).join(", ");
    make("p", `${takes}. Test accuracy ${percent(best.test)}${sureness(best.testInterval)}. ${inside.length} of ${trials.length} networks fit.`, box, { className: "hint" });
    if (inside.length > 1) {
      const said = against(inside[1], best);
      if (said) make("p", `Against the next best, ${named(inside[1])}: ${said}.`, box, { className: "hint" });
    }
    const list = make("ul", null, box);
    limits.forEach((limit, place) => {
      if (limit === Infinity) return;
      const better = trials.filter((t) => fits(t, place) && t.takes[place] > limit && t.accuracy >= best.accuracy + 0.001);
      if (!better.length) return;
      const least = better.reduce((a, b) => (b.takes[place] < a.takes[place] ? b : a));
      const gain = (100 * (least.accuracy - best.accuracy)).toFixed(1);
      make("li", `+${gain} points for +${amount(resources[place].unit, least.takes[place] - limit)} ${resources[place].title}: ${named(least)}${unsure(best, least)}`, list);
    });
  };

  const buildLimits = () => {
    resources.forEach((resource, place) => {
      const values = trials.map((t) => t.takes[place]).filter((v) => v !== null).sort((a, b) => a - b);
      const steps = [...new Set(values)];
      if (steps.length < 2) return;
      const box = make("div", null, at("limits"), { className: "limit" });
      const label = make("label", resource.title, box, { htmlFor: `limit-${resource.name}` });
      const shown = make("output", "no limit", label);
      const slider = make("input", null, box, { type: "range", id: `limit-${resource.name}`, min: 0, max: steps.length, value: steps.length });
      slider.addEventListener("input", () => {
        const step = Number(slider.value);
        limits[place] = step === steps.length ? Infinity : steps[step];
        shown.textContent = limits[place] === Infinity ? "no limit" : `≤ ${amount(resource.unit, limits[place])}`;
        slider.setAttribute("aria-valuetext", shown.textContent);
        update();
      });
    });
  };

  // ------------------------------------------------------------------------------------ plots

  const layout = (more) => {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink"), family: "system-ui, sans-serif" },
      margin: { l: 60, r: 16, t: 16, b: 50 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  };
  // Plotly 7 would upload charts to a cloud of its own, by a button that earlier ones hide.
  const config = {
    displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["lasso2d", "select2d"],
  };
  const draw = (id, traces, settings) => Plotly.react(at(id), traces, layout(settings), config);

  const frontOf = (points) => {
    const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
    let top = -Infinity;
    return sorted.filter((point) => point.y > top && ((top = point.y), true));
  };

  const drawTradeoff = () => {
    const place = at("resource").selectedIndex, resource = resources[place];
    if (!resource) {
      draw("tradeoff", [], { xaxis: { visible: false }, yaxis: { visible: false } });
      return;
    }
    const there = trials.filter((t) => t.takes[place] !== null);
    const point = (t) => ({ x: t.takes[place], y: 100 * t.accuracy, trial: t });
    const front = frontOf(there.map(point));
    const [scale, suffix] = { s: [1e3, ", ms"], B: [1 / 1024, ", KiB"] }[resource.unit] ?? [1, ""];
    const traces = [{
      x: front.map((p) => p.x * scale), y: front.map((p) => p.y), mode: "lines", name: "front", hoverinfo: "skip",
      line: { color: css("--ink"), width: 1.5, dash: "dot", shape: "hv" },
    }];
    for (const mode of new Set(there.map((t) => t.mode))) {
      const [colour, symbol] = MODES[mode] ?? ["#888888", "circle"];
      const own = there.filter((t) => t.mode === mode);
      if (at("means").checked) {
        const groups = new Map();
        own.forEach((t) => groups.set(t.name, [...(groups.get(t.name) ?? []), t]));
        const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
        const spread = (list) => (list.length < 2 ? 0 : Math.sqrt(list.reduce((a, b) => a + (b - mean(list)) ** 2, 0) / (list.length - 1)));
        const rows = [...groups.values()].map((list) => {
          const xs = list.map((t) => scale * t.takes[place]), ys = list.map((t) => 100 * t.accuracy);
          return { x: mean(xs), y: mean(ys), ex: spread(xs), ey: spread(ys), n: list.length, name: list[0].name };
        }).sort((a, b) => a.x - b.x);
        traces.push({
          x: rows.map((r) => r.x), y: rows.map((r) => r.y), mode: "lines+markers", name: TITLES[mode] ?? mode,
          text: rows.map((r) => `${r.name}, n = ${r.n}`), hovertemplate: "%{text}<br>%{y:.1f} %<extra></extra>",
          error_x: { type: "data", array: rows.map((r) => r.ex), thickness: 1 }, error_y: { type: "data", array: rows.map((r) => r.ey), thickness: 1 },
          line: { color: colour, width: 1, dash: mode === "uniform" ? "dash" : "solid" }, marker: { color: colour, symbol, size: 9 },
        });
        continue;
      }
      traces.push({
        x: own.map((t) => scale * t.takes[place]), y: own.map((t) => 100 * t.accuracy), mode: "markers", name: TITLES[mode] ?? mode,
        showlegend: false, customdata: own.map((t) => t.key), text: own.map(plain), hovertemplate: "%{text}<br>%{y:.1f} %<extra></extra>",
        marker: {
          symbol, size: own.map((t) => (t.key === chosen ? 15 : 9)), color: own.map((t) => (fits(t) ? colour : css("--grey"))),
          opacity: own.map((t) => (fits(t) ? 0.9 : 0.5)), line: { width: own.map((t) => (t.key === chosen ? 3 : 0)), color: css("--ink") },
        },
        legendgroup: mode,
      });
      // The legend would show the first point's colour and size, grey where that does not fit.
      traces.push({ x: [null], y: [null], mode: "markers", name: TITLES[mode] ?? mode, legendgroup: mode, marker: { color: colour, symbol, size: 9 } });
    }
    const values = there.map((t) => t.takes[place]);
    const isWide = Math.max(...values) > 8 * Math.min(...values); // 1, 2, 5; else those would be one or two
    const ticks = at("logarithmic").checked ? { type: "log", ...(isWide ? { dtick: "D2" } : {}) } : { type: "linear" };
    draw("tradeoff", traces, {
      xaxis: { title: { text: resource.title + suffix }, ...ticks, tickformat: resource.unit ? ",~f" : "~s" },
      yaxis: { title: { text: "validation accuracy, %" } },
    });
    at("knee").textContent = kneeText(front, resource);
  };
  // Plotly reads a little markup in texts: names must stay what they are.
  const plain = (t) => escaped(named(t));
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const kneeText = (front, resource) => {
    if (front.length < 3) return "";
    const [first, last] = [front[0], front[front.length - 1]];
    const above = front.map((p) => (p.y - first.y) / (last.y - first.y) - (p.x - first.x) / (last.x - first.x));
    const knee = front[above.indexOf(Math.max(...above))];
    return `Knee: after ${named(knee.trial)} (${amount(resource.unit, knee.x)}, ${knee.y.toFixed(1)} %), more ${resource.title} buys the least.`;
  };

  const drawParallel = () => {
    const used = resources.map((_, place) => place).filter((place) => new Set(trials.map((t) => t.takes[place])).size > 1);
    const shown = trials.length > 300 ? [...trials].sort(worth).slice(0, 300) : trials;
    const accuracies = trials.map((t) => t.accuracy);
    const range = (values, value) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return high > low ? (value - low) / (high - low) : 0.5;
    };
    const logs = used.map((place) => trials.filter((t) => t.takes[place] !== null).map((t) => Math.log(t.takes[place])));
    const titles = [...used.map((place) => resources[place].title), "Accuracy"].map(escaped);
    const traces = shown.map((t) => {
      const [colour] = MODES[t.mode] ?? ["#888888"];
      const ys = used.map((place, n) => (t.takes[place] === null ? null : range(logs[n], Math.log(t.takes[place]))));
      return {
        x: titles, y: [...ys, range(accuracies, t.accuracy)], mode: "lines", showlegend: false, text: plain(t), hoverinfo: "text",
        opacity: fits(t) ? 0.8 : 0.15, line: { color: fits(t) ? colour : css("--grey"), width: t.key === chosen ? 5 : 1.2 },
      };
    });
    draw("parallel", traces, { yaxis: { showticklabels: false, title: { text: "low → high" } }, xaxis: { type: "category" } });
  };

  const drawChosen = () => {
    const trial = trials.find((t) => t.key === chosen);
    at("chosen").textContent = trial
      ? `${named(trial)}: validation ${percent(trial.accuracy)}${sureness(trial.interval, trial.images)}. Its run: trials/${trial.key}` : "No network is chosen.";
    const detail = trial ? data.details[trial.key] : null, network = data.network;
    const empty = (id, text) => draw(id, [], { annotations: [{ text, showarrow: false }], xaxis: { visible: false }, yaxis: { visible: false } });
    if (detail && detail.widths && network) {
      const groups = network.groups.map(escaped);
      draw("widths", [
        { x: groups, y: network.channels, type: "bar", name: "dense", marker: { color: css("--grey") } },
        { x: groups, y: detail.widths, type: "bar", name: "kept", marker: { color: css("--accent") } },
      ], { barmode: "overlay", yaxis: { title: { text: "filters" } }, xaxis: { tickangle: -60, type: "category" } });
    } else empty("widths", "no widths in this page");
    if (detail && detail.curve) {
      const epochs = detail.curve.map((_, n) => n + 1);
      const line = (column, name, colour) => ({ x: epochs, y: detail.curve.map((row) => (row[column] === null ? null : 100 * row[column])), mode: "lines+markers", name, line: { color: colour } });
      draw("curve", [line(1, "training", "#e69f00"), line(2, "validation", "#0072b2")], {
        xaxis: { title: { text: "epoch" }, dtick: Math.max(1, Math.ceil(epochs.length / 15)) }, yaxis: { title: { text: "accuracy, %" } },
      });
    } else empty("curve", "no training curve in this page");
  };

  const drawShares = () => {
    if (!data.network) return;
    const layers = data.network.layers.map(escaped);
    const traces = Object.entries(data.network.shares).map(([mode, values]) => ({
      x: layers, y: values.map((v) => 100 * v), type: "bar", name: TITLES[mode] ?? escaped(mode), marker: { color: (MODES[mode] ?? ["#888888"])[0] },
    }));
    draw("shares", traces, { barmode: "group", yaxis: { title: { text: "share, %" } }, xaxis: { tickangle: -60, type: "category" } });
  };

  // ------------------------------------------------------------------------------------ table

  const columns = [
    { id: "name", title: "network", value: (t) => t.name, show: (t) => t.name },
    { id: "seed", title: "seed", value: (t) => t.seed, show: (t) => String(t.seed) },
    { id: "accuracy", title: "validation", value: (t) => t.accuracy, show: (t) => percent(t.accuracy) + sureness(t.interval) },
    ...resources.map((resource, place) => ({
      id: resource.name, title: resource.title, value: (t) => t.takes[place], show: (t) => amount(resource.unit, t.takes[place]),
    })),
  ];
  const MOST_ROWS = 500;

  const sorted = () => {
    const column = columns.find((c) => c.id === order.column);
    const compare = (a, b) => (a === null) - (b === null) || (typeof a === "string" ? a.localeCompare(b) : a - b);
    return [...trials].sort((a, b) => (order.down ? -1 : 1) * compare(column.value(a), column.value(b)));
  };

  const drawTable = () => {
    const head = at("table").tHead, body = at("table").tBodies[0];
    head.replaceChildren();
    const row = make("tr", null, head);
    columns.forEach((column) => {
      const active = order.column === column.id;
      const cell = make("th", null, row, { scope: "col" });
      cell.setAttribute("aria-sort", active ? (order.down ? "descending" : "ascending") : "none");
      const button = make("button", column.title + (active ? (order.down ? " ↓" : " ↑") : ""), cell, { type: "button" });
      button.dataset.column = column.id;
      button.addEventListener("click", () => {
        order = { column: column.id, down: active ? !order.down : column.id === "accuracy" };
        drawTable();
        at("table").querySelector(`button[data-column="${column.id}"]`).focus();
      });
    });
    body.replaceChildren();
    const rows = sorted();
    rows.slice(0, MOST_ROWS).forEach((trial) => {
      const line = make("tr", null, body, { tabIndex: 0 });
      line.classList.toggle("out", !fits(trial));
      line.classList.toggle("chosen", trial.key === chosen);
      columns.forEach((column) => make("td", column.show(trial), line));
      const pick = () => choose(trial.key);
      line.addEventListener("click", pick);
      line.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } });
    });
    at("rows").textContent = rows.length > MOST_ROWS ? `${MOST_ROWS} of ${rows.length} rows; the CSV has all` : `${rows.length} rows`;
  };

  // A cell that a spreadsheet would take for a formula gets an apostrophe (CWE-1236).
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const csv = () => {
    const head = ["key", "name", "mode", "keep", "seed", ...resources.map((r) => (r.unit ? `${r.name}_${r.unit}` : r.name)), "validation_accuracy", "validation_low_95", "validation_high_95"];
    const lines = sorted().map((t) => [t.key, t.name, t.mode, t.keep, t.seed, ...t.takes, t.accuracy, ...(t.interval ?? [null, null])]);
    return [head, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  };

  // ------------------------------------------------------------------------------------ together

  const choose = (key) => {
    chosen = key;
    touched = true;
    drawTradeoff(); drawParallel(); drawChosen(); drawTable();
  };
  const update = () => {
    recommend();
    if (!touched || !trials.some((t) => t.key === chosen && fits(t))) { chosen = best ? best.key : null; touched = false; }
    drawTradeoff(); drawParallel(); drawChosen(); drawTable();
  };

  const network = data.network, counts = data.counts;
  at("title").textContent = `${data.study}: what does accuracy cost?`;
  const about = network ? `${network.model} on ${network.data}, images of ${network.input_shape.join("×")}, ${network.classes.length} classes. ` : "";
  const others = ["running", "waiting", "failed", "stopped"].filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`);
  at("about").textContent = `${about}${counts.done} trials done${others.length ? `, ${others.join(", ")}` : ""}.`;
  resources.forEach((resource) => make("option", resource.title, at("resource"), { value: resource.name }));
  const start = resources.findIndex((r) => r.name === "macs");
  if (start >= 0) at("resource").selectedIndex = start;
  at("resource").addEventListener("change", drawTradeoff);
  at("means").addEventListener("change", drawTradeoff);
  at("logarithmic").addEventListener("change", drawTradeoff);
  at("csv").addEventListener("click", () => {
    const link = make("a", null, document.body, { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "study.csv" });
    link.click();
    link.remove();
  });
  if (data.failed.length) {
    make("h3", "Failed", at("failed"));
    const list = make("ul", null, at("failed"));
    data.failed.forEach((one) => make("li", `${one.name}, seed ${one.seed}: ${one.error}`, list));
  }
  buildLimits();
  update();
  drawShares();
  at("tradeoff").on("plotly_click", (event) => { const key = event.points[0].customdata; if (key) choose(key); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { update(); drawShares(); });
})();
