/** Sliders that redraw as they move: variety and directions; and filters, if the service has them. */

import { h } from "./dom.js";

const WIDEST = 3; // of a normal prior, from which on nothing is cut off
const SPREADS = 2; // to either side of a direction

export class PairSteer extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    studio.store.when(["truncation", "directions", "class", "confidence", "agree"], () => this.draw());
  }

  open() {
    const { card, store } = this.studio;
    const normal = card.prior.distribution === "normal";
    const most = normal ? WIDEST : 1;
    /** @type {(() => void)[]} */
    this.draws = [];
    const variety = this.slider("Variety", { min: normal ? 0.3 : 0.1, max: most, step: 0.1 },
      () => store.state.truncation ?? most,
      (value) => store.set({ truncation: value >= most ? null : value }),
      (value) => (value >= most ? "all" : `within ±${value.toFixed(1)}`));
    const directions = (card.directions ?? []).map((/** @type {any} */ direction, /** @type {number} */ i) => {
      const key = direction.name ?? String(i + 1);
      return this.slider(direction.name ?? `Direction ${i + 1}`, { min: -SPREADS, max: SPREADS, step: 0.1 },
        () => store.state.directions[key] ?? 0,
        (value) => store.set({ directions: { ...store.state.directions, [key]: value } }),
        (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`);
    });
    this.reset = h("button", { className: "quiet", onclick: () => store.set({ truncation: null, directions: {} }) }, "Reset");
    this.filters = h("fieldset", { className: "filters", hidden: true });
    this.replaceChildren(
      h("fieldset", {}, h("legend", {}, directions.length ? "Steer all pictures at once" : "Steer"), h("div", { className: "sliders" }, variety, ...directions, this.reset)),
      this.filters);
    this.draw();
  }

  /** Show the filters that the service has, for models with classifiers. */
  offerFilters() {
    const { studio } = this;
    const [classifier] = studio.classifiers;
    this.filters.hidden = !classifier || !studio.can("/generate", "min_confidence");
    if (this.filters.hidden) return;
    const { store } = studio;
    const named = h("select", { onchange: () => store.set({ class: named.value || null }) },
      h("option", { value: "" }, "any"), ...classifier.classes.map((/** @type {string} */ name) => h("option", { value: name }, name)));
    const agree = h("input", { type: "checkbox", onchange: () => store.set({ agree: agree.checked }) });
    const confidence = this.slider("at least this sure", { min: 0, max: 0.99, step: 0.01 },
      () => store.state.confidence, (value) => store.set({ confidence: value }), (value) => `${Math.round(value * 100)} %`);
    this.draws.push(() => ([named.value, agree.checked] = [store.state.class ?? "", store.state.agree]));
    this.filters.replaceChildren(h("legend", {}, "Only pairs that"), h("div", { className: "sliders" },
      h("label", {}, "read as ", named), confidence, h("label", {}, agree, " are read alike in every domain")));
    this.draw();
  }

  /**
   * @param {string} label @param {{min: number, max: number, step: number}} range @param {() => number} read
   * @param {(value: number) => void} write @param {(value: number) => string} say
   */
  slider(label, range, read, write, say) {
    const output = h("output", {});
    const input = h("input", { type: "range", ...Object.fromEntries(Object.entries(range).map(([name, value]) => [name, String(value)])),
      oninput: () => write(Number(input.value)) });
    this.draws.push(() => {
      input.value = String(read());
      output.textContent = say(read());
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return h("label", { className: "slider" }, h("span", {}, label), input, output);
  }

  draw() {
    for (const draw of this.draws) draw();
    const { truncation, directions } = this.studio.state;
    this.reset.disabled = truncation === null && !Object.values(directions).some(Boolean);
  }
}
customElements.define("pair-steer", PairSteer);
