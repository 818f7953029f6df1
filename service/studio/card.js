/** The card of a model: what it draws, how good it is beside floors, whose data it learned from, and its digest. */

import { h, listed } from "./dom.js";

export class ModelCard extends HTMLElement {
  /** @param {any} card */
  show(card) {
    /** @type {Map<string, Record<string, string>>} */
    const rows = new Map();
    /** @type {string[]} */
    const told = [];
    for (const [name, part] of Object.entries(card.quality)) read(name, "", part, rows, told);
    const domains = card.domains.map((/** @type {any} */ one) => one.name).filter((/** @type {string} */ name) => [...rows.values()].some((row) => name in row));
    const facts = {
      draws: listed(card.domains.map((/** @type {any} */ one) => `${one.name} (${one.width} × ${one.height}${one.channels === 3 ? ", colour" : ""})`)),
      latent: `${card.prior.latent_dim} values, ${card.prior.distribution}`,
      licence: card.data_license,
      ...(card.credit && { credit: card.credit }),
      version: card.version,
      digest: card.digest,
      ...(told.length && { measured: told.join(", ") }),
    };
    const head = ["measure", ...domains].map((name) => h("th", { scope: "col" }, name));
    const body = [...rows].map(([what, row]) => h("tr", {}, h("th", { scope: "row" }, what), ...domains.map((/** @type {string} */ name) => h("td", {}, row[name] ?? "–"))));
    this.replaceChildren(
      h("h2", {}, `The model ${card.name}`),
      h("dl", {}, ...Object.entries(facts).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
      body.length ? h("div", { className: "table", tabIndex: 0, role: "region", "aria-label": "Measured quality" },
        h("table", {}, h("caption", {}, "Measured quality; in brackets the floor: what unrelated pictures reach, or for distances the best there is"),
          h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...body))) : "");
  }
}
customElements.define("model-card", ModelCard);

/**
 * Collect the figures of a part of the measured quality by measure and domain, floors beside them in brackets.
 * @param {string} what @param {string} domain @param {any} part @param {Map<string, Record<string, string>>} rows @param {string[]} told
 */
function read(what, domain, part, rows, told) {
  const name = what.replaceAll("_", " ");
  if (part === null || typeof part !== "object") {
    if (domain) rows.set(name, { ...rows.get(name), [domain]: short(part) });
    else told.push(`${name} ${short(part)}`);
    return;
  }
  const { floor = null, of, ...rest } = part;
  for (const [key, value] of Object.entries(rest)) {
    if (!domain) read(what, key, value, rows, told);
    else if (typeof value === "number") {
      const beside = typeof floor === "number" ? floor : floor?.[key];
      read(["drawn", "value"].includes(key) ? what : `${what}, ${key}`, domain, `${short(value)}${beside === undefined ? "" : ` (${short(beside)})`}`, rows, told);
    }
  }
}

/** @param {any} value */
function short(value) {
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(value < 1 ? 3 : 2) : String(value);
}
