/* The page: which cards and rows are shown, keyboard, theme. */

const cards = [...document.querySelectorAll(".card")].map((element) => new Card(element));
const byElement = new Map(cards.map((card) => [card.element, card]));
const observer = new IntersectionObserver(
  (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => byElement.get(e.target).build()),
  { rootMargin: "900px" }
);
cards.forEach((card) => observer.observe(card.element));

const numeric = (index) => !["text", "term", "verdict", "mask"].includes(COLUMNS[index].kind);
function sortBy(index) {
  const first = numeric(index);
  if (state.sort?.index !== index) state.sort = { index, down: first };
  else if (state.sort.down === first) state.sort.down = !first;
  else state.sort = null;
  cards.forEach((card) => card.render());
}

/* Images in the order of the source, or by their highest or lowest value of a score among the rows that are shown. */
const order = document.getElementById("order");
const source = [...cards];
const scores = [
  ...COLUMNS.map((column, index) => [column.label, (card) => card.fitting().map((row) => row[index]), column.kind]),
  ...(AT.caption ? PAGE.mask_scores : []).map((label, index) => [
    label, (card) => card.data.masks.map((mask) => mask.scores[index]), "number"]),
].filter(([, values, kind]) =>
  ["bar", "number", "fraction"].includes(kind) && cards.some((card) => values(card).some((value) => value !== null)));
scores.forEach(([label], number) => {
  for (const [way, what] of [["down", "highest"], ["up", "lowest"]]) {
    const option = make("option", "", `${what} ${label} first`);
    option.value = `${number} ${way}`;
    order.append(option);
  }
});
function arrange() {
  const [number, way] = order.value.split(" ");
  const best = new Map(
    source.map((card) => {
      const values = number ? scores[number][1](card).filter((value) => value !== null) : [];
      return [card, values.length ? (way === "down" ? Math.max(...values) : -Math.min(...values)) : -Infinity];
    })
  );
  cards.splice(0, cards.length, ...source);
  if (number) cards.sort((one, other) => best.get(other) - best.get(one) || 0);
  document.getElementById("nothing").before(...cards.map((card) => card.element));
}
order.addEventListener("change", arrange);

function filter() {
  const narrowed = state.words.length > 0 || ["kept", "dropped"].includes(state.verdict);
  let [images, rows] = [0, 0];
  for (const card of cards) {
    const count = card.fitting().length;
    const named = state.words.every((word) => card.key.toLowerCase().includes(word));
    card.element.hidden = narrowed && !count && !(named && !card.data.rows.length);
    images += !card.element.hidden;
    rows += count;
    card.render();
  }
  const what = AT.caption ? "candidates" : "masks";
  document.getElementById("count").textContent = `${images} of ${cards.length} images · ${rows.toLocaleString("en")} ${what}`;
  document.getElementById("nothing").hidden = images > 0;
}

const input = document.getElementById("filter");
let waiting = 0;
input.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    state.words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    filter();
  }, 120);
});
document.querySelectorAll("input[name=verdict]").forEach((choice) =>
  choice.addEventListener("change", () => {
    state.verdict = choice.value;
    filter();
  })
);

function go(step) {
  const there = cards.filter((card) => !card.element.hidden);
  const margin = parseFloat(getComputedStyle(cards[0].element).scrollMarginTop) + 4;
  const top = (card) => card.element.getBoundingClientRect().top - margin;
  const ends = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
  const at = there.findIndex((card) => card.element === document.activeElement);
  let next = step > 0 ? there.find((card) => top(card) > 4) : there.findLast((card) => top(card) < -12);
  if (ends && at >= 0) next = there[at + step] ?? next;
  if (!next) return;
  next.element.scrollIntoView({ block: "start" });
  next.element.focus({ preventScroll: true });
}

const root = document.documentElement;
const preferred = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
function theme() {
  root.dataset.theme = (root.dataset.theme ?? preferred()) === "dark" ? "light" : "dark";
}
const help = document.getElementById("help");
const KEYS = {
  j: () => go(1),
  k: () => go(-1),
  "/": () => input.focus(),
  "?": () => help.showModal(),
  t: theme,
  s: () => PAGE.filtered && Object.values(DECISIONS.counts()).some(Boolean) && save("json"),
  o: () => cards.forEach((card) => card.frame.classList.toggle("bare")),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target === input) {
    if (event.key !== "Escape") return;
    input.value = "";
    input.dispatchEvent(new Event("input"));
    input.blur();
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("help-open").addEventListener("click", KEYS["?"]);
document.getElementById("next").addEventListener("click", KEYS.j);
document.getElementById("previous").addEventListener("click", KEYS.k);
if (PAGE.filtered) {
  document.getElementById("save").addEventListener("click", () => save("json"));
  document.getElementById("save-csv").addEventListener("click", () => save("csv"));
  document.getElementById("forget").addEventListener("click", () => {
    if (!confirm("Forget all decisions that were made here?")) return;
    DECISIONS.forget();
    cards.forEach((card) => [...card.chips.children].forEach((chip) => chip.tell()));
    cards.forEach((card) => card.render());
    tellDecisions();
  });
  tellDecisions();
}
filter();
