/** A board to draw on by mouse, finger or pen: white on black, as models of digits and letters read it. */

import { h } from "./dom.js";

const SIDE = 224; // pixels
const PEN = 17; // pixels, as wide as strokes of MNIST are at this size
const REST_MS = 450; // between the strokes of one drawing

export class PenBoard extends HTMLElement {
  /** Lay out an empty board. @param {string} label @param {(drawing: Blob | null) => void} done called when the pen rests, and with null when the board is cleared */
  open(label, done) {
    this.done = done;
    this.canvas = h("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#fff", fillStyle: "#000" });
    this.pen.fillRect(0, 0, SIDE, SIDE);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, () => this.up());
    this.replaceChildren(this.canvas, h("button", { className: "quiet", "aria-label": "Clear the drawing", onclick: () => this.clear() }, "Clear"));
    return this;
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.button) return;
    event.preventDefault(); // neither a selection nor a drag
    clearTimeout(this.resting);
    this.canvas.setPointerCapture(event.pointerId);
    this.from = this.place(event);
    this.line([this.from]); // a dot
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.from) return;
    const seen = event.getCoalescedEvents?.() ?? [];
    this.line((seen.length ? seen : [event]).map((one) => this.place(one)));
  }

  up() {
    if (!this.from) return;
    this.from = null;
    this.resting = setTimeout(() => this.canvas.toBlob(this.done), REST_MS);
  }

  clear() {
    clearTimeout(this.resting);
    this.pen.fillRect(0, 0, SIDE, SIDE);
    this.done(null);
  }

  /** Return where on the canvas an event is. @param {PointerEvent} event @returns {[number, number]} */
  place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((clientX - left) * SIDE) / width, ((clientY - top) * SIDE) / height];
  }

  /** Draw from the last place through others. @param {[number, number][]} places */
  line(places) {
    this.pen.beginPath();
    this.pen.moveTo(...this.from);
    for (const place of places) this.pen.lineTo(...(this.from = place));
    this.pen.stroke();
  }
}
customElements.define("pen-board", PenBoard);
