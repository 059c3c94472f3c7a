/* One image: the image with its masks, and its table. Built when it comes near the viewport. */

class Card {
  constructor(element) {
    this.element = element;
    this.key = element.dataset.key;
    this.frame = element.querySelector(".frame");
    this.image = element.querySelector("img");
    this.chips = element.querySelector(".chips");
    this.scroll = element.querySelector(".scroll");
    this.only = null;
    this.showAll = false;
    this.built = false;
  }

  get data() {
    this._data ??= JSON.parse(this.element.querySelector("script").textContent);
    return this._data;
  }

  get masks() {
    this._masks ??= new Map(this.data.masks.map((mask) => [mask.id, mask]));
    return this._masks;
  }

  /* What the filter box looks through, one text per row. */
  get texts() {
    this._texts ??= new Map(
      this.data.rows.map((row) => {
        const words = COLUMNS.map((column, index) =>
          column.kind === "text" ? row[index] : column.kind === "term" ? term(row[index]) : ""
        );
        const why = isKept(row) ? "kept" : PAGE.reasons[reason(row)]?.[0] ?? "";
        return [row, [this.key, ...words, why].join(" ").toLowerCase()];
      })
    );
    return this._texts;
  }

  fitting() {
    const fits = VERDICTS[state.verdict];
    return this.data.rows.filter(
      (row) =>
        fits(row) &&
        (this.only === null || row[AT.mask] === this.only) &&
        state.words.every((word) => this.texts.get(row).includes(word))
    );
  }

  build() {
    if (this.built) return;
    this.built = true;
    for (const mask of this.data.masks) {
      this.chips.append(this.chip(mask));
      if (mask.uri && this.image) this.frame.append(this.shape("div", "mask", mask));
    }
    this.chips.hidden = !this.data.masks.length;
    if (AT.choice !== undefined) this.buildConfusion();
    if (this.image && this.data.masks.length) this.watchImage();
    this.scroll.hidden = !this.data.rows.length;
    if (this.data.rows.length) this.buildTable();
    this.render();
  }

  chip(mask) {
    const chip = make("button");
    chip.type = "button";
    chip.dataset.mask = mask.id;
    chip.style.setProperty("--c", colour(mask.id));
    chip.setAttribute("aria-pressed", "false");
    chip.append(make("i", "swatch"), make("span", "", ["mask", mask.id, mask.category].filter((part) => part !== undefined).join(" ")));
    const own = this.data.rows.filter((row) => row[AT.mask] === mask.id);
    const small = make("small");
    const area = `${(100 * mask.fraction).toFixed(mask.fraction < 0.01 ? 2 : 1)} %`;
    chip.tell = () => {
      const kept = new Set(own.filter((row) => stays(this.key, row) && reason(row) !== "duplicate"));
      small.textContent = PAGE.filtered && own.length ? `${kept.size} kept · ${area}` : area;
    };
    chip.tell();
    chip.append(small);
    chip.addEventListener("click", () => this.choose(mask.id));
    chip.addEventListener("pointerenter", () => this.light(mask.id));
    chip.addEventListener("pointerleave", () => this.light(this.only));
    chip.addEventListener("focus", () => this.light(mask.id));
    return chip;
  }

  /* What the listener picked for the captions of each mask: a row per mask, a column per mask and one for none. */
  buildConfusion() {
    const asked = this.data.rows.filter((row) => row[AT.choice] !== null);
    if (!asked.length) return;
    const ids = [...this.masks.keys()];
    const count = new Map();
    for (const row of asked) count.set(`${row[AT.mask]} ${row[AT.choice]}`, (count.get(`${row[AT.mask]} ${row[AT.choice]}`) ?? 0) + 1);
    const own = asked.filter((row) => row[AT.choice] === row[AT.mask]).length;
    const details = make("details", "confusion");
    details.append(make("summary", "", `The listener picks the caption's own mask for ${own} of ${asked.length}`));
    const table = make("table");
    table.append(make("caption", "sr", `Masks that the listener picked, of ${this.key}`));
    const head = table.createTHead().insertRow();
    head.append(make("td", "", "captions of"));
    const heading = (id) => {
      const cell = make("th");
      if (id < 0) cell.textContent = "none";
      else {
        cell.style.setProperty("--c", colour(id));
        cell.append(make("i", "swatch"), ` ${id}`);
      }
      return cell;
    };
    for (const id of [...ids, -1]) head.append(Object.assign(heading(id), { scope: "col" }));
    const body = table.createTBody();
    for (const id of ids) {
      const all = asked.filter((row) => row[AT.mask] === id).length;
      if (!all) continue;
      const line = body.insertRow();
      line.append(Object.assign(heading(id), { scope: "row" }));
      for (const choice of [...ids, -1]) {
        const times = count.get(`${id} ${choice}`) ?? 0;
        const cell = make("td", choice === id ? "own" : "", times || "·");
        cell.style.setProperty("--share", times / all);
        cell.title = `${times} of ${all} captions of mask ${id}: the listener picks ${choice < 0 ? "none or several" : `mask ${choice}`}`;
        line.append(cell);
      }
    }
    const wide = make("div", "wide");
    wide.append(table);
    details.append(wide);
    this.chips.after(details);
  }

  /* A box over the image in which only the mask's pixels are visible. */
  shape(tag, className, mask) {
    const element = make(tag, className);
    const [left, top, width, height] = mask.box;
    Object.assign(element.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
    element.style.setProperty("--c", colour(mask.id));
    element.style.maskImage = `url(${mask.uri})`;
    element.dataset.mask = mask.id;
    return element;
  }

  /* Show one mask: outlined, its pixels as they are, the rest dimmed. null: all masks again. */
  light(id) {
    if (id === this.lit) return;
    this.lit = id;
    this.frame.querySelectorAll(".shape, .object").forEach((old) => old.remove());
    const mask = id === null ? null : this.masks.get(id);
    const shown = Boolean(mask?.uri && this.image);
    this.frame.classList.toggle("on", shown);
    if (shown) {
      const outline = make("div", "shape");
      outline.style.setProperty("--c", colour(id));
      outline.dataset.mask = id;
      outline.append(this.shape("i", "", mask));
      const object = make("div", "object");
      const [left, top, width, height] = mask.box;
      const along = (start, size) => (size < 100 ? (100 * start) / (100 - size) : 0);
      object.style.backgroundImage = `url(${this.image.src})`;
      object.style.maskImage = `url(${mask.uri})`;
      object.style.maskSize = `${width}% ${height}%`;
      object.style.maskPosition = `${along(left, width)}% ${along(top, height)}%`;
      this.frame.append(outline, object);
    }
    for (const element of this.element.querySelectorAll(".chips button, tbody tr"))
      element.classList.toggle("same", id !== null && element.dataset.mask === String(id));
  }

  /* Only this mask's rows; the same mask again: all. */
  choose(id) {
    this.only = this.only === id ? null : id;
    for (const chip of this.chips.children)
      chip.setAttribute("aria-pressed", String(Number(chip.dataset.mask) === this.only));
    this.render();
    this.light(this.only);
  }

  /* The smallest mask under the pointer, by its pixels. */
  watchImage() {
    let shapes = null;
    const under = (event) => {
      if (!shapes) return null;
      const box = this.frame.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return shapes.find((shape) => shape.holds(100 * x, 100 * y))?.id ?? null;
    };
    this.frame.classList.add("pick");
    this.frame.addEventListener("pointerenter", async () => {
      shapes ??= await Promise.all(
        [...this.data.masks].filter((mask) => mask.uri).sort((a, b) => a.area - b.area).map(readShape)
      );
    });
    this.frame.addEventListener("pointermove", (event) => this.light(under(event) ?? this.only));
    this.frame.addEventListener("pointerleave", () => this.light(this.only));
    this.frame.addEventListener("click", (event) => {
      const id = under(event) ?? this.only;
      if (id !== null) this.choose(id);
    });
  }

  buildTable() {
    this.table = make("table");
    this.table.append(make("caption", "sr", `${AT.caption ? "Candidates" : "Masks"} of ${this.key}`));
    const head = this.table.createTHead().insertRow();
    COLUMNS.forEach((column, index) => {
      if (column.kind === "hidden") return;
      const cell = make("th", ["number", "fraction"].includes(column.kind) ? "n" : "");
      cell.scope = "col";
      cell.dataset.index = index;
      const button = make("button", "", column.label);
      button.type = "button";
      button.title = column.title;
      button.addEventListener("click", () => sortBy(index));
      cell.append(button);
      head.append(cell);
    });
    this.body = this.table.createTBody();
    const rowOf = (event) => event.target.closest("tr");
    this.body.addEventListener("pointerover", (event) => this.light(Number(rowOf(event).dataset.mask)));
    this.body.addEventListener("pointerleave", () => this.light(this.only));
    this.body.addEventListener("focusin", (event) => this.light(Number(rowOf(event).dataset.mask)));
    this.body.addEventListener("click", (event) => rowOf(event).focus());
    this.body.addEventListener("keydown", (event) => this.moveFocus(event, rowOf(event)));
    this.scroll.append(this.table);
  }

  /* keep, drop or (null) neither; the same text of the mask goes with it. */
  decide(row, decision) {
    DECISIONS.decide(this.key, row, decision);
    for (const chip of this.chips.children) chip.tell();
    this.render();
    tellDecisions();
  }

  moveFocus(event, row) {
    const word = { y: "keep", n: "drop", u: null }[event.key];
    if (word !== undefined && PAGE.filtered && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      const at = row.sectionRowIndex;
      this.decide(row.data, word);
      const next = this.body.rows[Math.min(at + (word ? 1 : 0), this.body.rows.length - 1)];
      this.body.rows[0].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter") {
      this.choose(Number(row.dataset.mask));
      this.body.rows[0]?.focus();
    } else if (step) {
      event.preventDefault();
      const last = this.body.rows.length - 1;
      const target = this.body.rows[Math.max(0, Math.min(last, row.sectionRowIndex + step))];
      row.tabIndex = -1;
      target.tabIndex = 0;
      target.focus();
    }
  }

  render() {
    if (!this.built || !this.table) return;
    const rows = this.fitting();
    if (state.sort) rows.sort(compare(state.sort.index, state.sort.down));
    const shown = this.showAll ? rows : rows.slice(0, FIRST_ROWS);
    this.body.replaceChildren(...shown.map((row) => this.row(row)));
    if (this.body.rows.length) this.body.rows[0].tabIndex = 0;
    this.scroll.querySelector(".more")?.remove();
    if (shown.length < rows.length) {
      const more = make("button", "more", `Show all ${rows.length} rows`);
      more.addEventListener("click", () => {
        this.showAll = true;
        this.render();
      });
      this.scroll.append(more);
    }
    for (const cell of this.table.tHead.rows[0].cells) {
      const sorted = state.sort && state.sort.index === Number(cell.dataset.index);
      if (sorted) cell.setAttribute("aria-sort", state.sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  row(row) {
    const element = make("tr", PAGE.filtered ? (stays(this.key, row) ? "yes" : "no") : "");
    element.data = row;
    element.tabIndex = -1;
    element.dataset.mask = row[AT.mask];
    element.style.setProperty("--c", colour(row[AT.mask]));
    COLUMNS.forEach((column, index) => {
      if (column.kind !== "hidden") element.append(CELLS[column.kind](row, index, column, this));
    });
    return element;
  }
}
