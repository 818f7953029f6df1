/** The strip: seeds as columns, domains as rows. A column lights up as a whole: its images are counterparts. */

import { Problem } from "./api.js";
import { classText, h, listen, rowsOf, size, typedSeed, wholeScale, widest } from "./dom.js";
import { MAX_SEED } from "./state.js";
import { Part } from "./studio.js";

const BATCH = 16; // columns of a request, at least
const MAX_COLUMNS = 400; // from then on, onward begins anew
const MOST_DIGITS = 7; // of a seed above its column; of a longer one the last are shown
const LAST_DIGITS = 5;

/** @typedef {{class: string, confidence: number}} Label */
/** @typedef {{seed: number, index: number, images: import("./studio.js").Images, labels?: Record<string, Label>}} Column */

export class PairStrip extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    /** @type {Column[]} */
    this.columns = [];
    this.first = 0; // seed of the first column
    this.seed = h("input", { type: "number", min: "0", max: String(MAX_SEED), step: "1", required: true, id: "seed", onchange: () => this.type() });
    this.grid = h("div", { role: "grid", "aria-label": "Pairs: a row for each domain, a column for each seed", "aria-busy": true });
    this.scroller = h("div", { className: "scroller", onscroll: () => this.scrolled() }, this.grid);
    this.caption = h("p", { className: "caption" });
    this.told = h("span", { className: "told", role: "status" });
    const turn = (/** @type {number} */ way) => this.show(Math.max(0, this.state.seed + way * Math.max(1, this.visible - 1)));
    this.replaceChildren(
      this.scroller,
      h("div", { className: "bar" },
        h("label", {}, "First seed ", this.seed),
        h("button", { title: "Back", "aria-label": "Earlier seeds", onclick: () => turn(-1) }, "←"),
        h("button", { title: "On", "aria-label": "Later seeds", onclick: () => turn(1) }, "→"),
        h("button", { onclick: () => this.show(Math.floor(Math.random() * 1e6)) }, "Surprise me"),
        this.told, this.caption),
    );
    listen(this.grid, (cell) => this.peek(cell), (cell) => this.choose(cell));
    studio.store.when(["seed"], () => this.state.seed !== this.seedInView && this.show(this.state.seed));
    studio.store.when(["truncation", "directions", "class", "confidence", "agree"], () => this.redraw());
    studio.store.when(["pin", "keys"], () => this.mark());
  }

  /** Lay out the rows of a model and show its pairs. */
  async open() {
    const { domains } = this.studio.card;
    const scale = wholeScale(widest(domains), this.clientWidth < 600 ? 56 : 84);
    this.columnWidth = widest(domains) * scale + 12;
    this.style.setProperty("--column", `${this.columnWidth}px`);
    const row = (/** @type {string} */ kind, /** @type {string} */ name, text = "") => h("div", { role: "row", className: kind },
      h("span", { role: "rowheader", className: "name", title: text }, h("b", {}, name), text && h("small", {}, text)));
    this.head = row("head", "seed");
    this.rows = domains.map((domain) => size(row("images", domain.name, domain.description), domain, scale));
    this.foot = row("foot", "reads as");
    this.foot.hidden = true;
    this.rows.forEach((one, i) => (one.dataset.domain = domains[i].name));
    this.grid.replaceChildren(this.head, ...this.rows, this.foot);
    this.grid.ariaBusy = "true";
    this.columns = [];
    await this.show(this.state.seed);
  }

  /** Number of columns in view. */
  get visible() {
    const room = this.scroller.clientWidth - /** @type {HTMLElement} */ (this.head.firstElementChild).offsetWidth;
    return Math.max(1, Math.floor(room / this.columnWidth));
  }

  get seedInView() {
    return this.first + Math.round(this.scroller.scrollLeft / this.columnWidth);
  }

  type() {
    const seed = typedSeed(this.seed);
    if (seed !== null) this.show(seed);
  }

  /** Show pairs from a seed on. @param {number} seed */
  async show(seed) {
    this.first = Math.min(seed, MAX_SEED - BATCH);
    this.scroller.scrollLeft = 0;
    this.seed.value = String(this.first);
    this.set({ seed: this.first });
    await this.redraw();
  }

  /** Ask for what is in view again, and draw it in place. */
  async redraw() {
    await this.latest.run(async (signal) => {
      const first = this.seedInView;
      const pairs = await this.ask(first, this.visible + 2, signal);
      this.cut(first, pairs.length);
      this.put(0, pairs);
      this.dispatchEvent(new Event("drawn"));
    });
    for (let had = 0; had < this.columns.length && this.columns.length < this.visible; ) {
      had = this.columns.length;
      await this.more();
    }
  }

  /** Add columns at the end. */
  async more() {
    if (this.latest.busy || this.columns.length >= MAX_COLUMNS || !this.columns.length) return;
    const at = this.columns.length;
    await this.latest.run(async (signal) => this.put(at, await this.ask(this.first + at, BATCH, signal)));
  }

  /** @param {number} from @param {number} count @param {AbortSignal} signal @returns {Promise<Column[]>} */
  async ask(from, count, signal) {
    const { api, common, filters, classifiers } = this.studio;
    const labels = this.studio.can("/generate", "labels") && classifiers.length ? true : null;
    const length = Math.min(this.studio.limit("/generate", "seeds", 64), count);
    const seeds = Array.from({ length }, (_, i) => from + i);
    try {
      return (await api.json(api.url("generate", { ...common, seeds, ...filters, labels }), { signal })).pairs;
    } catch (error) {
      if (!(error instanceof Problem && error.status === 413 && length > 1)) throw error;
      return this.ask(from, Math.floor(length / 2), signal); // the limit is lower, and not known yet
    }
  }

  /** Drop columns before a seed and after so many. @param {number} first @param {number} count */
  cut(first, count) {
    const gone = first - this.first;
    for (const row of this.grid.children) {
      const cells = [...row.children].slice(1);
      for (const cell of [...cells.slice(0, gone), ...cells.slice(gone + count)]) cell.remove();
    }
    this.first = first;
    this.columns = this.columns.slice(gone, gone + count);
    if (gone) this.scroller.scrollLeft = 0;
  }

  /** Draw columns from a place on, new ones or in place. @param {number} at @param {Column[]} columns */
  put(at, columns) {
    columns.forEach((column, i) => this.draw(at + i + 1, column));
    this.columns.splice(at, columns.length, ...columns);
    this.grid.ariaBusy = "false";
    if (!this.grid.querySelector(".cell[tabindex='0']") && this.columns.length) rowsOf(this.grid)[0][0].tabIndex = 0;
    this.mark();
  }

  /** @param {number} at in each row, behind its name @param {Column} column */
  draw(at, column) {
    const cellOf = (/** @type {Element} */ row, /** @type {() => HTMLElement} */ make) => row.children[at] ?? row.appendChild(make());
    this.name(cellOf(this.head, () => h("span", { role: "columnheader" })), column);
    for (const row of this.rows) {
      const { domain } = row.dataset;
      const cell = cellOf(row, () => h("div", { role: "gridcell", className: "cell", tabIndex: -1 }, h("img", { alt: "", decoding: "sync" })));
      cell.querySelector("img").src = column.images[domain];
      cell.setAttribute("aria-label", `${domain}, seed ${column.seed}${this.reading(column, domain, ", ")}`);
    }
    this.foot.hidden = !column.labels;
    const classes = new Set(Object.values(column.labels ?? {}).map((label) => label.class)); // each one's, if they differ
    const label = cellOf(this.foot, () => h("span", { role: "gridcell", className: "label" }));
    label.textContent = [...classes].map(classText).join(" / ");
    label.classList.toggle("differ", classes.size > 1);
    /** @type {HTMLElement} */ (label).title = classes.size > 1 ? "the rows are read as different classes" : "";
  }

  /** Head a column with its seed, and with the number of the image, if the first of the seed did not pass. @param {Element} head @param {Column} column */
  name(head, { seed, index }) {
    const digits = String(seed);
    const short = digits.length > MOST_DIGITS ? `…${digits.slice(-LAST_DIGITS)}` : digits;
    head.replaceChildren(short, ...(index ? [" ", h("small", {}, `#${index}`)] : []));
    head.setAttribute("title", this.studio.title(this.pair({ seed, index, images: {} }).point));
  }

  /** @param {Column} column @param {string} domain @param {string} before */
  reading(column, domain, before) {
    const label = column.labels?.[domain];
    return label ? `${before}reads as ${classText(label.class)} (${Math.round(label.confidence * 100)} %)` : "";
  }

  scrolled() {
    const { scrollLeft, clientWidth, scrollWidth } = this.scroller;
    if (scrollLeft + 2 * clientWidth > scrollWidth) this.more();
    this.seed.value = String(this.seedInView);
    this.set({ seed: this.seedInView });
  }

  /** Return a column as a pair. @param {Column} column @returns {import("./studio.js").Pair} */
  pair({ seed, index, images }) {
    const point = index ? `${seed}.${index}` : `${seed}`;
    return { point, title: this.studio.title(point), images };
  }

  /** Return the place of a cell in its row, behind its name; -1 if there is none. @param {HTMLElement | null} cell */
  placeOf(cell) {
    return cell ? [...cell.parentElement.children].indexOf(cell) - 1 : -1;
  }

  /** Light up the column of a cell; none puts the light out. @param {HTMLElement | null} cell */
  peek(cell) {
    const at = this.placeOf(cell);
    const column = this.columns[at];
    for (const one of this.grid.querySelectorAll(".on")) one.classList.remove("on");
    if (column) for (const row of this.grid.children) row.children[at + 1].classList.add("on");
    if (column) cell.parentElement.firstElementChild.classList.add("on");
    this.grid.classList.toggle("lit", Boolean(column));
    this.caption.textContent = column ? this.describe(column) : this.passedOver();
    if (column) this.told.textContent = "";
    this.dispatchEvent(new CustomEvent("peek", { bubbles: true, detail: column ? this.pair(column) : null }));
  }

  /** @param {Column} column */
  describe(column) {
    const passed = column.index ? ` (the first of its images that passes, number ${column.index})` : "";
    const read = this.studio.domains.map((name) => this.reading(column, name, `${name} `)).filter(Boolean);
    return `Seed ${column.seed}${passed}: ${read.join("; ") || "one random number, drawn in every row"}`;
  }

  /** Return what the filters passed over. */
  passedOver() {
    const over = this.columns.reduce((sum, column) => sum + column.index, 0);
    const { class: named, confidence, agree } = this.state;
    return named || confidence || agree ? `${this.columns.length} pairs shown of ${over + this.columns.length} drawn; ${over} passed over by the filters` : "";
  }

  /** Keep a column: it is looked at closely, and is a key frame; one that is kept is left out again. @param {HTMLElement | null} cell */
  choose(cell) {
    const column = this.columns[this.placeOf(cell)];
    if (!column) return;
    const { keys, pin } = this.state;
    const { point } = this.pair(column);
    const kept = keys.includes(point);
    const next = kept ? keys.filter((one) => one !== point) : [...keys, point];
    this.set(kept ? { pin: pin === point ? null : pin, keys: next, frame: 0 } : { pin: point, keys: next });
    this.told.textContent = `${kept ? "Removed from" : "Added to"} the walk (${next.length})`;
  }

  /** Mark the columns that are kept. */
  mark() {
    const { pin, keys } = this.state;
    this.caption.textContent = this.passedOver();
    this.columns.map((column) => this.pair(column).point).forEach((point, i) => {
      this.head.children[i + 1].classList.toggle("key", keys.includes(point));
      for (const row of this.rows) row.children[i + 1].setAttribute("aria-selected", String(point === pin));
    });
  }
}
customElements.define("pair-strip", PairStrip);
