/** What the page shows, all of it in the URL. A point is `seed`, `seed.index`, or `pA,B,C,D@u,v` between four corners. */

export const MAX_SEED = Number.MAX_SAFE_INTEGER;
const SEED = String.raw`\d{1,16}(?:\.\d{1,10})?`;
const POINT = new RegExp(`^(?:${SEED}|p${SEED}(?:,${SEED}){3}@[\\d.e-]+,[\\d.e-]+)$`);

/**
 * @typedef {object} State
 * @property {string | null} model
 * @property {string | null} digest  the first digits of the model file's digest
 * @property {number} seed  first seed of the strip
 * @property {number | null} truncation
 * @property {Record<string, number>} directions  spreads, by number or name
 * @property {string | null} class  of the filters
 * @property {number} confidence
 * @property {boolean} agree
 * @property {string[]} keys  key frames of the walk: points
 * @property {number} steps
 * @property {boolean} loop
 * @property {number} frame
 * @property {string | null} pin  the point looked at closely
 * @property {string | null} left  domains of the wipe
 * @property {string | null} right
 * @property {number} wipe  percent
 * @property {string[]} corners  of the plane: points
 * @property {number[]} view  of the plane: left, top, side, in shares of it
 */

/** @type {State} */
const START = {
  model: null, digest: null, seed: 0, truncation: null, directions: {}, class: null, confidence: 0, agree: false,
  keys: [], steps: 16, loop: true, frame: 0, pin: null, left: null, right: null, wipe: 50,
  corners: ["0", "1", "2", "3"], view: [0, 0, 1],
};

/** @param {number} low @param {number} high @param {boolean} [whole] */
const number = (low, high, whole) => (/** @type {string} */ text) => {
  const value = Number(text);
  return text.trim() && value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : undefined;
};
const word = (/** @type {string} */ text) => (/^[\w .:-]{1,80}$/.test(text) ? text : undefined);
const truth = (/** @type {string} */ text) => ({ 1: true, 0: false })[text];
const points = (/** @type {string} */ text) => text.split("~").filter((one) => POINT.test(one)).slice(0, 64);

/** @type {Record<keyof State, (text: string) => any>} */
const READ = {
  model: word, digest: word, seed: number(0, MAX_SEED, true), truncation: number(0.1, 100), directions: readDirections,
  class: word, confidence: number(0, 1), agree: truth,
  keys: points, steps: number(2, 64, true), loop: truth, frame: number(0, 1e4, true),
  pin: (text) => points(text)[0], left: word, right: word, wipe: number(0, 100),
  corners: (text) => (points(text).length === 4 ? points(text) : undefined),
  view: (text) => {
    const [x, y, side] = text.split(",").map(Number);
    return x >= 0 && y >= 0 && side > 0 && Math.max(x, y) + side < 1.00001 ? [x, y, side] : undefined;
  },
};

/** @param {string} text */
function readDirections(text) {
  const pairs = text.split(",").map((one) => one.split(":")).filter(([name, value]) => word(name) && isFinite(+value));
  return Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]));
}

/** Return directions as a query has them: 1:2,thickness:-1. @param {Record<string, number>} directions */
export function writeDirections(directions) {
  return Object.entries(directions).filter(([, value]) => value).map(([name, value]) => `${name}:${value}`).join(",");
}

/** @param {any} value */
function write(value) {
  if (typeof value === "boolean") return value ? "1" : "0";
  if (Array.isArray(value)) return value.join(typeof value[0] === "number" ? "," : "~");
  return value === null ? "" : typeof value === "object" ? writeDirections(value) : String(value);
}

/** Return the state that a query describes; what is wrong in it is left out. @param {string} query @returns {State} */
export function readState(query) {
  const given = new URLSearchParams(query);
  const read = Object.entries(READ).map(([name, parse]) => [name, given.has(name) ? parse(given.get(name) ?? "") : undefined]);
  return { ...structuredClone(START), ...Object.fromEntries(read.filter(([, value]) => value !== undefined)) };
}

/** Return the query of a state: what differs from an empty page. @param {State} state */
export function writeState(state) {
  return Object.entries(state)
    .map(([name, value]) => [name, write(value), write(START[/** @type {keyof State} */ (name)])])
    .filter(([, text, normal]) => text !== normal)
    .map(([name, text]) => `${name}=${encodeURIComponent(text).replace(/%(2C|3A|40)/g, decodeURIComponent)}`)
    .join("&");
}

/** The state, which tells of its changes and keeps the URL. */
export class Store extends EventTarget {
  #timer = 0;

  constructor() {
    super();
    this.state = readState(location.search);
    addEventListener("popstate", () => this.set(readState(location.search)));
  }

  /**
   * Change fields and tell which; those that stay equal are not told, nor is anything when a model is about to open.
   * @param {Partial<State>} changes @param {boolean} [silent]
   */
  set(changes, silent = false) {
    const changed = Object.entries(changes)
      .filter(([name, value]) => write(value) !== write(this.state[/** @type {keyof State} */ (name)]))
      .map(([name]) => name);
    if (!changed.length) return;
    Object.assign(this.state, changes);
    if (!silent) this.dispatchEvent(new CustomEvent("change", { detail: changed }));
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#keep(), 150); // browsers bound how often a URL may change
  }

  /** Call back when any of these fields changes. @param {(keyof State)[]} names @param {(changed: string[]) => void} call */
  when(names, call) {
    this.addEventListener("change", (event) => {
      const { detail } = /** @type {CustomEvent<string[]>} */ (event);
      if (detail.some((name) => names.includes(/** @type {keyof State} */ (name)))) call(detail);
    });
  }

  #keep() {
    history.replaceState(null, "", `${location.pathname}?${writeState(this.state)}`);
  }
}
