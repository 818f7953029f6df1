/** What all parts of the page share: the model, its pairs, and the parameters of every request. */

import { readRows } from "./files.js";
import { writeDirections, writeState } from "./state.js";

/** @typedef {Record<string, string>} Images  data URLs by domain */
/** @typedef {{point: string, title: string, images: Images}} Pair */

const DIGITS = 12; // of a digest, in a URL

/** One model at a time, and what the service can do. */
export class Studio {
  /** @param {import("./api.js").Api} api @param {import("./state.js").Store} store @param {(error: any) => void} report */
  constructor(api, store, report) {
    this.api = api;
    this.store = store;
    this.report = report;
    /** @type {any[]} */
    this.cards = [];
    /** @type {any} */
    this.card = null;
    /** @type {any} the OpenAPI document, once it is here */
    this.document = null;
    /** @type {Map<string, Float32Array[]>} */
    this.corners = new Map();
  }

  get state() {
    return this.store.state;
  }

  /** Names of the model's domains. @returns {string[]} */
  get domains() {
    return this.card.domains.map((/** @type {any} */ domain) => domain.name);
  }

  get digest() {
    return this.card.digest.replace("sha256:", "").slice(0, DIGITS);
  }

  /** Classifiers of the model's domains, in their order. @returns {any[]} */
  get classifiers() {
    const mine = [this.card.name, this.card.graph_digest];
    const fit = (/** @type {any} */ card, /** @type {string} */ domain) =>
      card.kind === "classifier" && card.domains[0].name === domain && card.goes_with.some((/** @type {any} */ one) => mine.includes(one));
    return this.domains.map((domain) => this.cards.find((card) => fit(card, domain))).filter(Boolean);
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

  /** Parameters that every request for images has, as a query takes them. */
  get common() {
    const { truncation, directions } = this.state;
    return { model: this.card.name, truncation, directions: writeDirections(directions) || null };
  }

  /** The same in a body. */
  get commonBody() {
    const moved = Object.entries(this.state.directions).filter(([, value]) => value);
    const { truncation } = this.state;
    return {
      model: this.card.name,
      ...(truncation !== null && { truncation }),
      ...(moved.length && { directions: Object.fromEntries(moved) }),
    };
  }

  /** Filters that are set, and labels if the service has them, as a query takes them. */
  get filters() {
    const { class: named, confidence, agree } = this.state;
    if (!this.can("/generate", "min_confidence") || !this.classifiers.length) return {};
    return { class: named, min_confidence: confidence || null, agree: agree || null };
  }

  /**
   * Return the pairs along a path through points, `steps` from one to the next, both counted: two are the points alone.
   * @param {string[]} points @param {{steps?: number, loop?: boolean, format?: string, signal?: AbortSignal}} options
   */
  async path(points, { steps = 2, loop = false, format = "json", signal }) {
    const keyframes = await this.keyframes(points, signal);
    const body = { ...this.commonBody, keyframes, steps, loop, format };
    return this.api.fetch(this.api.url("interpolate"), { body, signal });
  }

  /** Return a pair. @param {string} point @param {AbortSignal} [signal] @returns {Promise<Pair>} */
  async pair(point, signal) {
    const { frames } = await (await this.path([point, point], { signal })).json();
    return { point, title: this.title(point), images: frames[0].images };
  }

  /** Return points as key frames of a body. @param {string[]} points @param {AbortSignal} [signal] */
  async keyframes(points, signal) {
    return Promise.all(points.map(async (point) => {
      if (!point.startsWith("p")) return seedOf(point);
      const [corners, place] = point.slice(1).split("@");
      const [latent] = await this.plane(corners.split(","), [place.split(",").map(Number)], signal);
      return { latent };
    }));
  }

  /**
   * Return latents between four corners at places (u, v). With weights w they are the sum of w times a corner, divided
   * by the root of the sum of squares for a normal prior, so that they stay as typical as the corners. The arithmetic
   * is the same in every browser.
   * @param {string[]} corners @param {number[][]} places @param {AbortSignal} [signal] @returns {Promise<number[][]>}
   */
  async plane(corners, places, signal) {
    const latents = await this.#corners(corners, signal);
    const normal = this.card.prior.distribution === "normal";
    return places.map(([u, v]) => {
      const weights = [(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v];
      const scale = normal ? Math.sqrt(weights.reduce((sum, weight) => sum + weight * weight, 0)) : 1;
      return Array.from(latents[0], (_, z) => {
        const sum = weights.reduce((all, weight, i) => all + weight * latents[i][z], 0);
        return Number(Math.fround(sum / scale).toPrecision(9));
      });
    });
  }

  /** @param {string[]} corners @param {AbortSignal} [signal] @returns {Promise<Float32Array[]>} */
  async #corners(corners, signal) {
    const { truncation } = this.state;
    const key = JSON.stringify([this.card.digest, corners, truncation]);
    const known = this.corners.get(key);
    if (known) return known;
    const body = { model: this.card.name, keyframes: corners.map(seedOf), steps: 2, format: "npz", ...(truncation !== null && { truncation }) };
    const response = await this.api.fetch(this.api.url("interpolate"), { body, signal });
    const latents = readRows(await response.arrayBuffer(), "latent");
    this.corners.set(key, latents);
    return latents;
  }

  /** Return what a point is called. @param {string} point */
  title(point) {
    const [seed, index] = point.split(".");
    return point.startsWith("p") ? "a point of the plane" : `seed ${seed}${index && index !== "0" ? `, image ${index}` : ""}`;
  }

  /** Return what a saved picture says of itself. @param {string} point @param {Record<string, string>} [more] */
  texts(point, more = {}) {
    const { truncation, directions } = this.state;
    const { seed, index } = point.startsWith("p") ? { seed: "", index: "" } : seedOf(point);
    const texts = {
      Software: "CoGAN studio", Model: this.card.name, Digest: this.card.digest, Seed: `${seed}`, Index: `${index}`,
      Directions: JSON.stringify(directions), Truncation: truncation === null ? "" : `${truncation}`, ...more,
      View: writeState({ ...this.state, pin: point || null }),
    };
    return Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== ""));
  }
}

/** Return the seed and the index of a point that is one of a seed. @param {string} point */
export function seedOf(point) {
  const [seed, index] = point.split(".").map(Number);
  return { seed, index: index || 0 };
}
