"use strict";
// The state of the page (limits, board, the one chosen network, how plots and table are shown), what it recommends,
// and the address that keeps it.

const GAIN = 0.001; // of a share, or of the value of another metric, that is worth a mention
const CLOSE = 0.01; // to the dense network's score: what a network may lose where nobody set a limit, likewise
const part = (share, of) => share * (metric.is_share ? 1 : Math.abs(of.worth));
const POINT = metric.is_share ? "1 point" : "1 %";
const MOST = IS_ACCURACY ? "most accurate" : "best";
const state = {
  limits: resources.map(() => Infinity), board: "", chosen: null, axis: 0, means: false, logarithmic: true,
  order: { column: "accuracy", down: metric.higher_is_better },
};
let best = null, inside = [];

const isDense = (trial) => trial.mode === "dense";
const denseOf = (trial) => {
  const all = trials.filter(isDense);
  return all.find((one) => trial && one.seed === trial.seed) ?? all[0] ?? null;
};
const placeOf = (name) => resources.findIndex((resource) => resource.name === name);
const boardOf = (name) => data.boards.find((one) => one.name === name) ?? null;
const isLimited = () => state.limits.some((limit) => limit !== Infinity);
const fits = (trial, skip) =>
  state.limits.every((limit, place) => place === skip || limit === Infinity
    || (trial.costs[place] !== null && trial.costs[place] <= limit));

// By this networks are called small: MACs, where they are known.
const SIZE = Math.max(placeOf("macs"), 0);
const worth = (a, b) => b.worth - a.worth || (a.costs[SIZE] ?? 0) - (b.costs[SIZE] ?? 0);

// The accuracy that a network may not fall below where no limit is set: a point below the dense one.
const reference = () => {
  const dense = trials.filter(isDense).sort(worth)[0];
  return dense ?? [...trials].sort(worth)[0] ?? null;
};

const isClose = (trial, than) => trial.worth >= than.worth - part(CLOSE, than) - 1e-9;

// The best slim network within the limits or, without limits, the smallest within a point of the dense network.
const recommended = () => {
  inside = trials.filter((trial) => fits(trial)).sort(worth);
  const slim = inside.filter((trial) => !isDense(trial));
  if (isLimited() || !slim.length) return slim[0] ?? null;
  const enough = slim.filter((trial) => isClose(trial, reference()));
  const smaller = (a, b) => (a.costs[SIZE] ?? Infinity) - (b.costs[SIZE] ?? Infinity) || worth(a, b);
  return enough.sort(smaller)[0] ?? slim[0];
};
const why = () => {
  if (isLimited()) return `The ${MOST} network within the limits; ${inside.length} of ${trials.length} networks fit.`;
  const title = resources[SIZE]?.title ?? "parameters", than = reference();
  const what = isDense(than) ? "the dense network" : `the ${MOST} one`;
  return isClose(best, than)
    ? `No limit is set: the network with the fewest ${title} within ${POINT} of ${what}.`
    : `No limit is set, and no slim network is within ${POINT} of ${what}: the ${MOST} of them.`;
};

// The second network minus the first on the same validation images, as Python compared them (McNemar's test).
const LEVEL = 0.05;
const pair = (first, second) => {
  const there = (data.pairs[first.key] ?? {})[second.key];
  if (there) return there;
  const turned = (data.pairs[second.key] ?? {})[first.key];
  return turned ? [-turned[0], -turned[2], -turned[1], turned[3]] : null;
};
const against = (first, second) => {
  const found = pair(first, second);
  if (!found) return "";
  const [difference, low, high, p] = found;
  const said = `${points(difference)} points (95 %: ${points(low)} to ${points(high)}) on the same images, McNemar p = ${p.toPrecision(2)}`;
  return p < LEVEL ? said : `${said}: no significant difference`;
};
const unsure = (first, second) => {
  const found = pair(first, second);
  return found && found[3] >= LEVEL ? ` (McNemar p = ${found[3].toPrecision(2)}: no significant difference)` : "";
};

// ---------------------------------------------------------------------------------- the address

const toAddress = () => {
  const parts = new URLSearchParams();
  if (state.chosen !== null) parts.set("net", state.chosen);
  if (state.board) parts.set("board", state.board);
  state.limits.forEach((limit, place) => { if (limit !== Infinity) parts.set(`max-${resources[place].name}`, String(limit)); });
  if (resources[state.axis]) parts.set("axis", resources[state.axis].name);
  if (state.means) parts.set("means", "1");
  if (!state.logarithmic) parts.set("scale", "linear");
  parts.set("sort", `${state.order.down ? "-" : ""}${state.order.column}`);
  return `#${parts}`;
};
let written = null; // what this page wrote itself is not read again
const keepAddress = () => {
  written = toAddress();
  try { history.replaceState(null, "", written); } catch { /* a page inside a page has no address of its own */ }
};
const fromAddress = () => {
  const parts = new URLSearchParams(location.hash.slice(1)), axis = placeOf(parts.get("axis") ?? "macs");
  const isNew = ![...parts].length; // then the study's own limits hold
  const limit = (resource) => (isNew ? data.limits[resource.name] : Number(parts.get(`max-${resource.name}`)));
  state.limits = resources.map((resource) => (limit(resource) > 0 ? limit(resource) : Infinity));
  state.board = boardOf(isNew ? data.board : parts.get("board"))?.name ?? "";
  state.chosen = byKey.has(parts.get("net")) ? parts.get("net") : null;
  state.axis = Math.max(axis, 0);
  state.means = parts.get("means") === "1";
  state.logarithmic = parts.get("scale") !== "linear";
  const sort = parts.get("sort") ?? (metric.higher_is_better ? "-accuracy" : "accuracy"), column = sort.replace(/^-/, "");
  const known = ["name", "seed", "accuracy", ...resources.map((r) => r.name)].includes(column);
  state.order = known ? { column, down: sort.startsWith("-") } : { column: "accuracy", down: metric.higher_is_better };
};
