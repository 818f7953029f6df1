/** Sliders that redraw as they move: variety and directions; and filters, if the service has them. */

import { h } from "./dom.js";
import { Part } from "./studio.js";

const WIDEST = 3; // of a normal prior, from which on nothing is cut off
export const MOST_SPREADS = 10; // that the service takes
const SPREADS = 2; // to either side of a direction

/** Return the bound on a latent's values from which on nothing is cut off. @param {boolean} normal */
export const mostVaried = (normal) => (normal ? WIDEST : 1);

export class PairSteer extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    studio.store.when(["truncation", "directions", "class", "confidence", "agree"], () => this.draw());
  }

  open() {
    const { card, normal } = this.studio;
    const most = mostVaried(normal);
    /** @type {(() => void)[]} */
    this.draws = [];
    const variety = this.slider("Variety", [normal ? 0.3 : 0.1, most, 0.1], () => this.state.truncation ?? most,
      (value) => this.set({ truncation: value >= most ? null : value }), (value) => (value >= most ? "all" : `±${value.toFixed(1)}`));
    const directions = card.directions.map(({ name }, i) => {
      const key = name ?? String(i + 1);
      return this.slider(name ?? `Direction ${key}`, [-SPREADS, SPREADS, 0.1], () => this.state.directions[key] ?? 0,
        (value) => this.set({ directions: { ...this.state.directions, [key]: value } }), (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`);
    });
    this.reset = h("button", { className: "quiet", onclick: () => this.set({ truncation: null, directions: {} }) }, "Reset");
    this.filters = h("fieldset", { className: "filters", hidden: true });
    this.replaceChildren(
      h("fieldset", {}, h("legend", {}, "Steer all pictures at once",
        directions.length && h("small", {}, "directions are what this model varies most")), h("div", { className: "sliders" }, variety, ...directions, this.reset)),
      this.filters);
    this.draw();
  }

  /** Show the filters that the service has, for models with classifiers. */
  offerFilters() {
    const [classifier] = this.studio.classifiers;
    this.filters.hidden = !classifier || !this.studio.can("/generate", "min_confidence");
    if (this.filters.hidden) return;
    const named = h("select", { onchange: () => this.set({ class: named.value || null }) },
      h("option", { value: "" }, "any"), ...classifier.classes.map((name) => h("option", { value: name }, name)));
    const agree = h("input", { type: "checkbox", onchange: () => this.set({ agree: agree.checked }) });
    const confidence = this.slider("at least this sure", [0, 0.99, 0.01], () => this.state.confidence,
      (value) => this.set({ confidence: value }), (value) => `${Math.round(value * 100)} %`);
    this.draws.push(() => ([named.value, agree.checked] = [this.state.class ?? "", this.state.agree]));
    this.filters.replaceChildren(h("legend", {}, "Only pairs that"), h("div", { className: "sliders" },
      h("label", {}, "read as ", named), confidence, h("label", {}, agree, " are read alike in every domain")));
    this.draw();
  }

  /**
   * @param {string} label @param {number[]} range lowest, highest, step @param {() => number} read
   * @param {(value: number) => void} write @param {(value: number) => string} say
   */
  slider(label, [min, max, step], read, write, say) {
    const output = h("output", {});
    const input = h("input", { type: "range", min: String(min), max: String(max), step: String(step), oninput: () => write(Number(input.value)) });
    this.draws.push(() => {
      input.value = String(read());
      output.textContent = say(read());
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return h("label", { className: "slider" }, h("span", {}, label), input, output); // a label is of its first field
  }

  draw() {
    for (const draw of this.draws) draw();
    const { truncation, directions } = this.state;
    this.reset.disabled = truncation === null && !Object.values(directions).some(Boolean);
  }
}
customElements.define("pair-steer", PairSteer);
