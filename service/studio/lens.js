/** The lens: one pair closely. Two domains lie over one another, and a border between them can be moved. */

import { Latest } from "./api.js";
import { h, save, size, wholeScale } from "./dom.js";
import { addTexts, dataBytes } from "./files.js";

/** @typedef {import("./studio.js").Pair} Pair */

export class PairLens extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    this.latest = new Latest(studio.report);
    /** @type {Pair | null} */
    this.pinned = null;
    /** @type {Pair | null} */
    this.shown = null;
    const { store } = studio;
    store.when(["pin", "truncation", "directions"], () => this.fetch());
    store.when(["wipe", "left", "right"], () => this.draw());
  }

  /** Lay out a model's domains. @param {Pair} first shown while none is kept */
  async open(first) {
    const { domains, store, card } = this.studio;
    this.first = first;
    this.model = card;
    this.pinned = this.peeked = null;
    const pick = (/** @type {"left" | "right"} */ side, /** @type {string} */ label) => {
      const change = (/** @type {Event} */ event) => store.set({ [side]: /** @type {HTMLSelectElement} */ (event.target).value });
      return h("select", { "aria-label": label, onchange: change }, ...domains.map((name) => h("option", { value: name }, name)));
    };
    this.left = pick("left", "Domain left of the border");
    this.right = pick("right", "Domain right of the border");
    this.below = h("img", { alt: "" });
    this.above = h("img", { alt: "" });
    const moved = (/** @type {Event} */ event) => store.set({ wipe: Number(/** @type {HTMLInputElement} */ (event.target).value) });
    this.border = h("input", { type: "range", min: "0", max: "100", step: "1", "aria-label": "Border between the two domains", oninput: moved });
    this.glass = h("div", { className: "glass" }, this.below, h("div", { className: "half" }, this.above), h("span", { className: "border" }), this.border);
    this.title_ = h("h2", {});
    this.thumbs = h("div", { className: "thumbs" });
    this.add = h("button", { className: "main", onclick: () => this.keep() }, "Add to the walk");
    this.replaceChildren(
      this.title_,
      h("div", { className: "wipe" }, this.glass, domains.length > 1 && h("div", { className: "ends" }, this.left, this.right)),
      this.thumbs,
      h("div", { className: "bar" }, this.add));
    this.glass.classList.toggle("single", domains.length < 2);
    const widest = Math.max(...card.domains.map((/** @type {any} */ domain) => domain.width));
    size(this.glass, card.domains[0], wholeScale(widest, Math.min(308, this.clientWidth - 48), Math.floor));
    await this.fetch();
  }

  /** Fetch the kept pair as it is now. */
  async fetch() {
    const { pin } = this.studio.state;
    if (!pin) {
      this.pinned = null;
      return this.draw();
    }
    if (this.peeked?.point === pin) this.pinned = this.peeked;
    await this.latest.run(async (signal) => {
      this.pinned = await this.studio.pair(pin, signal);
      this.draw();
    });
  }

  /** Show a pair that is pointed at; none returns to the one kept. @param {Pair | null} pair */
  peek(pair) {
    this.peeked = pair;
    if (pair) this.first = pair;
    this.draw();
  }

  draw() {
    const pair = this.peeked ?? this.pinned ?? this.first;
    const { domains, state, card } = this.studio;
    if (!pair || this.model !== card) return;
    const [left, right] = this.sides();
    this.shown = pair;
    this.title_.textContent = `${pair.title[0].toUpperCase()}${pair.title.slice(1)}, closely`;
    [this.left.value, this.right.value, this.border.value] = [left, right, String(state.wipe)];
    this.above.src = pair.images[left];
    this.below.src = pair.images[right];
    this.glass.style.setProperty("--border", `${state.wipe}%`);
    this.add.disabled = state.keys.includes(pair.point);
    domains.forEach((name, i) => {
      const thumb = this.thumbs.children[i] ?? this.thumbs.appendChild(this.thumb(name));
      const image = /** @type {HTMLImageElement} */ (thumb.querySelector("img"));
      image.src = pair.images[name];
      image.alt = `${name} of ${pair.title}`;
      size(image, card.domains[i], wholeScale(card.domains[i].width, 84));
    });
  }

  /** Domains left and right of the border. */
  sides() {
    const { domains, state } = this.studio;
    const known = (/** @type {string | null} */ name, /** @type {number} */ i) => (name && domains.includes(name) ? name : domains[Math.min(i, domains.length - 1)]);
    return [known(state.left, 0), known(state.right, 1)];
  }

  /** @param {string} name */
  thumb(name) {
    const button = h("button", { className: "quiet", "aria-label": `Save ${name} as PNG`, onclick: () => this.save(name) }, "Save PNG");
    return h("figure", {}, h("img", { alt: "" }), h("figcaption", {}, name, button));
  }

  keep() {
    const { store, state } = this.studio;
    if (this.shown) store.set({ keys: [...state.keys, this.shown.point], pin: this.shown.point });
  }

  /** Save an image as the service sent it, with what it is. @param {string} domain */
  save(domain) {
    const { point, images } = /** @type {Pair} */ (this.shown);
    const texts = this.studio.texts(point, { Domain: domain });
    save(addTexts(dataBytes(images[domain]), texts), `${this.studio.card.name}-${point}-${domain}.png`);
  }
}
customElements.define("pair-lens", PairLens);
