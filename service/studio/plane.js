/** The plane between four corners: every place on it is a pair, and every domain shows it; click to zoom in. */

import { CLICK, h, listen, rowsOf, size, typedSeed, wholeScale } from "./dom.js";
import { MAX_SEED } from "./state.js";
import { Part } from "./studio.js";

const SIDE = 8; // cells of a side, at most
const ZOOM = 2;
const CORNERS = ["top left", "top right", "bottom left", "bottom right"];

export class PairPlane extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    /** @type {{images: import("./studio.js").Images}[]} */
    this.pairs = [];
    /** @type {number[][]} */
    this.places = [];
    studio.store.when(["corners", "view", "truncation", "directions"], () => this.refresh());
  }

  async open() {
    const { card, domains } = this.studio;
    /** @type {HTMLInputElement[]} */
    this.corners = CORNERS.map((name, i) => h("input", {
      type: "number", min: "0", max: String(MAX_SEED), required: true, "aria-label": `Seed at the ${name}`,
      onchange: () => this.type(i),
    }));
    this.side = Math.min(SIDE, Math.floor(Math.sqrt(this.studio.limit("/generate", "latents", 64))));
    const across = this.clientWidth / domains.length > 200 ? domains.length : 1;
    const room = Math.min(460, (this.clientWidth - 36) / across - 20);
    this.maps = card.domains.map((domain) => {
      const map = h("div", { role: "grid", className: "map", "aria-label": `The plane in the domain ${domain.name}` }, ...this.rows());
      listen(map, (cell) => this.peek(this.numberOf(cell)), (cell) => this.enter(this.numberOf(cell)));
      map.addEventListener("keydown", (event) => (event.key === "-" || event.key === "Backspace") && this.zoom(null, 1 / ZOOM));
      return size(map, domain, wholeScale(domain.width, room / this.side, Math.floor));
    });
    this.out = h("button", { onclick: () => this.zoom(null, 1 / ZOOM) }, "Zoom out");
    this.whole = h("button", { onclick: () => this.set({ view: [0, 0, 1] }) }, "Whole plane");
    this.replaceChildren(
      h("h2", {}, "The plane between four seeds"),
      h("p", { className: "hint" }, `Neighbours differ a little. ${CLICK} a place to zoom into it.`),
      h("div", { className: "bar corners" }, ...CORNERS.map((name, i) => h("label", {}, `${name} `, this.corners[i])), this.out, this.whole),
      h("div", { className: "maps" }, ...this.maps.map((map, i) => h("figure", {}, h("figcaption", {}, domains[i]), map))));
    await this.fetch();
  }

  /** Take a corner's seed as typed. @param {number} i */
  type(i) {
    const seed = typedSeed(this.corners[i]);
    if (seed === null) return;
    this.set({ corners: this.state.corners.with(i, String(seed)), view: [0, 0, 1] });
    this.corners[i].value = String(seed);
  }

  rows() {
    const numbers = Array.from({ length: this.side }, (_, i) => i);
    return numbers.map((y) => h("div", { role: "row" }, ...numbers.map((x) =>
      h("div", { role: "gridcell", className: "cell", tabIndex: x || y ? -1 : 0, "aria-label": `row ${y + 1}, column ${x + 1}` }, h("img", { alt: "", decoding: "sync" })))));
  }

  /** Return the number of a cell; -1 if it is none. @param {HTMLElement | null} cell */
  numberOf(cell) {
    return cell ? rowsOf(cell.closest(".map")).flat().indexOf(cell) : -1;
  }

  async fetch() {
    const { corners, view: [x, y, side] } = this.state;
    this.corners.forEach((input, i) => (input.value = corners[i].split(".")[0]));
    const left = side === 1 && [this.out, this.whole].some((button) => button === document.activeElement);
    if (left) /** @type {HTMLElement} */ (this.querySelector(".cell[tabindex='0']")).focus(); // a disabled button loses it
    this.out.disabled = this.whole.disabled = side === 1;
    const steps = Array.from({ length: this.side }, (_, i) => i / (this.side - 1));
    this.places = steps.flatMap((v) => steps.map((u) => [x + u * side, y + v * side].map((one) => +one.toFixed(6))));
    await this.latest.run(async (signal) => {
      const { api, common: { model, directions } } = this.studio;
      const latents = await this.studio.plane(corners, this.places, signal);
      this.pairs = (await api.json(api.url("generate"), { body: { model, directions, latents }, signal })).pairs;
      this.maps.forEach((map, d) => map.querySelectorAll("img").forEach((image, i) => (image.src = this.pairs[i].images[this.studio.domains[d]])));
    });
  }

  /** Return the name of a place. @param {number} at */
  point(at) {
    return `p${this.state.corners.join(",")}@${this.places[at].join(",")}`;
  }

  /** Light up a place in every domain. @param {number} at */
  peek(at) {
    for (const map of this.maps) rowsOf(map).flat().forEach((cell, i) => cell.classList.toggle("on", i === at));
    const pair = this.pairs[at] ? { point: this.point(at), title: this.studio.title("p"), images: this.pairs[at].images } : null;
    this.dispatchEvent(new CustomEvent("peek", { bubbles: true, detail: pair }));
  }

  /** Keep a place, and zoom into it. @param {number} at */
  enter(at) {
    if (at < 0) return;
    this.set({ pin: this.point(at) });
    this.zoom(this.places[at], ZOOM);
  }

  /** Zoom around a place, or around the middle. @param {number[] | null} place @param {number} factor */
  zoom(place, factor) {
    const [x, y, side] = this.state.view;
    const next = Math.min(1, side / factor);
    if (next < 1e-4) return;
    const [u, v] = place ?? [x + side / 2, y + side / 2];
    const start = (/** @type {number} */ middle) => +Math.max(0, Math.min(1 - next, middle - next / 2)).toFixed(6);
    this.set({ view: [start(u), start(v), next] });
  }
}
customElements.define("pair-plane", PairPlane);
