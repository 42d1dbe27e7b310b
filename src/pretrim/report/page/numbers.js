"use strict";
// What every part of the page reads: the data, elements, and amounts as people write and read them.

const data = JSON.parse(document.getElementById("data").textContent);
const resources = data.resources, names = data.trials.columns;
const trials = data.trials.rows.map((row) => Object.fromEntries(names.map((name, place) => [name, row[place]])));
const byKey = new Map(trials.map((trial) => [trial.key, trial]));
const at = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (kind, text, parent, settings) => {
  const element = document.createElement(kind);
  if (text !== null && text !== undefined) element.textContent = text;
  if (settings) Object.assign(element, settings);
  if (parent) parent.append(element);
  return element;
};

const prefixed = (value, base, prefixes, unit) => {
  let place = 0;
  while (place < prefixes.length - 1 && Math.abs(value) / base ** place >= base) place += 1;
  const scaled = value / base ** place;
  const digits = place === 0 || scaled >= 100 ? scaled.toFixed(0) : scaled.toPrecision(3);
  return `${digits} ${prefixes[place]}${unit}`.trim();
};
const small = (value, unit) => {
  const [scale, prefix] = value >= 1 || value === 0 ? [1, ""] : value >= 1e-3 ? [1e3, "m"] : [1e6, "µ"];
  return `${Number((scale * value).toPrecision(3))} ${prefix}${unit}`;
};
const amount = (unit, value) => {
  if (value === null || value === undefined) return "-";
  if (unit === "B") return prefixed(value, 1024, ["", "Ki", "Mi", "Gi"], "B");
  if (unit === "s" || unit === "J") return small(value, unit);
  return prefixed(value, 1000, ["", "k", "M", "G"], "");
};
const percent = (share) => (share === null || share === undefined ? "-" : `${(100 * share).toFixed(1)} %`);
const points = (share) => `${share < 0 ? "" : "+"}${(100 * share).toFixed(1)}`;
// The metric that networks are chosen by: a share is shown in percent, others as numbers; less may be better.
const metric = data.metric, IS_ACCURACY = metric.name === "accuracy";
const METRIC = metric.name.replaceAll("_", " "), SCALE = metric.is_share ? 100 : 1, UNIT = metric.is_share ? ", %" : "";
// Turned so that more is better.
for (const trial of trials) trial.worth = metric.higher_is_better || trial.accuracy === null ? trial.accuracy : -trial.accuracy;
const score = (value) =>
  (metric.is_share ? percent(value) : value === null || value === undefined ? "-" : String(Number(value.toPrecision(3))));
const change = (more) => (metric.is_share ? `${points(more)} points` : `${more < 0 ? "" : "+"}${Number(more.toPrecision(3))}`);
const interval = (ends) =>
  (ends ? `95 %: ${metric.is_share ? (100 * ends[0]).toFixed(1) : score(ends[0])} to ${score(ends[1])}` : "");
const sureness = (ends, images) =>
  (ends ? ` (${interval(ends)}${images ? `, n = ${images.toLocaleString("en")}` : ""})` : "");
const named = (trial) => (data.kind === "run" ? trial.name : `${trial.name}, seed ${trial.seed}`);

// The unit of an axis, which its title names: ticks are plain numbers in it.
const AXES = { s: [1e3, "ms"], J: [1e3, "mJ"], B: [1 / 1024, "KiB"] };
const axisOf = (resource) => AXES[resource.unit] ?? [1, ""];

// What people type: 250k, 20M, 100 KiB, 3 ms; 0.5x and 50% are shares of the dense network. Throws what is wrong.
const FACTORS = {
  "": { "": 1, k: 1e3, M: 1e6, G: 1e9 },
  B: { B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, "": 1 },
  s: { s: 1, ms: 1e-3, us: 1e-6, "µs": 1e-6 },
  J: { J: 1, mJ: 1e-3, uJ: 1e-6, "µJ": 1e-6 },
};
const EXAMPLES = { "": "20M", B: "100 KiB", s: "3 ms", J: "2 mJ" };
const parseAmount = (text, place) => {
  const { unit } = resources[place], example = EXAMPLES[unit];
  const wanted = text.trim().replace(/^≤\s*/, "");
  if (wanted === "") return Infinity;
  const [, digits, suffix] = /^([\d.,]+)\s*([^\d\s]*)$/.exec(wanted) ?? [];
  const value = digits === undefined ? NaN : Number(digits.replaceAll(",", ""));
  if (!(value > 0)) throw new Error(`Write an amount such as ${example}, or a share such as 0.5x.`);
  if (suffix === "x" || suffix === "%") {
    const whole = data.dense?.[place] ?? denseOf(null)?.costs[place];
    if (!whole) throw new Error(`What the dense network costs is not known: write an amount such as ${example}.`);
    return (suffix === "x" ? value : value / 100) * whole;
  }
  if (!Object.hasOwn(FACTORS[unit], suffix)) throw new Error(`Write the unit as in ${example}.`);
  return value * FACTORS[unit][suffix];
};

// Plotly reads a little markup in texts: names must stay what they are.
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const shortened = (text, most = 24) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
