/** What all parts of the page share: the model, its pairs, and the parameters of every request. */

import { Latest } from "./api.js";
import { save, widest } from "./dom.js";
import { readRows } from "./files.js";
import { kindOf, latentOf, write, writeState } from "./state.js";

/** @typedef {Record<string, string>} Images  data URLs by domain */
/** @typedef {{point: string, title: string, images: Images}} Pair */
/**
 * @typedef {object} Card  of a model
 * @property {string} name
 * @property {string} kind
 * @property {string} version
 * @property {string} digest
 * @property {string} graph_digest
 * @property {string[]} goes_with  names or digests of generators
 * @property {import("./dom.js").Domain[]} domains
 * @property {string[]} classes
 * @property {{distribution: string, latent_dim: number}} prior
 * @property {{name: string | null}[]} directions
 * @property {Record<string, any>} quality
 * @property {string} data_license
 * @property {string} credit
 */

const DIGITS = 12; // of a digest, in a URL
const REST_MS = 120;
const ANIMATED = 2 ** 22; // pixels of a saved walk, all frames together: a GIF of them is within the service's usual limit
const SAVED = 256; // pixels that the side of a saved image has, at most, if it is smaller itself

/** One model at a time, and what the service can do. */
export class Studio {
  /** @param {import("./api.js").Api} api @param {import("./state.js").Store} store @param {(error: any) => void} report */
  constructor(api, store, report) {
    this.api = api;
    this.store = store;
    this.report = report;
    /** @type {Card[]} */
    this.cards = [];
    /** @type {Card} */
    this.card = null;
    /** @type {any} the OpenAPI document, once it is here */
    this.document = null;
    /** @type {Map<string, Float32Array[]>} */
    this.corners = new Map();
  }

  get state() {
    return this.store.state;
  }

  /** Names of the model's domains. */
  get domains() {
    return this.card.domains.map((domain) => domain.name);
  }

  get digest() {
    return this.card.digest.replace("sha256:", "").slice(0, DIGITS);
  }

  get normal() {
    return this.card.prior.distribution === "normal";
  }

  /** Cards of a kind that go with a model. @param {string} kind @param {Card} [model] */
  companions(kind, model = this.card) {
    const { name, graph_digest: graph } = model;
    return this.cards.filter((card) => card.kind === kind && card.goes_with.some((one) => one === name || one === graph));
  }

  /** Classifiers of the model's domains, in their order. */
  get classifiers() {
    const all = this.companions("classifier");
    return this.domains.map((name) => all.find((card) => card.domains[0].name === name)).filter(Boolean);
  }

  /** Return whether a route of the service takes a parameter. @param {string} path @param {string} [parameter] */
  can(path, parameter) {
    const route = this.document?.paths[path]?.get;
    return Boolean(route && (!parameter || route.parameters?.some((/** @type {any} */ one) => one.name === parameter)));
  }

  /** Return a limit of a body's field from the document. @param {string} path @param {string} field @param {number} normal */
  limit(path, field, normal) {
    const schema = this.document?.paths[path]?.post?.requestBody?.content["application/json"].schema.properties[field];
    const bounds = [schema, ...(schema?.anyOf ?? []), ...(schema?.allOf ?? [])].map((one) => one?.maxItems ?? one?.maximum);
    return bounds.find((bound) => bound !== undefined) ?? normal;
  }

  /** Fields that every request for images has; null is none. */
  get common() {
    const { truncation, directions } = this.state;
    const moved = Object.entries(directions).filter(([, steps]) => steps);
    return { model: this.card.name, truncation, directions: moved.length ? Object.fromEntries(moved) : null };
  }

  /** Filters that are set, if the service has them. */
  get filters() {
    const { class: named, confidence, agree } = this.state;
    if (!this.can("/generate", "min_confidence") || !this.classifiers.length) return {};
    return { class: named, min_confidence: confidence || null, agree: agree || null };
  }

  /**
   * Return the response to a walk through points, `steps` from one to the next, both counted: two are the points alone.
   * @param {string[]} points @param {{steps?: number, loop?: boolean, format?: string, scale?: number, signal?: AbortSignal}} options
   */
  async path(points, { steps = 2, loop = false, format = "json", scale = 1, signal }) {
    const keyframes = await Promise.all(points.map((point) => this.#keyframe(point, signal)));
    const { truncation, ...common } = this.common;
    const bounded = keyframes.some((one) => "seed" in one) ? { truncation } : {}; // of seeds alone
    const body = { ...common, ...bounded, keyframes, steps, loop, format, scale };
    return this.api.fetch(this.api.url("interpolate"), { body, signal });
  }

  /** Return a pair. @param {string} point @param {AbortSignal} signal @returns {Promise<Pair>} */
  async pair(point, signal) {
    const { frames } = await (await this.path([point, point], { signal })).json();
    return { point, title: this.title(point), images: frames[0].images };
  }

  /** Whole number by which saved pictures are enlarged. */
  get scale() {
    return Math.max(1, Math.floor(SAVED / widest(this.card.domains)));
  }

  /** Return an image of a pair as an enlarged PNG. @param {string} point @param {string} domain */
  async picture(point, domain) {
    const { model, truncation, directions } = this.common;
    const { latent, ...seed } = /** @type {any} */ (await this.#keyframe(point));
    const body = { model, directions, ...(latent ? { latents: [latent] } : { ...seed, truncation }), domains: [domain], format: "png", scale: this.scale };
    return new Uint8Array(await (await this.api.fetch(this.api.url("generate"), { body })).arrayBuffer());
  }

  /** Save the walk as an animation that the service makes. @param {string} format */
  async saveWalk(format) {
    const { keys, steps, loop } = this.state;
    const frames = (steps - 1) * (keys.length - (loop ? 0 : 1)) + 1;
    const pixels = frames * this.card.domains.reduce((sum, { width, height }) => sum + width * height, 0);
    const scale = Math.max(1, Math.min(this.scale, Math.floor(Math.sqrt(ANIMATED / pixels))));
    const response = await this.path(keys, { steps, loop, format, scale });
    save(await response.blob(), `${this.card.name}-walk.${format}`);
  }

  /** @param {string} point @param {AbortSignal} [signal] */
  async #keyframe(point, signal) {
    const kind = kindOf(point);
    if (kind === "seed") return seedOf(point);
    if (kind === "given") return { latent: latentOf(point) };
    const [corners, place] = point.slice(1).split("@");
    const [latent] = await this.plane(corners.split(","), [place.split(",").map(Number)], signal);
    return { latent };
  }

  /**
   * Return latents between four corners at places (u, v). With weights w they are the sum of w times a corner, divided
   * by the root of the sum of squares for a normal prior, so that they stay as typical as the corners. The arithmetic
   * is the same in every browser.
   * @param {string[]} corners @param {number[][]} places @param {AbortSignal | undefined} signal @returns {Promise<number[][]>}
   */
  async plane(corners, places, signal) {
    const latents = await this.#corners(corners, signal);
    return places.map(([u, v]) => {
      const weights = [(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v];
      const scale = this.normal ? Math.sqrt(weights.reduce((sum, weight) => sum + weight * weight, 0)) : 1;
      return Array.from(latents[0], (_, z) => {
        const sum = weights.reduce((all, weight, i) => all + weight * latents[i][z], 0);
        return Number(Math.fround(sum / scale).toPrecision(9));
      });
    });
  }

  /** @param {string[]} corners @param {AbortSignal | undefined} signal */
  async #corners(corners, signal) {
    const { model, truncation } = this.common;
    const key = JSON.stringify([this.card.digest, corners, truncation]);
    if (!this.corners.has(key)) {
      const body = { model, truncation, keyframes: corners.map(seedOf), steps: 2, format: "npz" };
      const response = await this.api.fetch(this.api.url("interpolate"), { body, signal });
      this.corners.set(key, readRows(await response.arrayBuffer(), "latent"));
    }
    return this.corners.get(key);
  }

  /** Return what a point is called. @param {string} point */
  title(point) {
    const { seed, index } = seedOf(point);
    return { plane: "a point of the plane", given: "a picture of one's own" }[kindOf(point)] ?? `seed ${seed}${index ? `, image ${index}` : ""}`;
  }

  /** Return what a saved picture says of itself. @param {string} point @param {Record<string, string>} more */
  texts(point, more) {
    const { truncation, directions } = this.state;
    const { seed, index } = kindOf(point) === "seed" ? seedOf(point) : { seed: "", index: "" };
    const texts = {
      Software: "CoGAN studio", Model: this.card.name, Digest: this.card.digest, Seed: `${seed}`, Index: `${index}`,
      Directions: JSON.stringify(directions), Truncation: write(truncation), ...more,
      View: writeState({ ...this.state, pin: point || null }),
    };
    return Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== ""));
  }
}

/** A part of the page, which asks for one thing at a time. */
export class Part extends HTMLElement {
  /** @param {Studio} studio */
  start(studio) {
    this.studio = studio;
    this.latest = new Latest(studio.report);
  }

  get state() {
    return this.studio.state;
  }

  /** Change the state. @param {Partial<import("./state.js").State>} changes */
  set(changes) {
    this.studio.store.set(changes);
  }

  /** Fetch anew: at once if the part is on the screen, otherwise when nothing has changed for a moment. */
  refresh() {
    if (!this.childElementCount) return; // it is not open yet
    clearTimeout(this.resting);
    const { top, bottom } = this.getBoundingClientRect();
    if (bottom > 0 && top < innerHeight) this.fetch();
    else this.resting = setTimeout(() => this.fetch(), REST_MS);
  }

  async fetch() {}

  /** Drop everything that has not come yet. */
  cancel() {
    clearTimeout(this.resting);
    this.latest.cancel();
  }
}

/** Return the seed and the index of a point that is one of a seed. @param {string} point */
function seedOf(point) {
  const [seed, index] = point.split(".").map(Number);
  return { seed, index: index || 0 };
}
