"use strict";
/* What tables are made of: the page's columns, elements, cells, order and verdicts. */

const PAGE = JSON.parse(document.getElementById("page-data").textContent);
const COLUMNS = PAGE.columns;
const AT = Object.fromEntries(COLUMNS.map((column, index) => [column.id, index]));
const FIRST_ROWS = 200;
const state = { words: [], verdict: PAGE.filtered ? "distinct" : "all", sort: null };

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never innerHTML: captions are not ours
  return element;
};
const colour = (id) => `oklch(0.72 0.19 ${(25 + id * 137.508) % 360})`;
const term = (index) => PAGE.terms[index];
const reason = (row) => (PAGE.filtered ? term(row[AT.verdict]) : "");
const isKept = (row) => PAGE.filtered && ["", "kept by hand"].includes(reason(row));

const VERDICTS = {
  all: () => true,
  distinct: (row) => reason(row) !== "duplicate",
  kept: isKept,
  dropped: (row) => !isKept(row) && reason(row) !== "duplicate",
};

/* Sorting: null last, then by the shown value; the page's own order (masks, best first) where equal. */
const sortable = (row, index) => {
  const kind = COLUMNS[index].kind;
  if (kind === "verdict") return isKept(row) ? "" : PAGE.reasons[reason(row)][0];
  return kind === "term" ? term(row[index]) : row[index];
};
const compare = (index, down) => (one, other) => {
  const [a, b] = [sortable(one, index), sortable(other, index)];
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return down ? -order : order;
};

const shown = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const CELLS = {
  mask(row, index) {
    const cell = make("td");
    cell.append(make("i", "swatch"), ` ${row[index]}`);
    return cell;
  },
  text(row, index) {
    const cell = make("td", "text", row[index]);
    if (row[AT.duplicates] > 1) cell.append(make("span", "times", `×${row[AT.duplicates]}`));
    return cell;
  },
  term(row, index) {
    const text = term(row[index]);
    return make("td", text.length > 12 ? "term long" : "term", text);
  },
  number: (row, index, column) => make("td", "n", shown(row[index], column.digits)),
  fraction: (row, index) => make("td", "n", `${(100 * row[index]).toFixed(2)} %`),
  bar(row, index, column) {
    const cell = make("td");
    const percent = (value) => `${Math.max(0, Math.min(100, (100 * value) / column.max)).toFixed(1)}%`;
    const meter = make("span", "meter");
    const fill = make("i");
    fill.style.width = percent(row[index] ?? 0);
    meter.append(fill);
    if (column.mark !== null) meter.append(Object.assign(make("b"), { style: `left:${percent(column.mark)}` }));
    const flags = term(row[AT.flags]);
    const number = make("span", column.id === "doc" && /capped|non_finite/.test(flags) ? "flagged" : "", shown(row[index], column.digits));
    number.title = PAGE.flags[flags] ?? "";
    cell.append(meter, number);
    return cell;
  },
  picked(row, index) {
    const id = row[index];
    if (id === null) return make("td", "term", "–");
    const cell = make("td", id === row[AT.mask] ? "picked own" : "picked");
    if (id < 0) cell.textContent = "none";
    else {
      const swatch = make("i", "swatch");
      swatch.style.setProperty("--c", colour(id));
      cell.append(swatch, ` ${id}`);
    }
    return cell;
  },
  verdict(row, index, column, card) {
    const cell = make("td");
    const decision = DECISIONS.of(card.key, row);
    const [label, meaning] = decision
      ? [decision, `decided here; the filter says: ${reason(row) || "kept"}`]
      : reason(row) ? PAGE.reasons[reason(row)] : ["kept", "kept by the filter"];
    const badge = make("button", decision ? "verdict hand" : "verdict", `${stays(card.key, row) ? "✓" : "✕"} ${label}`);
    badge.type = "button";
    badge.tabIndex = -1; // the row's keys do the same
    badge.title = `${meaning}; press to decide otherwise`;
    badge.addEventListener("click", () => card.decide(row, decision ? null : isKept(row) ? "drop" : "keep"));
    cell.append(badge);
    return cell;
  },
};

/* A mask's pixels, to tell whether a point (per cent of the image) is on it. */
async function readShape(mask) {
  const image = new Image();
  image.src = mask.uri;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, image.width, image.height);
  const [left, top, across, down] = mask.box;
  const holds = (x, y) => {
    const [column, row] = [Math.floor((width * (x - left)) / across), Math.floor((height * (y - top)) / down)];
    return column >= 0 && row >= 0 && column < width && row < height && data[4 * (row * width + column) + 3] > 127;
  };
  return { id: mask.id, holds };
}
