/** Elements, grids that arrow keys move in, and sizes in whole pixels. */

/**
 * Build an element. What the element has as a property is set as one, `on…` listens, the rest are attributes.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [settings]
 * @param {...(Node | string | null | false)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "role") /** @type {any} */ (element)[name] = value;
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
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
 * Give an image its size on the page; enlarged ones show their pixels.
 * @param {HTMLElement} element @param {{width: number, height: number}} shape @param {number} scale
 */
export function size(element, shape, scale) {
  element.style.setProperty("--w", `${shape.width * scale}px`);
  element.style.setProperty("--h", `${shape.height * scale}px`);
  element.classList.toggle("pixels", scale > 1);
}

/**
 * Move the focus in a grid of cells by arrow keys, Home and End; one cell at a time can be reached by Tab.
 * @param {HTMLElement} grid @param {() => HTMLElement[][]} rows
 */
export function arrowKeys(grid, rows) {
  grid.addEventListener("focusin", (event) => {
    const cells = rows().flat();
    if (!cells.includes(/** @type {HTMLElement} */ (event.target))) return;
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  grid.addEventListener("keydown", (event) => {
    const all = rows();
    const y = all.findIndex((row) => row.includes(/** @type {HTMLElement} */ (event.target)));
    if (y < 0) return;
    const x = all[y].indexOf(/** @type {HTMLElement} */ (event.target));
    const to = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const next = to ? all[y + to[0]]?.[x + to[1]] : { Home: all[y][0], End: all[y].at(-1) }[event.key];
    if (to || next) event.preventDefault();
    next?.focus();
  });
}

/** Return names as a sentence has them: a, b and c. @param {string[]} names */
export function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** Offer a file to be saved. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
