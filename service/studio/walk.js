/** The walk: key frames in an order of one's own, and the path through them: scrubbed, played, saved. */

import { Latest } from "./api.js";
import { h, save, size, wholeScale } from "./dom.js";

const FRAME_MS = 100; // as saved animations have it

export class PairWalk extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    this.latest = new Latest(studio.report);
    /** @type {{images: Record<string, string>}[]} */
    this.frames = [];
    this.timer = 0;
    const { store } = studio;
    store.when(["keys", "steps", "loop", "truncation", "directions"], () => this.fetch());
    store.when(["frame"], () => this.draw());
  }

  async open() {
    const { store, card, domains } = this.studio;
    this.list = h("ol", { className: "keys", "aria-label": "Key frames, in order" });
    this.stage = h("div", { className: "stage" }, ...card.domains.map((/** @type {any} */ domain) => {
      const image = h("img", { alt: `${domain.name}, this frame of the walk` });
      size(image, domain, wholeScale(domain.width, Math.min(140, (this.clientWidth - 60) / domains.length), Math.floor));
      return image;
    }));
    this.scrub = h("input", { type: "range", min: "0", "aria-label": "Frame", oninput: () => (this.stop(), store.set({ frame: Number(this.scrub.value) })) });
    this.playing = h("button", { className: "main", onclick: () => (this.timer ? this.stop() : this.play()) }, "Play");
    const steps = h("select", { onchange: () => store.set({ steps: Number(steps.value), frame: 0 }) }, ...[4, 8, 16, 32].map((n) => h("option", { value: String(n) }, String(n))));
    const loop = h("input", { type: "checkbox", onchange: () => store.set({ loop: loop.checked, frame: 0 }) });
    this.steps = steps;
    this.loop = loop;
    this.saves = ["gif", "webp"].map((format) => h("button", { onclick: () => this.save(format) }, `Save ${format === "gif" ? "GIF" : "WebP"}`));
    this.hint = h("p", { className: "hint" }, "Click pictures above: each becomes a key frame, and the walk leads from one to the next.",
      h("button", { onclick: () => store.set({ keys: [0, 1, 2].map((i) => `${store.state.seed + i}`), frame: 0 }) }, "Walk through the first three"));
    this.player = h("div", { className: "player" }, this.stage, this.scrub,
      h("div", { className: "bar" }, this.playing, h("label", {}, loop, " Loop"), h("label", {}, "Frames between ", steps), ...this.saves));
    this.replaceChildren(h("h2", {}, "A walk"), this.hint, this.list, this.player);
    this.list.addEventListener("pointerdown", (event) => this.grab(event));
    this.list.addEventListener("keydown", (event) => this.key(event));
    await this.fetch();
  }

  async fetch() {
    const { state, card } = this.studio;
    const { keys, loop } = state;
    [this.hint.hidden, this.player.hidden] = [keys.length > 1, keys.length < 2];
    this.loop.checked = loop;
    const most = this.studio.limit("/interpolate", "steps", 256);
    const steps = Math.min(state.steps, Math.max(2, Math.floor(most / keys.length)));
    this.steps.value = String(state.steps);
    if (!keys.length) return this.list.replaceChildren();
    await this.latest.run(async (signal) => {
      const several = keys.length > 1;
      const points = several ? keys : [keys[0], keys[0]];
      const answer = await (await this.studio.path(points, { steps: several ? steps : 2, loop: several && loop, signal })).json();
      this.frames = answer.frames;
      const every = several ? steps - 1 : 1;
      this.list.replaceChildren(...keys.map((point, i) => this.keyframe(point, this.frames[i * every].images, card)));
      this.scrub.max = String(this.frames.length - 1);
      if (this.focused !== undefined) /** @type {HTMLElement | undefined} */ (this.list.children[this.focused])?.focus();
      this.draw();
    });
  }

  /** @param {string} point @param {Record<string, string>} images @param {any} card */
  keyframe(point, images, card) {
    const domain = card.domains[0];
    const image = h("img", { alt: "", src: images[domain.name], draggable: false });
    size(image, domain, wholeScale(domain.width, 56));
    const title = this.studio.title(point);
    const away = h("button", { className: "away", "aria-label": `Remove ${title} from the walk`, onclick: () => this.leaveOut(point) }, "×");
    const item = h("li", { tabIndex: 0, "aria-label": `${title}; arrow keys move it, Delete removes it` }, image, h("span", {}, point.startsWith("p") ? "plane" : point), away);
    item.dataset.point = point;
    return item;
  }

  /** @param {string} point */
  leaveOut(point) {
    this.studio.store.set({ keys: this.studio.state.keys.filter((one) => one !== point), frame: 0 });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const item = /** @type {HTMLElement} */ (event.target);
    if (item.tagName !== "LI") return;
    const { keys } = this.studio.state;
    const at = keys.indexOf(item.dataset.point ?? "");
    const to = at + ({ ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key] ?? 0);
    if (event.key === "Delete" || event.key === "Backspace") {
      this.focused = Math.min(at, keys.length - 2);
      this.leaveOut(keys[at]);
    } else if (to !== at && keys[to] !== undefined) {
      event.preventDefault();
      this.focused = to;
      this.order(keys.toSpliced(at, 1).toSpliced(to, 0, keys[at]));
    }
  }

  /** @param {string[]} keys */
  order(keys) {
    this.studio.store.set({ keys, frame: 0 });
  }

  /** Drag a key frame among the others, by mouse, pen or finger. @param {PointerEvent} event */
  grab(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const item = target.closest("li");
    if (!item || target.closest("button")) return;
    this.focused = undefined;
    const move = (/** @type {PointerEvent} */ now) => {
      item.classList.add("held");
      const over = document.elementsFromPoint(now.clientX, now.clientY).map((one) => one.closest("li")).find((one) => one && one !== item && this.list.contains(one));
      if (!over) return;
      const { left, width } = over.getBoundingClientRect();
      const place = now.clientX > left + width / 2 ? over.nextSibling : over;
      if (place !== item) this.list.insertBefore(item, place);
    };
    const drop = () => {
      item.classList.remove("held");
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", drop);
      removeEventListener("pointercancel", drop);
      this.order([...this.list.children].map((one) => /** @type {HTMLElement} */ (one).dataset.point ?? ""));
    };
    addEventListener("pointermove", move); // on the window: an item that moves in the list loses the pointer
    addEventListener("pointerup", drop);
    addEventListener("pointercancel", drop);
  }

  draw() {
    const frame = this.frames[Math.min(this.studio.state.frame, this.frames.length - 1)];
    if (!frame || this.player.hidden) return;
    this.scrub.value = String(this.studio.state.frame);
    this.studio.domains.forEach((name, i) => {
      /** @type {HTMLImageElement} */ (this.stage.children[i]).src = frame.images[name];
    });
  }

  play() {
    this.playing.textContent = "Pause";
    this.timer = window.setInterval(() => {
      const { frame, loop } = this.studio.state;
      const next = frame + 1;
      if (next >= this.frames.length && !loop) this.stop();
      else this.studio.store.set({ frame: next % this.frames.length });
    }, FRAME_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    if (this.playing) this.playing.textContent = "Play";
  }

  /** Save the walk as an animation that the service makes. @param {string} format */
  async save(format) {
    const { keys, steps, loop } = this.studio.state;
    try {
      const response = await this.studio.path(keys, { steps, loop, format });
      save(await response.blob(), `${this.studio.card.name}-walk.${format}`);
    } catch (error) {
      this.studio.report(error);
    }
  }
}
customElements.define("pair-walk", PairWalk);
