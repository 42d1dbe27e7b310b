"use strict";
// All trials as a table that sorts by each of its columns, and as a CSV file.

const columns = [
  { id: "name", title: "network", value: (t) => t.name, show: (t) => t.name },
  { id: "seed", title: "seed", value: (t) => t.seed, show: (t) => String(t.seed) },
  { id: "accuracy", title: IS_ACCURACY ? "validation" : `validation ${METRIC}`, value: (t) => t.accuracy, show: (t) => score(t.accuracy) + sureness(t.interval) },
  ...resources.map((resource, place) => ({
    id: resource.name, title: resource.title, detail: resource.detail, value: (t) => t.costs[place], show: (t) => amount(resource.unit, t.costs[place]),
  })),
];
const MOST_ROWS = 500;

// What is not known comes last, whichever way the column is sorted.
const sorted = () => {
  const { value } = columns.find((c) => c.id === state.order.column), sign = state.order.down ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return [...trials].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return x === null || y === null ? (x === null) - (y === null) : sign * compare(x, y);
  });
};

const drawHead = () => {
  const row = make("tr", null, at("table").tHead);
  columns.forEach((column) => {
    const cell = make("th", null, row, { scope: "col" });
    const button = make("button", null, cell, { type: "button", title: column.detail ?? "" });
    button.dataset.column = column.id;
    button.addEventListener("click", () => {
      const active = state.order.column === column.id;
      state.order = { column: column.id, down: active ? !state.order.down : column.id === "accuracy" && metric.higher_is_better };
      drawTable();
      keepAddress();
    });
  });
};

const drawTable = () => {
  const body = at("table").tBodies[0], chosen = shownTrial();
  [...at("table").tHead.querySelectorAll("button")].forEach((button, n) => {
    const active = state.order.column === button.dataset.column;
    button.textContent = columns[n].title + (active ? (state.order.down ? " ↓" : " ↑") : "");
    button.parentElement.setAttribute("aria-sort", active ? (state.order.down ? "descending" : "ascending") : "none");
  });
  body.replaceChildren();
  const rows = sorted();
  rows.slice(0, MOST_ROWS).forEach((trial) => {
    const line = make("tr", null, body, { tabIndex: 0 });
    line.dataset.key = trial.key;
    line.classList.toggle("out", !fits(trial));
    line.classList.toggle("chosen", trial === chosen);
    line.setAttribute("aria-selected", String(trial === chosen));
    columns.forEach((column) => make("td", column.show(trial), line));
  });
  at("rows").textContent = rows.length > MOST_ROWS ? `${MOST_ROWS} of ${rows.length} rows; the CSV has all` : `${rows.length} rows`;
};

// A cell that a spreadsheet would take for a formula gets an apostrophe (CWE-1236).
const cellOf = (value) => {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
};
const csv = () => {
  const head = ["key", "name", "mode", "keep", "seed", ...resources.map((r) => (r.unit ? `${r.name}_${r.unit}` : r.name)), `validation_${metric.name}`, "validation_low_95", "validation_high_95"];
  const lines = sorted().map((t) => [t.key, t.name, t.mode, t.keep, t.seed, ...t.costs, t.accuracy, ...(t.interval ?? [null, null])]);
  return [head, ...lines].map((line) => line.map(cellOf).join(",")).join("\r\n") + "\r\n";
};
