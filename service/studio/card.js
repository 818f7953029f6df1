/** The card of a model: what it draws, how good it is beside floors, whose data it learned from, and its digest. */

import { h, listed } from "./dom.js";

const VALUES = ["drawn", "generated", "value"]; // what the figure itself is called

export class ModelCard extends HTMLElement {
  /** @param {import("./studio.js").Card} card @param {string[]} classes that its classifiers know */
  show(card, classes) {
    /** @type {Map<string, Record<string, string>>} */
    const rows = new Map();
    /** @type {Set<string>} */
    const told = new Set();
    const names = card.domains.map(({ name }) => name);
    for (const [name, part] of Object.entries(card.quality)) read(words(name), part, names, rows, told);
    const domains = names.filter((name) => [...rows.values()].some((row) => name in row));
    const facts = {
      draws: listed(card.domains.map((one) => `${one.name} (${one.width} × ${one.height}${one.channels === 3 ? ", colour" : ""})`)),
      latent: `${card.prior.latent_dim} values, ${card.prior.distribution}`,
      licence: card.data_license, credit: card.credit, version: card.version, digest: card.digest,
    };
    const verdict = agreement(card, classes);
    const cells = (/** @type {"th" | "td"} */ tag, /** @type {string[]} */ texts) => texts.map((text) => h(tag, tag === "th" ? { scope: "col" } : {}, text));
    const body = [...rows].map(([what, row]) => h("tr", {}, h("th", { scope: "row" }, what), ...cells("td", domains.map((name) => row[name] ?? "–"))));
    const caption = "Measured quality; in brackets what real pictures reach, or for pixels what unrelated ones do";
    this.replaceChildren(...[
      h("h2", {}, `The model ${card.name}`),
      verdict && h("p", {}, verdict),
      h("dl", {}, ...Object.entries(facts).flatMap(([name, text]) => (text ? [h("dt", {}, name), h("dd", {}, text)] : []))),
      body.length && h("details", {}, h("summary", {}, "Everything that was measured"), h("div", { className: "table", tabIndex: 0, role: "region", "aria-label": "Measured quality" },
        h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...cells("th", ["measure", ...domains]))), h("tbody", {}, ...body))),
      told.size && h("p", { className: "hint" }, `${[...told].join(", ")}.`)),
    ].filter(Boolean));
  }
}
customElements.define("model-card", ModelCard);

/** Return in how many pairs the pictures show the same, as a sentence; none if it was not measured. @param {import("./studio.js").Card} card @param {string[]} classes */
function agreement({ domains: [first, ...others], quality }, classes) {
  const shares = others.filter(({ name }) => name in (quality.class_agreement ?? {}))
    .map(({ name }) => ({ name, of100: Math.floor(100 * quality.class_agreement[name]) }));
  if (!shares.length) return "";
  const noun = classes.every((one) => /^\d$/.test(one)) ? "digit" : classes.every((one) => /^\p{L}( \p{L})*$/u.test(one)) ? "letter" : "class";
  if (others.length === 1) return `In ${shares[0].of100} of 100 pairs both pictures show the same ${noun}.`;
  const parts = shares.map(({ name, of100 }, i) => `${first.name} and ${name} ${i ? "" : `show the same ${noun} `}in ${of100}${i ? "" : " of 100 pairs"}`);
  return `${parts.join(", ")}.`.replace(/^./, (letter) => letter.toUpperCase());
}

/**
 * Collect a part of the measured quality: figures by measure and domain, and what is said of all domains at once.
 * @param {string} what @param {any} part @param {string[]} names of domains
 * @param {Map<string, Record<string, string>>} rows @param {Set<string>} told
 */
function read(what, part, names, rows, told) {
  if (part === null || typeof part !== "object") return told.add(`${what} ${short(part)}`);
  if (part.domains) return names.forEach((name) => Object.entries(part.domains[name] ?? {}).forEach(([measure, figures]) => add(words(measure), name, figures, rows)));
  const known = names.filter((name) => name in part);
  const texts = known.filter((name) => typeof part[name] === "string");
  for (const name of texts) told.add(`${what}: ${part[name]}`);
  for (const name of known) if (!texts.includes(name)) add(what, name, part[name], rows);
  if (!known.length && Object.keys(part).length) told.add(`${what} ${Object.values(part).map((one) => words(short(one))).join(" ")}`);
}

/** Add the figures of a domain to their rows, floors beside them in brackets.
 * @param {string} what @param {string} domain @param {any} figures @param {Map<string, Record<string, string>>} rows */
function add(what, domain, figures, rows) {
  const { floor = null, below, of, real = floor, true_distance: known = real, ...drawn } = typeof figures === "object" ? figures : { value: figures };
  for (const [key, value] of Object.entries(drawn)) {
    if (typeof value !== "number" || what === "images") continue;
    const itself = VALUES.includes(key);
    const beside = itself ? known : floor?.[key];
    const name = itself ? what : `${what}, ${key === "true_floor" ? "unrelated pairs" : words(key)}`;
    rows.set(name, { ...rows.get(name), [domain]: short(value) + (typeof beside === "number" ? ` (${short(beside)})` : "") });
  }
}

/** @param {string} name */
function words(name) {
  return name.replaceAll("_", " ");
}

/** @param {any} value */
function short(value) {
  const fraction = typeof value === "number" && !Number.isInteger(value);
  return fraction ? value.toFixed(Math.abs(value) < 1 ? 3 : 2).replace("-0.000", "0.000") : String(value);
}
