/** A picture of one's own: chosen, dropped or drawn, and beside it its counterparts. */

import { h, listed, size, wholeScale } from "./dom.js";
import { PenBoard } from "./pen.js";
import { pointOf } from "./state.js";
import { Part } from "./studio.js";

export const PICTURES = "PNG, JPEG, WebP, GIF, BMP or TIFF";
export const REFUSED = [413, 415, 422]; // which the same request stays, as of a picture that is too large
const UNKNOWN_FORMAT = 415;
const WIDTH = 84;
/** @type {Record<string, string>} */
const LIKENESS = {
  unusual: " It is unusual for the model.",
  unlike: " It is unlike anything the model knows, so its counterparts mean little.",
};

export class OwnPicture extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    this.own = h("input", { type: "file", id: "own", accept: "image/*", onchange: () => {
      this.dispatchEvent(new CustomEvent("picture", { bubbles: true, detail: this.own.files[0] }));
      this.own.value = ""; // so that the same file can be chosen again
    } });
    this.result = h("div", { className: "result", role: "status" });
    this.text = h("div", { className: "hint" });
    this.board = h("div", { className: "board" });
    this.replaceChildren(
      h("h2", { id: "own-title" }, "A picture of your own"), this.text,
      h("div", { className: "easel" }, this.board, h("div", {}, this.result, h("label", { className: "file" }, "Choose a picture ", this.own))));
  }

  /** Say what the model reads; if that is grey, it can be drawn. */
  open() {
    const domains = this.encoders.map((card) => card.domains[0]);
    this.say();
    this.text.replaceChildren(domains.length ? this.readable(domains) : this.elsewhere());
    const grey = domains.find((domain) => domain.channels === 1);
    this.board.hidden = !grey;
    this.board.replaceChildren();
    if (grey) this.board.append(new PenBoard().open(`Draw ${one(grey)} here, by mouse, finger or pen`, (drawing) => (drawing ? this.read(drawing, "your drawing") : this.wipe())));
  }

  get encoders() {
    return this.studio.companions("encoder");
  }

  /** @param {import("./dom.js").Domain[]} domains */
  readable(domains) {
    const kinds = domains.map(one).join(" or ");
    const light = domains.some(({ description }) => description?.includes("white on black"));
    const start = domains.some(({ channels }) => channels === 1) ? `Draw ${kinds}, or drop a picture of one` : `Drop ${kinds}`;
    return h("p", {}, `${start} anywhere on this page: it becomes a pair. `
      + `${light ? "The model reads light on dark, such as chalk on a board; dark on light is turned round. " : ""}A picture that was saved here brings its view back.`);
  }

  /** Name the models that read pictures. */
  elsewhere() {
    const choose = (/** @type {string} */ name) => h("button", { className: "quiet", onclick: () =>
      this.dispatchEvent(new CustomEvent("model", { bubbles: true, detail: name })) }, name);
    const others = this.readers.map(choose);
    return h("p", {}, `A picture that was saved here, dropped anywhere on this page, brings its view back. ${this.studio.card.name} reads no other pictures`,
      others.length ? "; these models do: " : ".", ...others);
  }

  /** Names of the models that read pictures. */
  get readers() {
    return this.studio.cards.filter((card) => card.kind === "generator" && this.studio.companions("encoder", card).length).map(({ name }) => name);
  }

  /** Text for a file that is held over the page. */
  get invitation() {
    if (this.encoders.length) return "Drop it: it becomes a pair";
    return `This model cannot read pictures${this.readers.length ? `; try ${listed(this.readers, "or")}` : ""}. One that was saved here brings its view back`;
  }

  /** Show a text, and what belongs to it; without one nothing is shown. @param {string} [text] @param {...Node} more */
  say(text, ...more) {
    this.result.replaceChildren(...(text ? [h("p", {}, text), ...more] : []));
    if (text) this.result.scrollIntoView({ block: "nearest" });
  }

  /** Forget the drawing. */
  wipe() {
    this.latest.cancel();
    this.say();
  }

  /** Show the counterparts of a picture and keep it in the lens, or say what is missing. @param {Blob} picture @param {string} name */
  async read(picture, name) {
    const { card } = this.studio;
    if (!this.encoders.length) return this.say(`${name} was not saved here, and ${card.name} has no encoder, which would find its counterparts.`);
    this.say(`Reading ${name}…`);
    await this.latest.run(async (signal) => {
      try {
        const { found, inverted } = await this.ask(picture, signal);
        if (card !== this.studio.card) return;
        this.set({ pin: pointOf(found.latent) });
        this.show(picture, name, found, inverted);
      } catch (error) {
        if (error.name !== "AbortError") this.say();
        if (!REFUSED.includes(error.status)) throw error;
        this.say(`${name} was not read: ${error.message}.${error.status === UNKNOWN_FORMAT ? ` Choose a ${PICTURES}.` : ""}`);
      }
    });
  }

  /** Translate a picture; one that is unlike all that the model knows with black and white exchanged, if that is nearer. @param {Blob} picture @param {AbortSignal} signal */
  async ask(picture, signal) {
    const { api, card: { name: model } } = this.studio;
    const send = (/** @type {true | null} */ invert) => api.json(api.url("translate", { model, format: "json", invert }), { body: picture, signal });
    const found = await send(null);
    if (found.likeness !== "unlike") return { found, inverted: false };
    const exchanged = await send(true);
    return exchanged.error < found.error ? { found: exchanged, inverted: true } : { found, inverted: false };
  }

  /** @param {Blob} picture @param {string} name @param {any} found @param {boolean} inverted */
  show(picture, name, found, inverted) {
    const { domains } = this.studio.card;
    const own = domains.find((domain) => domain.name === found.from);
    const figure = (/** @type {string} */ src, /** @type {import("./dom.js").Domain} */ domain, /** @type {string} */ text) => h("figure", {},
      size(h("img", { src, alt: `${text} of ${name}` }), domain, wholeScale(domain.width, WIDTH)), h("figcaption", {}, text));
    const yours = figure(URL.createObjectURL(picture), own, "yours");
    const image = yours.querySelector("img");
    for (const kind of ["load", "error"]) image.addEventListener(kind, () => URL.revokeObjectURL(image.src), { once: true });
    image.addEventListener("load", () => (image.className = image.naturalWidth > own.width ? "yours" : "yours pixels"), { once: true });
    image.addEventListener("error", () => yours.remove(), { once: true }); // a TIFF, which browsers do not show
    const exchanged = inverted ? " It was read with black and white exchanged." : "";
    this.say(`Taken for ${one(own)}; the model draws it like this.${exchanged}${LIKENESS[found.likeness] ?? ""}`,
      h("div", { className: "counterparts" }, yours, ...domains.map((domain) => figure(found.pairs[0].images[domain.name], domain, domain.name))),
      h("p", { className: "hint" }, "The lens keeps it: directions move it, and it can be added to the walk."));
  }
}
customElements.define("own-picture", OwnPicture);

/** Return a domain's description in the singular, "a handwritten digit"; otherwise its name. @param {import("./dom.js").Domain} domain */
function one({ name, description }) {
  const [, noun] = /^((?:\w+ )?\w+[^s\W])s(?=[,:]|$)/.exec(description ?? "") ?? [];
  return noun ? `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}` : `a picture of the domain ${name}`;
}
