/** The plane between four corners: every place on it is a pair, and every domain shows it; click to zoom in. */

import { Latest } from "./api.js";
import { arrowKeys, h, size, wholeScale } from "./dom.js";
import { MAX_SEED } from "./state.js";

const SIDE = 8; // cells of a side, at most
const ZOOM = 2;
const CORNERS = ["top left", "top right", "bottom left", "bottom right"];

export class PairPlane extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    this.latest = new Latest(studio.report);
    /** @type {{images: Record<string, string>}[]} */
    this.pairs = [];
    /** @type {number[][]} */
    this.places = [];
    studio.store.when(["corners", "view", "truncation", "directions"], () => this.fetch());
  }

  async open() {
    const { card, store, domains } = this.studio;
    /** @type {HTMLInputElement[]} */
    this.corners = CORNERS.map((name, i) => h("input", {
      type: "number", min: "0", max: String(MAX_SEED), "aria-label": `Seed of the corner at the ${name}`,
      onchange: () => this.corners[i].checkValidity() && this.corners[i].value &&
        store.set({ corners: store.state.corners.with(i, this.corners[i].value), view: [0, 0, 1] }),
    }));
    this.side = Math.min(SIDE, Math.floor(Math.sqrt(this.studio.limit("/generate", "latents", 64))));
    const across = this.clientWidth / domains.length > 200 ? domains.length : 1;
    const room = Math.min(460, (this.clientWidth - 36) / across - 20);
    /** @type {HTMLElement[]} */
    this.maps = card.domains.map((/** @type {any} */ domain) => {
      const map = h("div", { role: "grid", className: "map", "aria-label": `The plane in the domain ${domain.name}` });
      size(map, domain, wholeScale(domain.width, room / this.side, Math.floor));
      return map;
    });
    this.out = h("button", { onclick: () => this.zoom(null, 1 / ZOOM) }, "Zoom out");
    this.whole = h("button", { onclick: () => store.set({ view: [0, 0, 1] }) }, "Whole plane");
    this.replaceChildren(
      h("h2", {}, "The plane between four seeds"),
      h("p", { className: "hint" }, "Neighbours differ a little. Click a place to zoom into it."),
      h("div", { className: "maps" }, ...this.maps.map((map, i) => h("figure", {},
        h("figcaption", {}, domains[i]),
        !i && h("div", { className: "corners" }, ...this.corners.slice(0, 2)), map,
        !i && h("div", { className: "corners" }, ...this.corners.slice(2))))),
      h("div", { className: "bar" }, this.out, this.whole));
    this.maps.forEach((map) => this.listen(map));
    await this.fetch();
  }

  /** @param {HTMLElement} map */
  listen(map) {
    const at = (/** @type {Event} */ event) => {
      const cell = /** @type {HTMLElement} */ (event.target).closest(".cell");
      return cell instanceof HTMLElement ? Number(cell.dataset.at) : null;
    };
    for (const kind of ["pointerover", "focusin"]) map.addEventListener(kind, (event) => this.peek(at(event)));
    for (const kind of ["pointerleave", "focusout"]) map.addEventListener(kind, () => this.peek(null));
    map.addEventListener("click", (event) => this.enter(at(event)));
    map.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " " || event.key === "+") event.preventDefault(), this.enter(at(event));
      if (event.key === "-" || event.key === "Backspace") event.preventDefault(), this.zoom(null, 1 / ZOOM);
    });
    arrowKeys(map, () => [...map.children].map((row) => [...row.children].map((cell) => /** @type {HTMLElement} */ (cell))));
  }

  fetch() {
    const { corners, view } = this.studio.state;
    const [x, y, side] = view;
    this.corners.forEach((input, i) => (input.value = corners[i].split(".")[0]));
    this.out.disabled = this.whole.disabled = side === 1;
    const steps = Array.from({ length: this.side }, (_, i) => i / (this.side - 1));
    this.places = steps.flatMap((v) => steps.map((u) => [x + u * side, y + v * side].map((one) => +one.toFixed(6))));
    return this.latest.run(async (signal) => {
      const latents = await this.studio.plane(corners, this.places, signal);
      const { model, directions } = /** @type {any} */ (this.studio.commonBody);
      const body = { model, latents, ...(directions && { directions }) };
      this.pairs = (await this.studio.api.json(this.studio.api.url("generate"), { body, signal })).pairs;
      this.draw();
    });
  }

  draw() {
    this.studio.domains.forEach((name, d) => {
      const map = this.maps[d];
      if (map.childElementCount !== this.side) map.replaceChildren(...this.rows());
      this.cells(map).forEach((cell, i) => {
        /** @type {HTMLImageElement} */ (cell.firstElementChild).src = this.pairs[i].images[name];
      });
    });
  }

  rows() {
    const row = (/** @type {number} */ y) => h("div", { role: "row" }, ...Array.from({ length: this.side }, (_, x) => {
      const cell = h("div", { role: "gridcell", className: "cell", tabIndex: x || y ? -1 : 0, "aria-label": `row ${y + 1}, column ${x + 1}` },
        h("img", { alt: "", decoding: "sync" }));
      cell.dataset.at = String(y * this.side + x);
      return cell;
    }));
    return Array.from({ length: this.side }, (_, y) => row(y));
  }

  /** @param {HTMLElement} map @returns {HTMLElement[]} */
  cells(map) {
    return [...map.querySelectorAll(".cell")].map((cell) => /** @type {HTMLElement} */ (cell));
  }

  /** Return the name of a place. @param {number} at */
  point(at) {
    return `p${this.studio.state.corners.join(",")}@${this.places[at].join(",")}`;
  }

  /** Light up a place in every domain. @param {number | null} at */
  peek(at) {
    for (const map of this.maps) this.cells(map).forEach((cell, i) => cell.classList.toggle("on", i === at));
    const pair = at === null || !this.pairs[at] ? null : { point: this.point(at), title: "a point of the plane", images: this.pairs[at].images };
    this.dispatchEvent(new CustomEvent("peek", { bubbles: true, detail: pair }));
  }

  /** Keep a place, and zoom into it. @param {number | null} at */
  enter(at) {
    if (at === null) return;
    this.studio.store.set({ pin: this.point(at) });
    this.zoom(this.places[at], ZOOM);
  }

  /** Zoom around a place, or around the middle. @param {number[] | null} place @param {number} factor */
  zoom(place, factor) {
    const [x, y, side] = this.studio.state.view;
    const next = Math.min(1, side / factor);
    if (next < 1e-4) return;
    const [u, v] = place ?? [x + side / 2, y + side / 2];
    const start = (/** @type {number} */ middle) => +Math.max(0, Math.min(1 - next, middle - next / 2)).toFixed(6);
    this.studio.store.set({ view: [start(u), start(v), next] });
  }
}
customElements.define("pair-plane", PairPlane);
