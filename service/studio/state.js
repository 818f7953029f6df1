/**
 * What the page shows, all of it in the URL. A point is `seed`, `seed.index`, `pA,B,C,D@u,v` between four corners, or `l`
 * and a latent, as its header X-Latent has it, in letters that a URL takes.
 */

export const MAX_SEED = Number.MAX_SAFE_INTEGER;
const SEED = String.raw`\d{1,16}(?:\.\d{1,10})?`;
const LATENT = String.raw`l(?:[\w-]{16})*(?:[\w-]{6}|[\w-]{11}|[\w-]{16})`; // three float32 are 16 letters
const POINT = new RegExp(`^(?:${SEED}|p${SEED}(?:,${SEED}){3}@[\\d.e-]+,[\\d.e-]+|${LATENT})$`);
const MAX_INDEX = 2 ** 32 - 1;
export const STEPS = [4, 8, 16, 32]; // frames between two key frames
const KEEP_MS = 150; // browsers bound how often a URL may change

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

/** @param {number} low @param {number} high @param {boolean} [whole] */
const number = (low, high, whole) => (/** @type {string} */ text) => {
  const value = Number(text);
  return text.trim() && value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : undefined;
};
const word = (/** @type {string} */ text) => (/^[\w .:-]{1,80}$/.test(text) ? text : undefined);
const truth = (/** @type {string} */ text) => ({ 1: true, 0: false })[text];
const points = (/** @type {string} */ text) => [...new Set(text.split("~").filter(isPoint))].slice(0, 64);
const corners = (/** @type {string} */ text) => text.split("~").filter((one) => isPoint(one) && kindOf(one) === "seed");

/** Return whether a text is a point: of seeds that there are, at a place on the plane. @param {string} text */
function isPoint(text) {
  if (!POINT.test(text)) return false;
  if (kindOf(text) === "given") return true;
  const [seeds, place = "0"] = text.replace("p", "").split("@");
  const known = (/** @type {string} */ one) => Number(one.split(".")[0]) <= MAX_SEED && Number(one.split(".")[1] ?? 0) <= MAX_INDEX;
  return seeds.split(",").every(known) && place.split(",").every((one) => Number(one) >= 0 && Number(one) <= 1);
}

/** The fields of an empty page, and how each is read from a URL: undefined if it is wrong. @type {Record<keyof State, [any, (text: string) => any]>} */
const FIELDS = {
  model: [null, word], digest: [null, word], seed: [0, number(0, MAX_SEED, true)],
  truncation: [null, number(0.1, 100)], directions: [{}, readDirections],
  class: [null, word], confidence: [0, number(0, 1)], agree: [false, truth],
  keys: [[], points], steps: [16, (text) => STEPS.find((one) => String(one) === text)], loop: [true, truth], frame: [0, number(0, 1e4, true)],
  pin: [null, (text) => points(text)[0]], left: [null, word], right: [null, word], wipe: [50, number(0, 100)],
  corners: [["0", "1", "2", "3"], (text) => (corners(text).length === 4 ? corners(text) : undefined)],
  view: [[0, 0, 1], (text) => {
    const [x, y, side] = text.split(",").map(Number);
    return x >= 0 && y >= 0 && side > 0 && Math.max(x, y) + side < 1.00001 ? [x, y, side] : undefined;
  }],
};

/** @param {string} text */
function readDirections(text) {
  const pairs = text.split(",").map((one) => one.split(":")).filter(([name, value]) => word(name) && isFinite(+value));
  return Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]));
}

/** Return a value as a URL has it; directions as a query of the service has them: 1:2,thickness:-1. @param {any} value */
export function write(value) {
  if (typeof value === "boolean") return value ? "1" : "0";
  if (Array.isArray(value)) return value.join(typeof value[0] === "number" ? "," : "~");
  if (value === null || typeof value !== "object") return String(value ?? "");
  return Object.entries(value).filter(([, steps]) => steps).map(([name, steps]) => `${name}:${steps}`).join(",");
}

/** Return the state that a query describes; what is wrong in it is left out. @param {string} query @returns {State} */
export function readState(query) {
  const given = new URLSearchParams(query);
  const read = Object.entries(FIELDS).map(([name, [normal, parse]]) => [name, (given.has(name) ? parse(given.get(name)) : null) ?? normal]);
  return structuredClone(Object.fromEntries(read));
}

/** Return the query of a state: what differs from an empty page. @param {State} state */
export function writeState(state) {
  return Object.entries(FIELDS)
    .map(([name, [normal]]) => [name, write(state[/** @type {keyof State} */ (name)]), write(normal)])
    .filter(([, text, normal]) => text !== normal)
    .map(([name, text]) => `${name}=${encodeURIComponent(text).replace(/%(2C|3A|40)/g, decodeURIComponent)}`)
    .join("&");
}

/** Return what a point is of: a seed, the plane, or a latent that was given. @param {string} point */
export function kindOf(point) {
  return { p: "plane", l: "given" }[point[0]] ?? "seed";
}

/** Return the point of a latent. @param {number[]} latent */
export function pointOf(latent) {
  const bytes = new Uint8Array(Float32Array.from(latent).buffer);
  return `l${btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** Return the latent of a point that has one. @param {string} point @returns {number[]} */
export function latentOf(point) {
  const text = atob(point.slice(1).replaceAll("-", "+").replaceAll("_", "/"));
  return [...new Float32Array(Uint8Array.from(text, (char) => char.charCodeAt(0)).buffer)];
}

/** The state, which tells of its changes and keeps the URL. */
export class Store extends EventTarget {
  #timer = 0;

  constructor() {
    super();
    this.state = readState(location.search);
    addEventListener("pagehide", () => this.keep());
  }

  /** Write the state into the URL. */
  keep() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    history.replaceState(null, "", this.#address);
  }

  get #address() {
    return `${location.pathname}?${writeState(this.state)}`;
  }

  /** Change fields for a model that is about to open; the browser's Back returns to what is shown now. @param {Partial<State>} changes */
  enter(changes) {
    this.keep();
    Object.assign(this.state, changes);
    history.pushState(null, "", this.#address);
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
    this.#timer ||= window.setTimeout(() => this.keep(), KEEP_MS); // also while a walk is played
  }

  /** Call back when any of these fields changes. @param {(keyof State)[]} names @param {() => void} call */
  when(names, call) {
    this.addEventListener("change", (event) => {
      const { detail } = /** @type {CustomEvent} */ (event);
      if (names.some((name) => detail.includes(name))) call();
    });
  }
}
