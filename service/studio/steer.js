/** Sliders that redraw as they move: variety and directions; and filters, if the service has them. */

import { classText, h } from "./dom.js";
import { Part } from "./studio.js";

const WIDEST = 3; // of a normal prior, from which on nothing is cut off
export const MOST_SPREADS = 10; // that the service takes
const SPREADS = 2; // to either side of a direction
const FIRST = 4; // directions, which the others are folded away behind

const AGREE_WELL = 0.9; // share of pairs of one class, below which a model opens with filters

/** Return the smallest share of pairs that are of one class, as measured; 1 if it was not. @param {import("./studio.js").Card} card */
const weakest = (card) => Math.min(1, .../** @type {number[]} */ (Object.values(card.quality.class_agreement ?? {})));

/**
 * Return the filters that a model opens with: few pairs of a weak one agree, so those that do are shown.
 * @param {import("./studio.js").Studio} studio @returns {{class: string | null, confidence: number, agree: boolean}}
 */
export function usualFilters({ card, classifiers }) {
  const weak = classifiers.length > 1 && weakest(card) < AGREE_WELL;
  return { class: null, confidence: weak ? 0.9 : 0, agree: weak };
}

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
      (value) => this.set({ truncation: value >= most ? null : value }), (value) => (value >= most ? "any" : `±${value.toFixed(1)}`), "how unusual pictures may be");
    const directions = card.directions.map(({ name }, i) => {
      const key = name ?? String(i + 1);
      return this.slider(name ?? `Direction ${key}`, [-SPREADS, SPREADS, 0.1], () => this.state.directions[key] ?? 0,
        (value) => this.set({ directions: { ...this.state.directions, [key]: value } }), (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`);
    });
    this.reset = h("button", { className: "quiet", onclick: () => this.set({ truncation: null, directions: {} }) }, "Reset");
    this.filters = h("fieldset", { className: "filters", hidden: true });
    const rest = directions.slice(FIRST);
    this.more = h("details", {}, h("summary", {}, `${rest.length} more directions`), h("div", { className: "sliders" }, ...rest));
    this.replaceChildren(
      h("fieldset", {}, h("legend", {}, "Steer all pictures at once",
        directions.length && h("small", {}, "directions are what this model varies most")),
      h("div", { className: "sliders" }, variety, ...directions.slice(0, FIRST), this.reset), rest.length && this.more),
      this.filters);
    this.more.open = card.directions.slice(FIRST).some(({ name }, i) => this.state.directions[name ?? String(FIRST + i + 1)]);
    this.draw();
  }

  /** Show the filters that the service has, for models with classifiers. */
  offerFilters() {
    const [classifier] = this.studio.classifiers;
    this.filters.hidden = !classifier || !this.studio.can("/generate", "min_confidence");
    if (this.filters.hidden) return;
    const named = h("select", { onchange: () => this.set({ class: named.value || null }) },
      h("option", { value: "" }, "any"), ...classifier.classes.map((name) => h("option", { value: name }, classText(name))));
    const agree = h("input", { type: "checkbox", onchange: () => this.set({ agree: agree.checked }) });
    const confidence = this.slider("classifier at least", [0, 0.99, 0.01], () => this.state.confidence,
      (value) => this.set({ confidence: value }), (value) => `${Math.round(value * 100)} % sure`);
    const agreeing = weakest(this.studio.card);
    const note = agreeing < AGREE_WELL && h("small", {}, `of 100 pairs of this model about ${Math.floor(100 * agreeing)} do`);
    this.draws.push(() => ([named.value, agree.checked] = [this.state.class ?? "", this.state.agree]));
    this.filters.replaceChildren(h("legend", {}, "Only pairs that"), h("div", { className: "sliders" },
      h("label", {}, "read as ", named), confidence, h("label", {}, agree, " all rows show the same class ", note)));
    this.draw();
  }

  /**
   * @param {string} label @param {number[]} range lowest, highest, step @param {() => number} read
   * @param {(value: number) => void} write @param {(value: number) => string} say @param {string} [hint]
   */
  slider(label, [min, max, step], read, write, say, hint) {
    const output = h("output", {});
    const input = h("input", { type: "range", min: String(min), max: String(max), step: String(step), oninput: () => write(Number(input.value)) });
    this.draws.push(() => {
      input.value = String(read());
      output.textContent = say(read());
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return h("label", { className: "slider" }, h("span", {}, label, hint && h("small", {}, ` ${hint}`)), input, output); // a label is of its first field
  }

  draw() {
    for (const draw of this.draws) draw();
    const { truncation, directions } = this.state;
    this.reset.disabled = truncation === null && !Object.values(directions).some(Boolean);
  }
}
customElements.define("pair-steer", PairSteer);
