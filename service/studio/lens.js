/** The lens: one pair closely. Two domains lie over one another, and a border between them can be moved. */

import { h, save, size, wholeScale, widest } from "./dom.js";
import { addTexts } from "./files.js";
import { kindOf } from "./state.js";
import { Part } from "./studio.js";

/** @typedef {import("./studio.js").Pair} Pair */

export class PairLens extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    studio.store.when(["pin", "truncation", "directions"], () => this.fetch());
    studio.store.when(["wipe", "left", "right"], () => this.draw());
  }

  /** Lay out a model's domains. @param {Pair} first shown while none is kept */
  async open(first) {
    const { domains, card } = this.studio;
    this.first = first;
    this.model = card;
    /** @type {Pair} */
    this.pinned = null;
    /** @type {Pair} */
    this.peeked = null;
    const pick = (/** @type {"left" | "right"} */ side) => {
      const select = h("select", { "aria-label": `Domain ${side} of the border`, onchange: () => this.pick(side, select.value) },
        ...domains.map((name) => h("option", { value: name }, name)));
      return select;
    };
    this.left = pick("left");
    this.right = pick("right");
    this.below = h("img", { alt: "" });
    this.above = h("img", { alt: "" });
    this.border = h("input", { type: "range", min: "0", max: "100", step: "1", "aria-label": "Border between the two domains", oninput: () => this.set({ wipe: Number(this.border.value) }) });
    this.glass = h("div", { className: "glass" }, this.below, h("div", { className: "half" }, this.above), h("span", { className: "border" }), this.border);
    this.glass.classList.toggle("single", domains.length < 2);
    size(this.glass, card.domains[0], wholeScale(widest(card.domains), Math.min(308, this.clientWidth - 48), Math.floor));
    this.heading = h("h2", {});
    this.thumbs = card.domains.map((domain) => size(h("img", { alt: "" }), domain, wholeScale(domain.width, 84)));
    this.add = h("button", { className: "main", onclick: () => this.keep() }, "Add to the walk");
    this.replaceChildren(
      this.heading,
      h("div", { className: "wipe" }, this.glass, domains.length > 1 && h("div", { className: "ends" }, this.left, this.right)),
      h("div", { className: "thumbs" }, ...domains.map((name, i) => h("figure", {}, this.thumbs[i], h("figcaption", {}, name,
        h("button", { className: "quiet", "aria-label": `Save ${name} as PNG`, onclick: () => this.save(name).catch(this.studio.report) }, "Save PNG"))))),
      h("div", { className: "bar" }, this.add));
    await this.fetch();
  }

  /** Return the domains to both sides of the border. */
  get sides() {
    const { left, right } = this.state;
    const { domains } = this.studio;
    return [left, right].map((name, i) => (domains.includes(name) ? name : domains[Math.min(i, domains.length - 1)]));
  }

  /** Lay a domain on one side; if the other has it, they change places. @param {"left" | "right"} side @param {string} name */
  pick(side, name) {
    const [left, right] = this.sides;
    if ((side === "left" ? right : left) === name) this.set({ left: right, right: left });
    else this.set({ [side]: name });
  }

  /** Fetch the kept pair as it is now. */
  async fetch() {
    const { pin } = this.state;
    this.pinned = pin && this.peeked?.point === pin ? this.peeked : pin && this.pinned;
    if (!pin) return this.draw();
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

  /** Show a pair of the strip, which was redrawn, while none is kept: the one shown before if it is there. @param {Pair[]} pairs */
  follow(pairs) {
    this.first = pairs.find(({ point }) => point === this.first?.point) ?? pairs[0];
    this.draw();
  }

  get shown() {
    return this.peeked ?? this.pinned ?? this.first;
  }

  draw() {
    if (!this.shown || this.model !== this.studio.card) return;
    const { domains } = this.studio;
    const { point, title, images } = this.shown;
    const { wipe, keys } = this.state;
    const { sides } = this;
    this.heading.textContent = `${title[0].toUpperCase()}${title.slice(1)}, closely`;
    [this.left.value, this.right.value] = sides;
    [this.above.src, this.below.src] = sides.map((name) => images[name]);
    this.border.value = String(wipe);
    this.glass.style.setProperty("--border", `${wipe}%`);
    this.add.disabled = keys.includes(point);
    domains.forEach((name, i) => Object.assign(this.thumbs[i], { src: images[name], alt: `${name} of ${title}` }));
  }

  keep() {
    const { point } = this.shown;
    this.set({ keys: [...this.state.keys, point], pin: point });
  }

  /** Save an image, enlarged by whole pixels, with what it is. @param {string} domain */
  async save(domain) {
    const { point } = this.shown;
    const { card } = this.studio;
    const texts = this.studio.texts(point, { Domain: domain });
    const kind = kindOf(point);
    save(addTexts(await this.studio.picture(point, domain), texts), `${card.name}-${kind === "given" ? kind : point}-${domain}.png`);
  }
}
customElements.define("pair-lens", PairLens);
