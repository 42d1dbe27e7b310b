"use strict";
// What is recommended, and the chosen network beside the dense one.

const shownTrial = () => byKey.get(state.chosen) ?? best;

const drawAnswer = () => {
  const box = at("answer");
  box.replaceChildren();
  if (data.kind === "run") return;
  if (!trials.length) {
    const left = data.counts.waiting + data.counts.running;
    make("p", `No trial is done yet.${left ? ` ${left} ${left === 1 ? "is" : "are"} to come.` : ""}`, box);
    return;
  }
  if (!best) {
    nothingFits(box);
    return;
  }
  make("strong", `${named(best)}: ${score(best.accuracy)} ${IS_ACCURACY ? "" : `${METRIC} in `}validation${sureness(best.interval, best.images)}`, box);
  make("p", `${why()} Test ${METRIC} ${score(best.test)}${sureness(best.testInterval, best.testImages)}.`, box, { className: "hint" });
  const next = inside.find((trial) => trial !== best && trial.worth <= best.worth);
  const said = next && isLimited() ? against(next, best) : "";
  if (said) make("p", `Against the next best, ${named(next)}: ${said}.`, box, { className: "hint" });
  const list = make("ul", null, box);
  (data.smallest ?? []).forEach((row) => {
    const trial = byKey.get(row.key);
    make("li", `Smallest ${row.words}: ${named(trial)}, ${amount("", trial.costs[SIZE])} ${resources[SIZE].title}`, list);
  });
  state.limits.forEach((limit, place) => {
    const better = limit === Infinity ? []
      : trials.filter((t) => fits(t, place) && t.costs[place] > limit && t.worth >= best.worth + part(GAIN, best));
    if (!better.length) return;
    const least = better.reduce((a, b) => (b.costs[place] < a.costs[place] ? b : a));
    const more = amount(resources[place].unit, least.costs[place] - limit);
    make("li", `${change(least.accuracy - best.accuracy)} for +${more} ${resources[place].title}: ${named(least)}${unsure(best, least)}`, list);
  });
};

const nothingFits = (box) => {
  const dense = inside.find(isDense);
  make("strong", dense ? "Of the networks that fit, only the dense one is done." : "Nothing fits.", box);
  const list = make("ul", null, box);
  state.limits.forEach((limit, place) => {
    const beyond = limit === Infinity || dense ? [] : trials.filter((t) => fits(t, place) && t.costs[place] !== null);
    if (!beyond.length) return;
    const needed = Math.min(...beyond.map((t) => t.costs[place]));
    make("li", `It would with ${resources[place].title} of ${amount(resources[place].unit, needed)}.`, list);
  });
};

const drawCard = () => {
  const trial = shownTrial(), box = at("card");
  box.hidden = !trial;
  at("again").hidden = !trial || !best || trial === best;
  if (!trial) return;
  const dense = isDense(trial) ? null : denseOf(trial);
  at("card-title").textContent = data.kind === "run" ? "Before and after"
    : trial === best ? "Before and after: the recommended network" : `Before and after: ${named(trial)}`;
  const body = at("before-after").tBodies[0];
  body.replaceChildren();
  accuracyRow(body, `Validation ${METRIC}`, dense && [dense.accuracy, dense.interval], [trial.accuracy, trial.interval]);
  accuracyRow(body, `Test ${METRIC}`, dense && [dense.test, dense.testInterval], [trial.test, trial.testInterval]);
  resources.forEach((resource, place) => {
    const before = dense?.costs[place] ?? data.dense?.[place] ?? null;
    if (trial.costs[place] !== null) amountRow(body, resource, before, trial.costs[place]);
  });
  (data.times ?? []).forEach((time) => amountRow(body, time, time.dense, time.slim));
  const said = dense ? against(dense, trial) : "";
  at("told-apart").textContent = said ? `Against the dense network: ${said}.` : "";
  drawBoard(trial, dense);
};

const accuracyRow = (body, title, before, after) => {
  if (after[0] === null || after[0] === undefined) return;
  const row = make("tr", null, body);
  make("th", title, row, { scope: "row" });
  for (const found of [before, after]) {
    const cell = make("td", found ? score(found[0]) : "-", row);
    if (found && found[1]) make("small", interval(found[1]), cell);
  }
  const known = before && before[0] !== null && before[0] !== undefined;
  make("td", known ? change(after[0] - before[0]) : "", row, { className: "change" });
};

const amountRow = (body, resource, before, after) => {
  const row = make("tr", null, body);
  const head = make("th", resource.title, row, { scope: "row" });
  if (resource.detail) make("small", resource.detail, head);
  make("td", amount(resource.unit, before), row);
  make("td", amount(resource.unit, after), row);
  const cell = make("td", null, row, { className: "change" });
  if (!before) return;
  const bar = make("span", null, cell, { className: "bar" });
  make("span", null, bar).style.width = `${Math.min(100 * after / before, 100)}%`;
  make("span", percent(after / before), cell);
};

// Flash and RAM of the board, and what is in them: the model, its runtime, the application, and room.
const drawBoard = (trial, dense) => {
  const board = boardOf(state.board), box = at("on-board");
  box.replaceChildren();
  const [file, arena] = [placeOf("file"), placeOf("arena")];
  box.hidden = !board || file < 0 || trial.costs[file] === null || trial.costs[arena] === null;
  if (box.hidden) return;
  make("h3", `On ${board.title}`, box);
  const application = (whole) => Math.round(board.application * whole);
  memoryBar(box, "Flash", board.flash, [
    ["model", trial.costs[file], "model"], ["runtime (estimate)", board.runtime, "runtime"],
    ["application", application(board.flash), "application"]]);
  memoryBar(box, "RAM", board.ram, [
    ["tensor arena", trial.costs[arena], "model"], ["application", application(board.ram), "application"]]);
  if (dense && dense.costs[file] !== null) {
    const over = dense.costs[file] > board.file || dense.costs[arena] > board.arena;
    make("p", over ? "The dense network does not fit on it." : "The dense network fits on it as well.", box, { className: "hint" });
  }
};
const memoryBar = (box, title, whole, parts) => {
  const used = parts.reduce((sum, [, value]) => sum + value, 0), scale = Math.max(used, whole);
  const size = (value) => amount("B", value);
  const room = used <= whole ? `${size(whole - used)} free` : `${size(used - whole)} too much`;
  const words = `${title}, ${size(whole)}: ${parts.map(([name, value]) => `${name} ${size(value)}`).join(", ")}; ${room}`;
  const line = make("div", null, box, { className: "memory" });
  const bar = make("div", null, line, { className: `stack${used > whole ? " over" : ""}`, role: "img" });
  bar.setAttribute("aria-label", words);
  parts.forEach(([, value, kind]) => { make("span", null, bar, { className: kind }).style.width = `${100 * value / scale}%`; });
  make("p", words, line, { className: "hint" });
};

// ---------------------------------------------------------------------------------- its run

const drawChosen = () => {
  const trial = shownTrial(), detail = trial ? data.details[trial.key] : null;
  const where = data.kind === "run" ? "" : trial ? ` Its run: trials/${trial.key}` : "";
  at("chosen").textContent = trial
    ? `${named(trial)}: validation ${score(trial.accuracy)}${sureness(trial.interval, trial.images)}.${where}` : "No network is chosen.";
  at("reproduce").hidden = !(data.command && trial?.command);
  at("command").textContent = trial ? `${data.command} ${trial.command}` : "";
  drawWidths(detail);
  drawCurve(detail);
  drawMistakes(detail);
};

const copyCommand = async () => {
  const text = at("command").textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // an old browser, or no permission: by the selection
    getSelection().selectAllChildren(at("command"));
    done = document.execCommand("copy");
  }
  at("copied").textContent = done ? "Copied." : "Press Ctrl+C.";
};
