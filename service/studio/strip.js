/** The strip: seeds as columns, domains as rows. A column lights up as a whole: its images are counterparts. */

import { Latest, Problem } from "./api.js";
import { arrowKeys, h, size, wholeScale } from "./dom.js";
import { MAX_SEED } from "./state.js";

const BATCH = 16; // columns of a request, at least
const MAX_COLUMNS = 400; // from then on, onward begins anew

/** @typedef {{seed: number, index: number, images: Record<string, string>, labels?: any, agree?: boolean}} Column */

export class PairStrip extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    this.latest = new Latest(studio.report);
    /** @type {Column[]} */
    this.columns = [];
    this.first = 0; // seed of the first column
    this.build();
    const { store } = studio;
    store.when(["seed"], () => store.state.seed !== this.seedInView && this.show(store.state.seed));
    store.when(["truncation", "directions", "class", "confidence", "agree"], () => this.redraw());
    store.when(["pin", "keys"], () => this.mark());
  }

  build() {
    this.seed = h("input", { type: "number", min: "0", max: String(MAX_SEED), step: "1", id: "seed", onchange: () => this.type() });
    this.grid = h("div", { role: "grid", "aria-label": "Pairs: a row for each domain, a column for each seed" });
    this.scroller = h("div", { className: "scroller", onscroll: () => this.scrolled() }, this.grid);
    this.caption = h("p", { className: "caption" });
    const turn = (/** @type {number} */ way) => this.show(Math.max(0, this.studio.state.seed + way * Math.max(1, this.visible - 1)));
    this.replaceChildren(
      this.scroller,
      h("div", { className: "bar" },
        h("label", {}, "First seed ", this.seed),
        h("button", { title: "Back", "aria-label": "Earlier seeds", onclick: () => turn(-1) }, "←"),
        h("button", { title: "On", "aria-label": "Later seeds", onclick: () => turn(1) }, "→"),
        h("button", { onclick: () => this.show(Math.floor(Math.random() * 1e6)) }, "Surprise me"),
        this.caption),
    );
    for (const [kind, act] of Object.entries({ pointerover: this.peek, focusin: this.peek, click: this.choose })) {
      this.grid.addEventListener(kind, (event) => act.call(this, cellOf(event.target)));
    }
    for (const kind of ["pointerleave", "focusout"]) this.grid.addEventListener(kind, () => this.peek(null));
    this.grid.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") event.preventDefault(), this.choose(cellOf(event.target));
    });
    arrowKeys(this.grid, () => this.rows.map((row) => this.cells(row)));
  }

  /** Rows of images. @returns {HTMLElement[]} */
  get rows() {
    return [...this.grid.querySelectorAll(".images")].map((row) => /** @type {HTMLElement} */ (row));
  }

  /** @param {HTMLElement} row @returns {HTMLElement[]} */
  cells(row) {
    return [...row.children].slice(1).map((cell) => /** @type {HTMLElement} */ (cell));
  }

  /** Lay out the rows of a model and show its pairs. */
  async open() {
    const { card, state } = this.studio;
    const target = this.clientWidth < 600 ? 56 : 84;
    const widest = Math.max(...card.domains.map((/** @type {any} */ domain) => domain.width));
    const scale = wholeScale(widest, target);
    this.columnWidth = widest * scale + 12;
    this.style.setProperty("--column", `${this.columnWidth}px`);
    const named = (/** @type {string} */ name, /** @type {string} */ text) =>
      h("span", { role: "rowheader", className: "name" }, h("b", {}, name), text ? h("small", {}, text) : null);
    this.head = h("div", { role: "row", className: "head" }, named("seed", ""));
    this.foot = h("div", { role: "row", className: "foot", hidden: true }, named("reads as", ""));
    this.grid.replaceChildren(this.head, ...card.domains.map((/** @type {any} */ domain) => {
      const row = h("div", { role: "row", className: "images" }, named(domain.name, domain.description));
      row.dataset.domain = domain.name;
      size(row, domain, scale);
      return row;
    }), this.foot);
    this.columns = [];
    await this.show(state.seed);
  }

  get visible() {
    const room = this.scroller.clientWidth - /** @type {HTMLElement} */ (this.head.firstElementChild).offsetWidth;
    return Math.max(1, Math.floor(room / this.columnWidth));
  }

  get seedInView() {
    return this.first + Math.round(this.scroller.scrollLeft / this.columnWidth);
  }

  type() {
    const value = Number(this.seed.value);
    if (this.seed.value !== "" && this.seed.checkValidity() && value <= MAX_SEED) this.show(value);
    else this.seed.value = String(this.studio.state.seed);
  }

  /** Show pairs from a seed on. @param {number} seed */
  async show(seed) {
    this.first = Math.min(seed, MAX_SEED - BATCH);
    this.scroller.scrollLeft = 0;
    this.seed.value = String(this.first);
    this.studio.store.set({ seed: this.first });
    await this.redraw();
  }

  /** Ask for what is in view again, and draw it in place. */
  async redraw() {
    await this.latest.run(async (signal) => {
      const first = this.seedInView;
      const pairs = await this.ask(first, this.visible + 2, signal);
      this.cut(first, pairs.length);
      pairs.forEach((pair, i) => this.put(i, pair));
      this.mark();
      this.dispatchEvent(new Event("drawn"));
    });
    for (let had = 0; had < this.columns.length && this.columns.length < this.visible; ) {
      had = this.columns.length;
      await this.more();
    }
  }

  /** @param {number} from @param {number} count @param {AbortSignal} signal @returns {Promise<Column[]>} */
  async ask(from, count, signal) {
    const { api, common, filters } = this.studio;
    const most = this.studio.limit("/generate", "seeds", 64);
    const seeds = Array.from({ length: Math.min(most, Math.max(count, 1)) }, (_, i) => from + i);
    try {
      return (await api.json(api.url("generate", { ...common, seeds, ...filters, ...this.labels }), { signal })).pairs;
    } catch (error) {
      if (!(error instanceof Problem && error.status === 413 && seeds.length > 1)) throw error;
      return this.ask(from, Math.floor(seeds.length / 2), signal); // the limit is lower, and not known yet
    }
  }

  get labels() {
    return this.studio.can("/generate", "labels") && this.studio.classifiers.length ? { labels: true } : {};
  }

  /** Drop columns before a seed and after so many. @param {number} first @param {number} count */
  cut(first, count) {
    const gone = first - this.first;
    for (const row of this.grid.children) {
      for (const cell of [...row.children].slice(1, 1 + gone)) cell.remove();
      for (const cell of [...row.children].slice(1 + count)) cell.remove();
    }
    this.first = first;
    this.columns.splice(0, gone);
    this.columns.length = Math.min(this.columns.length, count);
    if (gone) this.scroller.scrollLeft = 0;
  }

  /** Draw a column, a new one or in place. @param {number} i @param {Column} column */
  put(i, column) {
    this.columns[i] = column;
    const cellAt = (/** @type {Element} */ row, /** @type {() => HTMLElement} */ make) => {
      if (!row.children[i + 1]) row.append(make());
      return /** @type {HTMLElement} */ (row.children[i + 1]);
    };
    cellAt(this.head, () => h("span", { role: "columnheader" })).textContent = String(column.seed);
    for (const row of this.rows) {
      const domain = row.dataset.domain ?? "";
      const cell = cellAt(row, () => h("div", { role: "gridcell", className: "cell", tabIndex: -1 }, h("img", { alt: "", decoding: "sync" })));
      /** @type {HTMLImageElement} */ (cell.firstElementChild).src = column.images[domain];
      cell.setAttribute("aria-label", `${domain}, seed ${column.seed}${this.reading(column, domain)}`);
    }
    this.foot.hidden = !column.labels;
    cellAt(this.foot, () => h("span", { role: "gridcell", className: "label" })).textContent = this.summary(column);
    const [cell] = this.rows.length ? this.cells(this.rows[0]) : [];
    if (cell && !this.grid.querySelector(".cell[tabindex='0']")) cell.tabIndex = 0;
  }

  /** @param {Column} column @param {string} domain */
  reading(column, domain) {
    const label = column.labels?.[domain];
    return label ? `, reads as ${label.class} (${Math.round(label.confidence * 100)} %)` : "";
  }

  /** Return the class of all domains, or each one's where they differ. @param {Column} column */
  summary(column) {
    const classes = Object.values(column.labels ?? {}).map((label) => label.class);
    return [...new Set(classes)].join(" / ");
  }

  async more() {
    if (this.latest.busy || this.columns.length >= MAX_COLUMNS || !this.columns.length) return;
    await this.latest.run(async (signal) => {
      const next = this.first + this.columns.length;
      const at = this.columns.length;
      (await this.ask(next, BATCH, signal)).forEach((pair, i) => this.put(at + i, pair));
      this.mark();
    });
  }

  scrolled() {
    const { scrollLeft, clientWidth, scrollWidth } = this.scroller;
    if (scrollLeft + 2 * clientWidth > scrollWidth) this.more();
    this.seed.value = String(this.seedInView);
    this.studio.store.set({ seed: this.seedInView });
  }

  /** Return the point of a column. @param {Column} column */
  point(column) {
    return column.index ? `${column.seed}.${column.index}` : `${column.seed}`;
  }

  /** Light up the column of a cell; none puts the light out. @param {HTMLElement | null} cell */
  peek(cell) {
    const at = cell ? [...(cell.parentElement?.children ?? [])].indexOf(cell) : 0;
    const column = this.columns[at - 1];
    for (const one of this.grid.querySelectorAll(".on")) one.classList.remove("on");
    if (column) for (const row of this.grid.children) row.children[at]?.classList.add("on");
    for (const row of this.rows) row.firstElementChild?.classList.toggle("on", row === cell?.parentElement && Boolean(column));
    this.grid.classList.toggle("lit", Boolean(column));
    if (column) this.caption.textContent = this.describe(column);
    else this.tell();
    const pair = column && { point: this.point(column), title: this.studio.title(this.point(column)), images: column.images };
    this.dispatchEvent(new CustomEvent("peek", { bubbles: true, detail: pair ?? null }));
  }

  /** @param {Column} column */
  describe(column) {
    const read = this.studio.domains.filter((name) => column.labels?.[name]).map((name) => `${name}${this.reading(column, name)}`);
    const passed = column.index ? ` (the first of its images that passes, number ${column.index})` : "";
    return `Seed ${column.seed}${passed}: ${read.length ? read.join("; ").replaceAll(", reads as", " reads as") : "one latent vector, drawn in every row"}`;
  }

  /** Say what the filters passed over, or what to do. */
  tell() {
    const over = this.columns.reduce((sum, column) => sum + column.index, 0);
    const all = over + this.columns.length;
    const { class: named, confidence, agree } = this.studio.state;
    this.caption.textContent = named || confidence || agree ? `${this.columns.length} pairs shown of ${all} drawn; ${over} passed over by the filters` : "";
  }

  /** Keep a column: it is looked at closely, and is a key frame. @param {HTMLElement | null} cell */
  choose(cell) {
    const column = cell && this.columns[[...(cell.parentElement?.children ?? [])].indexOf(cell) - 1];
    if (!column) return;
    const { keys } = this.studio.state;
    const point = this.point(column);
    this.studio.store.set({ pin: point, keys: keys.includes(point) ? keys : [...keys, point] });
  }

  /** Mark the columns that are kept. */
  mark() {
    const { pin, keys } = this.studio.state;
    this.tell();
    this.columns.forEach((column, i) => {
      const point = this.point(column);
      this.head.children[i + 1].classList.toggle("key", keys.includes(point));
      for (const row of this.rows) row.children[i + 1].setAttribute("aria-selected", String(point === pin));
    });
  }
}
customElements.define("pair-strip", PairStrip);

/** @param {EventTarget | null} target @returns {HTMLElement | null} */
function cellOf(target) {
  return target instanceof HTMLElement ? target.closest(".cell") : null;
}
