/** Requests to the service: its problems, its keys, and waiting as it tells to. */

import { write } from "./state.js";

const KEY = "cogan-key";
const LONGEST_WAIT_S = 60; // a longer Retry-After is shown, not waited for
const MAX_TRIES = 10;
const PATIENCE_MS = 1000; // a newer request waits so long for an older one; less would starve a slider that moves on

/** An error of the service, as RFC 9457 has it; status 0 if it does not answer. */
export class Problem extends Error {
  /** @param {number} status @param {any} told @param {number | null} retryAfter */
  constructor(status, told, retryAfter = null) {
    super(told.detail);
    this.errors = told.errors ?? [];
    this.status = status;
    this.code = String(told.code);
    this.requestId = told.request_id ?? null;
    this.retryAfter = retryAfter;
  }
}

/** The service at an address. Events: `wait` with the problem and the seconds, `fine`. */
export class Api extends EventTarget {
  /** @param {URL} base @param {(wrong: boolean) => Promise<string>} askKey */
  constructor(base, askKey) {
    super();
    this.base = base;
    this.askKey = askKey;
    this.key = sessionStorage.getItem(KEY);
  }

  /** @param {string} path @param {Record<string, any>} [query] lists are repeated, and what is null is left out */
  url(path, query = {}) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      for (const one of [value].flat()) if (one !== null) url.searchParams.append(name, typeof one === "object" ? write(one) : one);
    }
    return url;
  }

  /**
   * Return a successful response; a body, a file or what JSON holds, makes it a POST. Waits and asks again as told.
   * Throws Problem.
   * @param {URL} url @param {{body?: any, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>}
   */
  async fetch(url, { body, signal } = {}) {
    for (let tries = 1; ; tries++) {
      const key = this.key;
      const answer = await this.#once(url, body, signal);
      if (answer instanceof Response) {
        this.dispatchEvent(new Event("fine"));
        return answer;
      }
      if (answer.status === 401) await this.#renewKey(key);
      else if (answer.retryAfter === null || answer.retryAfter > LONGEST_WAIT_S || tries === MAX_TRIES) throw answer;
      else await this.#wait(answer, answer.retryAfter, signal);
    }
  }

  /** @param {URL} url @param {{body?: any, signal?: AbortSignal}} [options] */
  async json(url, options) {
    return (await this.fetch(url, options)).json();
  }

  /** @param {URL} url @param {any} body @param {AbortSignal | undefined} signal @returns {Promise<Response | Problem>} */
  async #once(url, body, signal) {
    const type = body instanceof Blob ? body.type : "application/json";
    const headers = { ...(this.key && { "X-API-Key": this.key }), ...(body && { "Content-Type": type }) };
    const sent = body && { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body) };
    try {
      const response = await fetch(url, { headers, signal, ...sent });
      if (response.ok) return response;
      const told = await response.json().catch(() => ({ detail: response.statusText, code: `http_${response.status}` }));
      const after = response.headers.get("Retry-After");
      return new Problem(response.status, told, after === null ? null : Number(after));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return new Problem(0, { detail: "the service does not answer", code: "unreachable" }, 5);
    }
  }

  /** Ask for a key once, whatever number of requests lacks it. @param {string | null} used */
  async #renewKey(used) {
    if (this.key !== used) return;
    this.asking ??= this.askKey(used !== null).then((key) => {
      this.key = key;
      this.asking = undefined;
      sessionStorage.setItem(KEY, key);
    });
    await this.asking;
  }

  /** @param {Problem} problem @param {number} seconds @param {AbortSignal | undefined} signal */
  async #wait(problem, seconds, signal) {
    this.dispatchEvent(new CustomEvent("wait", { detail: { problem, seconds } }));
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, Math.max(0.1, seconds) * 1000);
      const stop = () => (clearTimeout(timer), reject(signal?.reason));
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}

/** Runs the newest of its tasks: one at a time, those between are left out, and a slow one is aborted. */
export class Latest {
  /** @param {(error: any) => void} report called with null when a task succeeds after one that failed */
  constructor(report) {
    this.report = report;
    this.failed = false;
    /** @type {((signal: AbortSignal) => Promise<void>) | null} */
    this.next = null;
    this.abort = new AbortController();
    this.busy = false;
    /** @type {Promise<void>} */
    this.ended = Promise.resolve();
  }

  /** Drop everything. */
  cancel() {
    this.next = null;
    this.abort.abort();
  }

  /** Run a task, or a newer one in its place; return when nothing is left to do.
   * @param {(signal: AbortSignal) => Promise<void>} task */
  async run(task) {
    this.next = task;
    if (this.busy) {
      const { abort } = this;
      setTimeout(() => this.next && abort.abort(), PATIENCE_MS);
    } else {
      this.ended = this.#work();
    }
    await this.ended;
  }

  async #work() {
    this.busy = true;
    while (this.next) {
      const now = this.next;
      this.next = null;
      this.abort = new AbortController();
      await now(this.abort.signal).then(() => this.#tell(null), (error) => error.name === "AbortError" || this.#tell(error));
    }
    this.busy = false;
  }

  /** @param {any} error */
  #tell(error) {
    if (error || this.failed) this.report(error);
    this.failed = Boolean(error);
  }
}
