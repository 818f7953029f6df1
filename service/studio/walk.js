/** The walk: key frames in an order of one's own, and the path through them: scrubbed, played, saved. */

import { CLICK, h, size, wholeScale } from "./dom.js";
import { kindOf, STEPS, write } from "./state.js";
import { Part } from "./studio.js";

const FRAME_MS = 100; // as saved animations have it

export class PairWalk extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    /** @type {{images: import("./studio.js").Images}[]} */
    this.frames = [];
    this.timer = 0;
    studio.store.when(["keys", "steps", "loop", "truncation", "directions"], () => this.refresh());
    studio.store.when(["frame"], () => this.draw());
  }

  /** @param {() => import("./studio.js").Pair[]} seen pairs whose images are there already, those of the strip first */
  async open(seen) {
    this.seen = seen;
    this.frames = [];
    const { card, domains } = this.studio;
    const room = Math.min(140, (this.clientWidth - 60) / domains.length);
    this.list = h("ol", { className: "keys", "aria-label": "Key frames, in order" });
    this.stage = card.domains.map((domain) => size(h("img", { alt: `${domain.name}, this frame of the walk` }), domain, wholeScale(domain.width, room, Math.floor)));
    this.scrub = h("input", { type: "range", min: "0", "aria-label": "Frame", oninput: () => (this.stop(), this.set({ frame: Number(this.scrub.value) })) });
    this.playing = h("button", { className: "main", onclick: () => (this.timer ? this.stop() : this.play()) }, "Play");
    this.steps = h("select", { onchange: () => this.set({ steps: Number(this.steps.value), frame: 0 }) }, ...STEPS.map((n) => h("option", { value: String(n) }, String(n))));
    this.loop = h("input", { type: "checkbox", onchange: () => this.set({ loop: this.loop.checked, frame: 0 }) });
    this.hint = h("p", { className: "hint" }, `${CLICK} pictures above: each becomes a key frame, and the walk leads from one to the next.`,
      h("button", { onclick: () => this.set({ keys: this.seen().slice(0, 3).map(({ point }) => point), frame: 0 }) }, "Walk through the first three"));
    this.player = h("div", { className: "player", hidden: true }, h("div", { className: "stage" }, ...this.stage), this.scrub,
      h("div", { className: "bar" }, this.playing, h("label", {}, this.loop, " Loop"), h("label", {}, "Frames between ", this.steps),
        h("button", { onclick: () => this.save("gif") }, "Save GIF"), h("button", { onclick: () => this.save("webp") }, "Save WebP")));
    this.replaceChildren(h("h2", {}, "A walk"), this.hint, this.list, this.player);
    this.list.addEventListener("pointerdown", (event) => this.grab(event));
    this.list.addEventListener("keydown", (event) => this.key(event));
    await this.fetch();
  }

  async fetch() {
    const { keys, loop, steps } = this.state;
    const several = keys.length > 1;
    this.hint.hidden = several;
    this.player.hidden ||= !several;
    [this.loop.checked, this.steps.value] = [loop, String(steps)];
    this.preview();
    if (!keys.length) return;
    const most = Math.max(2, Math.floor(this.studio.limit("/interpolate", "steps", 256) / keys.length));
    const between = several ? Math.min(steps, most) : 2;
    await this.latest.run(async (signal) => {
      const response = await this.studio.path(several ? keys : [keys[0], keys[0]], { steps: between, loop: several && loop, signal });
      const { frames } = await response.json();
      if (write(this.state.keys) !== write(keys)) return; // others since, which a newer response shows
      this.frames = frames;
      this.arrange(keys.map((point, i) => this.keyframe(point, this.frames[i * (between - 1)].images)));
      this.scrub.max = String(this.frames.length - 1);
      this.player.hidden = !several;
      this.draw();
    });
  }

  /** Show the key frames before the walk is there: those in the list, and new ones with images seen elsewhere. */
  preview() {
    const { keys } = this.state;
    const items = /** @type {HTMLElement[]} */ ([...this.list.children]);
    if (write(keys) === write(items.map((item) => item.dataset.point))) return;
    const known = new Map(this.seen().map(({ point, images }) => [point, images]));
    this.arrange(keys.map((point) => items.find((item) => item.dataset.point === point) ?? this.keyframe(point, known.get(point))));
  }

  /** @param {string} point @param {import("./studio.js").Images} [images] */
  keyframe(point, images) {
    const [domain] = this.studio.card.domains;
    const image = size(h("img", { alt: "", draggable: false, ...(images && { src: images[domain.name] }) }), domain, wholeScale(domain.width, 56));
    const title = this.studio.title(point);
    const kind = kindOf(point);
    const away = h("button", { className: "away", "aria-label": `Remove ${title} from the walk`, onclick: () => this.leaveOut(point) }, "×");
    const item = h("li", { tabIndex: 0, "aria-label": `${title}; arrow keys move it, Delete removes it` }, image, h("span", {}, kind === "seed" ? point : kind), away);
    item.dataset.point = point;
    return item;
  }

  /**
   * Show key frames, and keep the focus among them: on one of them, or at a place.
   * @param {HTMLElement[]} items @param {number} [at]
   */
  arrange(items, at = this.placeOf(document.activeElement)) {
    this.list.replaceChildren(...items);
    if (at >= 0) (items[Math.min(at, items.length - 1)] ?? this.hint.querySelector("button")).focus();
  }

  /** Return the place of the key frame that an element is of; -1 if it is of none. @param {Element} element */
  placeOf(element) {
    return [...this.list.children].indexOf(element.closest(".keys li"));
  }

  /** Take these key frames at once; their images follow. @param {string[]} keys @param {number} at the place of the focus */
  reorder(keys, at) {
    const items = /** @type {HTMLElement[]} */ ([...this.list.children]);
    this.set({ keys, frame: 0 });
    this.arrange(keys.map((point) => items.find((one) => one.dataset.point === point)).filter(Boolean), at);
  }

  /** @param {string} point */
  leaveOut(point) {
    const { keys } = this.state;
    this.reorder(keys.filter((one) => one !== point), keys.indexOf(point));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const item = /** @type {HTMLElement} */ (event.target);
    if (item.tagName !== "LI") return;
    const { keys } = this.state;
    const at = keys.indexOf(item.dataset.point);
    const to = at + ({ ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key] ?? 0);
    if (event.key === "Delete" || event.key === "Backspace") {
      this.leaveOut(keys[at]);
    } else if (to !== at && keys[to] !== undefined) {
      event.preventDefault();
      this.reorder(keys.toSpliced(at, 1).toSpliced(to, 0, keys[at]), to);
    }
  }

  /** Drag a key frame among the others, by mouse, pen or finger. @param {PointerEvent} event */
  grab(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const item = target.closest("li");
    if (!item || target.closest("button")) return;
    const dragging = new AbortController();
    const on = (/** @type {"pointermove" | "pointerup" | "pointercancel"} */ kind, /** @type {(event: PointerEvent) => void} */ act) =>
      addEventListener(kind, act, { signal: dragging.signal }); // on the window: an item that moves in the list loses the pointer
    const drop = () => {
      dragging.abort();
      item.classList.remove("held");
      this.set({ keys: Array.from(this.list.children, (one) => /** @type {HTMLElement} */ (one).dataset.point), frame: 0 });
    };
    on("pointermove", ({ clientX, clientY }) => {
      item.classList.add("held");
      const over = document.elementsFromPoint(clientX, clientY).map((one) => one.closest("li")).find((one) => one && one !== item && this.list.contains(one));
      if (!over) return;
      const { left, width } = over.getBoundingClientRect();
      const place = clientX > left + width / 2 ? over.nextSibling : over;
      if (place !== item) this.list.insertBefore(item, place);
    });
    on("pointerup", drop);
    on("pointercancel", drop);
  }

  draw() {
    const { frame } = this.state;
    const shown = this.frames[Math.min(frame, this.frames.length - 1)];
    if (!shown || this.player.hidden) return;
    this.scrub.value = String(frame);
    this.studio.domains.forEach((name, i) => (this.stage[i].src = shown.images[name]));
  }

  play() {
    this.playing.textContent = "Pause";
    this.timer = window.setInterval(() => {
      const next = this.state.frame + 1;
      if (next >= this.frames.length && !this.state.loop) this.stop();
      else this.set({ frame: next % this.frames.length });
    }, FRAME_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    if (this.playing) this.playing.textContent = "Play";
  }

  /** @param {string} format */
  save(format) {
    return this.studio.saveWalk(format).catch(this.studio.report);
  }
}
customElements.define("pair-walk", PairWalk);
