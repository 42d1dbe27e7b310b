"use strict";
// The controls, and what they change.

const drawAll = () => {
  drawAnswer(); drawCard();
  if (data.kind === "study" && trials.length) { drawTradeoff(); drawParallel(); drawTable(); }
  if (shownTrial()) drawChosen();
};
// After a limit changed, a network that is out of it is no longer the chosen one.
const update = () => {
  best = recommended();
  const chosen = byKey.get(state.chosen);
  if (!chosen || chosen === best || !fits(chosen)) state.chosen = null;
  drawAll();
  keepAddress();
};
const choose = (key) => {
  state.chosen = best && key === best.key ? null : key;
  drawAll();
  keepAddress();
};

// ---------------------------------------------------------------------------------- limits

const controls = []; // of each resource that has them: what shows its limit

const setLimit = (place, limit) => {
  state.limits[place] = limit;
  showLimits();
  update();
};
const showLimits = () => {
  controls.forEach((show) => show());
  at("board").value = state.board;
};

const buildLimit = (resource, place) => {
  const steps = [...new Set(trials.map((t) => t.costs[place]).filter((v) => v !== null))].sort((a, b) => a - b);
  if (steps.length < 2) return;
  const box = make("div", null, at("limits"), { className: "limit" });
  make("label", resource.title, box, { htmlFor: `limit-${resource.name}`, title: resource.detail });
  const typed = make("input", null, box, { type: "text", id: `typed-${resource.name}`, placeholder: "no limit", autocomplete: "off", spellcheck: false });
  typed.setAttribute("aria-label", `Largest ${resource.title}, as an amount or a share of the dense network`);
  const slider = make("input", null, box, { type: "range", id: `limit-${resource.name}`, min: 0, max: steps.length, value: steps.length });
  const wrong = make("span", "", box, { className: "wrong", id: `wrong-${resource.name}`, role: "alert" });
  typed.setAttribute("aria-describedby", wrong.id);
  slider.addEventListener("input", () => {
    const step = Number(slider.value);
    setLimit(place, step === steps.length ? Infinity : steps[step]);
  });
  typed.addEventListener("change", () => {
    try {
      setLimit(place, parseAmount(typed.value, place));
    } catch (error) {
      wrong.textContent = error.message;
      typed.setAttribute("aria-invalid", "true");
    }
  });
  controls.push(() => {
    const limit = state.limits[place], above = steps.findIndex((step) => step > limit);
    slider.value = limit === Infinity ? steps.length : above < 0 ? steps.length - 1 : Math.max(above - 1, 0);
    typed.value = limit === Infinity ? "" : amount(resource.unit, limit);
    slider.setAttribute("aria-valuetext", limit === Infinity ? "no limit" : `at most ${typed.value}`);
    wrong.textContent = "";
    typed.removeAttribute("aria-invalid");
  });
};

const buildBoards = () => {
  at("boards").hidden = !data.boards.length;
  make("option", "no board", at("board"), { value: "" });
  data.boards.forEach((board) => make("option", board.title, at("board"), { value: board.name }));
  at("board").addEventListener("change", () => {
    const board = boardOf(at("board").value);
    state.board = board?.name ?? "";
    for (const name of ["file", "arena"]) state.limits[placeOf(name)] = board?.[name] ?? Infinity;
    showLimits();
    update();
  });
};

// ---------------------------------------------------------------------------------- together

const describe = () => {
  const { network, counts } = data;
  at("title").textContent = data.kind === "run" ? data.study : `${data.study}: what does ${METRIC} cost?`;
  const about = network ? `${network.model} on ${network.data}, images of ${network.input_shape.join("×")}, ${network.classes.length} classes. ` : "";
  if (data.kind === "run") at("plan-title").textContent = "The slim network";
  const others = ["running", "waiting", "failed", "stopped"].filter((one) => counts[one]).map((one) => `${counts[one]} ${one}`);
  const done = data.kind === "run" ? data.about : `${counts.done} trials done${others.length ? `, ${others.join(", ")}` : ""}.`;
  at("about").textContent = `${about}${done}`;
  if (!data.failed.length) return;
  make("h3", "Failed", at("failed"));
  const list = make("ul", null, at("failed"));
  data.failed.forEach((one) => make("li", `${one.name}, seed ${one.seed}: ${one.error}`, list));
};

const readAddress = () => {
  fromAddress();
  if (resources.length) at("resource").selectedIndex = state.axis;
  at("means").checked = state.means;
  at("logarithmic").checked = state.logarithmic;
  showLimits();
  update();
};

const listen = () => {
  at("resource").addEventListener("change", () => { state.axis = at("resource").selectedIndex; drawTradeoff(); keepAddress(); });
  at("means").addEventListener("change", () => { state.means = at("means").checked; drawTradeoff(); keepAddress(); });
  at("logarithmic").addEventListener("change", () => { state.logarithmic = at("logarithmic").checked; drawTradeoff(); keepAddress(); });
  at("again").addEventListener("click", () => { choose(best.key); at("answer").focus(); });
  at("reset").addEventListener("click", () => {
    state.limits.fill(Infinity);
    state.board = "";
    showLimits();
    update();
  });
  at("copy").addEventListener("click", copyCommand);
  at("csv").addEventListener("click", () => {
    const link = make("a", null, document.body, { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "study.csv" });
    link.click();
    link.remove();
  });
  const rowOf = (event) => event.target.closest("tr[data-key]");
  at("table").addEventListener("click", (event) => { const row = rowOf(event); if (row) choose(row.dataset.key); });
  at("table").addEventListener("keydown", (event) => {
    const row = rowOf(event);
    if (!row || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    choose(row.dataset.key);
    at("table").querySelector(`tr[data-key="${CSS.escape(row.dataset.key)}"]`).focus();
  });
  addEventListener("hashchange", () => { if (location.hash !== written) readAddress(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => { clearTimeout(listen.later); listen.later = setTimeout(redraw, 150); });
  // Paper is white and narrow, whatever the screen is.
  addEventListener("beforeprint", () => { document.documentElement.classList.add("paper"); redraw(); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("paper"); redraw(); });
};
const redraw = () => { drawAll(); if (data.kind === "study") drawShares(); };
const listenToPlots = () => {
  for (const id of ["tradeoff", "parallel"]) {
    at(id).on("plotly_click", (event) => { const key = event.points[0].customdata; if (key) choose(key); });
  }
};

document.body.dataset.kind = trials.length ? data.kind : "empty";
describe();
resources.forEach((resource) => make("option", resource.title, at("resource"), { value: resource.name }));
buildBoards();
resources.forEach(buildLimit);
drawHead();
listen();
readAddress();
if (data.kind === "study" && trials.length) { listenToPlots(); drawShares(); }
document.body.dataset.ready = "yes";
