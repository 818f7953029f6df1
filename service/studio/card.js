/** The card of a model: what it draws, how good it is beside floors, whose data it learned from, and its digest. */

import { h, listed } from "./dom.js";

export class ModelCard extends HTMLElement {
  /** @param {import("./studio.js").Card} card */
  show(card) {
    /** @type {Map<string, Record<string, string>>} */
    const rows = new Map();
    /** @type {string[]} */
    const told = [];
    for (const [name, part] of Object.entries(card.quality)) read(name.replaceAll("_", " "), "", part, rows, told);
    const domains = card.domains.map(({ name }) => name).filter((name) => [...rows.values()].some((row) => name in row));
    const facts = {
      draws: listed(card.domains.map((one) => `${one.name} (${one.width} × ${one.height}${one.channels === 3 ? ", colour" : ""})`)),
      latent: `${card.prior.latent_dim} values, ${card.prior.distribution}`,
      licence: card.data_license, credit: card.credit, version: card.version, digest: card.digest, measured: told.join(", "),
    };
    const cells = (/** @type {"th" | "td"} */ tag, /** @type {string[]} */ texts) => texts.map((text) => h(tag, tag === "th" ? { scope: "col" } : {}, text));
    const body = [...rows].map(([what, row]) => h("tr", {}, h("th", { scope: "row" }, what), ...cells("td", domains.map((name) => row[name] ?? "–"))));
    const caption = "Measured quality; in brackets the floor: what unrelated pictures reach, or for distances the best there is";
    this.replaceChildren(
      h("h2", {}, `The model ${card.name}`),
      h("dl", {}, ...Object.entries(facts).flatMap(([name, text]) => (text ? [h("dt", {}, name), h("dd", {}, text)] : []))),
      body.length ? h("div", { className: "table", tabIndex: 0, role: "region", "aria-label": "Measured quality" },
        h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...cells("th", ["measure", ...domains]))), h("tbody", {}, ...body))) : "");
  }
}
customElements.define("model-card", ModelCard);

/**
 * Collect the figures of a part of the measured quality by measure and domain, floors beside them in brackets.
 * @param {string} what @param {string} domain @param {any} part @param {Map<string, Record<string, string>>} rows @param {string[]} told
 */
function read(what, domain, part, rows, told) {
  if (part === null || typeof part !== "object") {
    if (domain) rows.set(what, { ...rows.get(what), [domain]: short(part) });
    else told.push(`${what} ${short(part)}`);
    return;
  }
  const { floor = null, of, ...rest } = part;
  for (const [key, value] of Object.entries(rest)) {
    if (!domain) read(what, key, value, rows, told);
    else if (typeof value === "number") {
      const beside = typeof floor === "number" ? floor : floor?.[key];
      const name = ["drawn", "value"].includes(key) ? what : `${what}, ${key.replaceAll("_", " ")}`;
      read(name, domain, `${short(value)}${beside === undefined ? "" : ` (${short(beside)})`}`, rows, told);
    }
  }
}

/** @param {any} value */
function short(value) {
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(value < 1 ? 3 : 2) : String(value);
}
