/** The page: a model is chosen, its parts are opened, notices are shown, and pictures may be dropped. */

import { PairStrip } from "./strip.js";
import { PairSteer } from "./steer.js";
import { PairLens } from "./lens.js";
import { PairWalk } from "./walk.js";
import { PairPlane } from "./plane.js";
import { PairTake } from "./take.js";
import { ModelCard } from "./card.js";
import { Api, Problem } from "./api.js";
import { h, listed, size, wholeScale } from "./dom.js";
import { readTexts } from "./files.js";
import { readState, Store } from "./state.js";
import { Studio } from "./studio.js";

/** @type {<T extends Element>(selector: string) => T} */
const find = (selector) => /** @type {any} */ (document.querySelector(selector));
const notices = find("#notices");
const picker = /** @type {HTMLSelectElement} */ (find("#model"));
/** @type {PairStrip} */
const strip = find("pair-strip");
/** @type {PairSteer} */
const steer = find("pair-steer");
/** @type {PairLens} */
const lens = find("pair-lens");
/** @type {PairWalk} */
const walk = find("pair-walk");
/** @type {PairPlane} */
const plane = find("pair-plane");
/** @type {PairTake} */
const take = find("pair-take");
/** @type {ModelCard} */
const card = find("model-card");
const GREETING_MS = 2500;

const api = new Api(new URL(".", document.baseURI), askKey);
const store = new Store();
const studio = new Studio(api, store, report);

/** Show a notice under a name; the next one of the name takes its place. @param {string} name @param {Node[]} content */
function notify(name, ...content) {
  find(`[data-notice="${name}"]`)?.remove();
  if (!content.length) return;
  const close = h("button", { className: "quiet", "aria-label": "Close", onclick: () => notify(name) }, "×");
  const notice = h("div", { className: "notice" }, h("div", {}, ...content), close);
  notice.dataset.notice = name;
  notices.append(notice);
}

/** @param {string} text */
const line = (text) => h("p", {}, text);

/** Show an error as what it is. @param {any} error */
function report(error) {
  if (!(error instanceof Problem)) {
    console.error(error);
    return notify("error", line(`The page failed: ${error.message}`));
  }
  const fields = error.errors.map((/** @type {any} */ one) => line(`${one.pointer} = ${one.value}: ${[one.allowed].flat().join(", ")}`));
  const small = h("small", {}, [error.status || "", error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · "));
  const again = h("button", { onclick: () => (notify("error"), open()) }, "Try again");
  notify("error", line(`The service says: ${error.message}.`), ...fields, small, again);
}

api.addEventListener("wait", (event) => {
  const { problem, seconds } = /** @type {CustomEvent} */ (event).detail;
  const until = Date.now() + seconds * 1000;
  const left = line("");
  const tick = () => (left.textContent = `Trying again in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s.`);
  tick();
  const timer = setInterval(() => (left.isConnected && Date.now() < until ? tick() : clearInterval(timer)), 250);
  notify("wait", line(`The service says: ${problem.message}.`), left, h("small", {}, `${problem.status || ""} ${problem.code}`));
});
api.addEventListener("fine", () => notify("wait"));

/** Ask for a key. @param {boolean} wrong @returns {Promise<string>} */
function askKey(wrong) {
  const dialog = /** @type {HTMLDialogElement} */ (find("#key"));
  const value = /** @type {HTMLInputElement} */ (find("#key-value"));
  if (wrong) find("#key-why").textContent = "That key is not one of this service. Try another.";
  value.value = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(value.value.trim()), { once: true }));
}

/** Open the model that the URL names, or the default one. */
async function open() {
  try {
    const { models, default: normal } = await api.json(api.url("models"));
    studio.cards = models;
    const generators = models.filter((/** @type {any} */ one) => one.kind === "generator");
    picker.replaceChildren(...generators.map((/** @type {any} */ one) => h("option", { value: one.name }, one.name)));
    const wanted = generators.find((/** @type {any} */ one) => one.name === store.state.model);
    if (store.state.model && !wanted) notify("model", line(`The model ${store.state.model} is not served here.`));
    studio.card = wanted ?? generators.find((/** @type {any} */ one) => one.name === normal);
    if (!studio.card) return notify("error", line("No generator is served yet."), h("button", { onclick: open }, "Try again"));
    await openModel();
  } catch (error) {
    report(error);
  }
}

async function openModel() {
  walk.stop();
  for (const part of [strip, lens, walk, plane]) part.latest.cancel();
  const { digest } = store.state;
  const { domains } = studio;
  if (digest && !studio.digest.startsWith(digest) && store.state.model === studio.card.name) {
    notify("digest", line(`This was made by another file of ${studio.card.name} (${digest}); the one served now is ${studio.digest}. The pictures may differ.`));
  }
  store.set({ model: studio.card.name, digest: studio.digest }, true);
  picker.value = studio.card.name;
  find("#headline").textContent = domains.length > 1
    ? `Each column is one thing, drawn as ${listed(domains)}.` : `Each picture is one ${domains[0]}, drawn from its seed.`;
  steer.open();
  await strip.open();
  const [first] = strip.columns;
  if (!first) return;
  await lens.open({ point: strip.point(first), title: studio.title(strip.point(first)), images: first.images });
  card.show(studio.card);
  take.open(() => ({ seeds: strip.columns.slice(0, strip.visible).map((one) => one.seed), points: [] }));
  greet();
  studio.document ??= await api.json(api.url("openapi.json"));
  offer();
  await Promise.all([walk.open(), plane.open()]);
}

/** Offer what the service turns out to have. */
function offer() {
  steer.offerFilters();
  if (studio.classifiers.length && studio.can("/generate", "labels")) strip.redraw();
  take.draw();
}

/** Light one column up for a moment, so that one sees what belongs together. */
function greet() {
  if (store.state.pin || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const [row] = strip.rows;
  strip.peek(strip.cells(row)[Math.min(2, strip.columns.length - 1)]);
  setTimeout(() => !strip.matches(":hover, :focus-within") && strip.peek(null), GREETING_MS);
}

/** Restore the view of a picture saved here; for others say what can be done with them. @param {File | undefined} file */
async function openPicture(file) {
  if (!file) return;
  const texts = readTexts(await file.arrayBuffer());
  if (!texts?.View) {
    const encoder = studio.cards.some((one) => one.kind === "encoder" && one.goes_with.some((/** @type {string} */ name) => [studio.card.name, studio.card.graph_digest].includes(name)));
    if (encoder) return translate(file);
    return notify("drop", line(`${file.name} was not saved here, and ${studio.card.name} has no encoder, which would find its counterparts.`));
  }
  const state = readState(texts.View);
  const other = studio.cards.find((one) => one.name === texts.Model);
  if (!other) return notify("drop", line(`${file.name} was made by the model ${texts.Model}, which is not served here.`));
  studio.card = other;
  store.set({ ...state, digest: null, model: null }, true);
  await openModel();
  notify("drop", line(other.digest === texts.Digest
    ? `${file.name} is ${studio.title(store.state.pin ?? "")} of ${texts.Model}, and this is its view.`
    : `${file.name} was made by another file of ${texts.Model}: ${texts.Digest.slice(0, 19)}, and ${other.digest.slice(0, 19)} is served now. The pictures may differ.`));
}

/** Show the counterparts of a picture of one's own. @param {File} file */
async function translate(file) {
  const url = await new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
  const found = await api.json(api.url("translate"), { body: { image: url, model: studio.card.name, format: "json" } });
  const { images } = found.pairs[0];
  const figures = studio.card.domains.map((/** @type {any} */ domain) => {
    const image = h("img", { src: images[domain.name], alt: `${domain.name} of ${file.name}` });
    size(image, domain, wholeScale(domain.width, 84));
    return h("figure", {}, image, h("figcaption", {}, domain.name));
  });
  /** @type {Record<string, string>} */
  const likeness = {
    typical: "and is like what the model knows",
    unusual: "and is unusual for the model",
    unlike: "but is unlike anything the model knows, so its counterparts mean little",
  };
  notify("drop", line(`${file.name} was read as ${found.from} ${likeness[found.likeness] ?? ""}`.trim() + "."),
    h("div", { className: "counterparts" }, ...figures));
}

for (const part of [strip, steer, lens, walk, plane, take]) part.start(studio);
picker.addEventListener("change", () => {
  studio.card = studio.cards.find((one) => one.name === picker.value);
  store.set({ model: picker.value, digest: studio.digest, pin: null, keys: [], frame: 0, directions: {}, class: null, left: null, right: null }, true);
  openModel().catch(report);
});
document.addEventListener("peek", (event) => lens.peek(/** @type {CustomEvent} */ (event).detail));
strip.addEventListener("drawn", () => take.draw());
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openPicture(event.dataTransfer?.files[0]).catch(report);
});
find("#own").addEventListener("change", (event) => openPicture(/** @type {HTMLInputElement} */ (event.target).files?.[0]).catch(report));
addEventListener("resize", () => strip.columns.length && strip.redraw());
open();
