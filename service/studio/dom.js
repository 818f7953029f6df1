/** Elements, grids that arrow keys move in, and sizes in whole pixels. */

import { MAX_SEED } from "./state.js";

/** @typedef {{name: string, width: number, height: number, channels: number, description?: string}} Domain */

/** What one does with a picture, by mouse or by finger. */
export const CLICK = matchMedia("(pointer: coarse)").matches ? "Tap" : "Click";

/**
 * Build an element. What the element has as a property is set as one, `on…` listens, the rest are attributes.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, any>} [settings] @param {...(Node | string | null | false)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "role") /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * Return the scale at which images of a width are closest to a target: whole, unless they are larger.
 * @param {number} width @param {number} target @param {(x: number) => number} [round]
 */
export function wholeScale(width, target, round = Math.round) {
  return width <= target ? Math.max(1, round(target / width)) : target / width;
}

/**
 * Give an image, or what holds images, the size of a domain's images; enlarged ones show their pixels.
 * @template {HTMLElement} E @param {E} element @param {Domain} domain @param {number} scale
 */
export function size(element, domain, scale) {
  element.style.setProperty("--w", `${domain.width * scale}px`);
  element.style.setProperty("--h", `${domain.height * scale}px`);
  element.classList.toggle("pixels", scale > 1);
  return element;
}

/** Return the width of the widest domain. @param {Domain[]} domains */
export const widest = (domains) => Math.max(...domains.map((domain) => domain.width));

/** Return the cells of a grid by row; rows without cells are left out. @param {Element} grid @returns {HTMLElement[][]} */
export function rowsOf(grid) {
  const rows = Array.from(grid.children, (row) => /** @type {HTMLElement[]} */ ([...row.querySelectorAll(".cell")]));
  return rows.filter((row) => row.length);
}

/**
 * Make a grid: cells that are pointed at or focused are peeked at, null when no longer; clicked or entered, they are
 * chosen. Arrow keys, Home and End move the focus, and one cell at a time can be reached by Tab.
 * @param {HTMLElement} grid @param {(cell: HTMLElement | null) => void} peek @param {(cell: HTMLElement | null) => void} choose
 */
export function listen(grid, peek, choose) {
  const cellOf = (/** @type {Event} */ event) => /** @type {HTMLElement} */ (event.target).closest(/** @type {"div"} */ (".cell"));
  for (const kind of ["pointerover", "focusin"]) grid.addEventListener(kind, (event) => peek(cellOf(event)));
  for (const kind of ["pointerleave", "focusout"]) grid.addEventListener(kind, () => peek(null));
  grid.addEventListener("click", (event) => choose(cellOf(event)));
  grid.addEventListener("focusin", (event) => {
    for (const cell of rowsOf(grid).flat()) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  grid.addEventListener("keydown", (event) => {
    const rows = rowsOf(grid);
    const cell = cellOf(event);
    const y = rows.findIndex((row) => row.includes(cell));
    if (y < 0) return;
    const to = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const next = to ? rows[y + to[0]]?.[rows[y].indexOf(cell) + to[1]] : { Home: rows[y][0], End: rows[y].at(-1) }[event.key];
    const enters = event.key === "Enter" || event.key === " ";
    if (to || next || enters) event.preventDefault();
    next?.focus();
    if (enters) choose(cell);
  });
}

/** Return names as a sentence has them: a, b and c. @param {string[]} names @param {string} [word] before the last */
export function listed(names, word = "and") {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${word} ${names.at(-1)}`;
}

/** Return a class as a text has it: one of merged letters, "Z z", as "Z or z". @param {string} name */
export function classText(name) {
  return /^\S( \S)+$/.test(name) ? name.replaceAll(" ", " or ") : name;
}

/** Return the seed that was typed; one that is none is refused with what is allowed: null. @param {HTMLInputElement} input */
export function typedSeed(input) {
  input.setCustomValidity("");
  if (input.checkValidity()) return input.valueAsNumber;
  input.setCustomValidity(`whole numbers from 0 to ${MAX_SEED}`);
  input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
  input.reportValidity();
  return null;
}

/** Offer a file to be saved. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
