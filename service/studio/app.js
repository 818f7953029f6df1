/** The page: a model is chosen, its parts are opened, notices are shown, and pictures may be dropped. */

import { PairStrip } from "./strip.js";
import { MOST_SPREADS, mostVaried, PairSteer, usualFilters } from "./steer.js";
import { PairLens } from "./lens.js";
import { PairWalk } from "./walk.js";
import { PairPlane } from "./plane.js";
import { PairTake } from "./take.js";
import { OwnPicture, PICTURES, REFUSED } from "./own.js";
import { ModelCard } from "./card.js";
import { Api, Problem } from "./api.js";
import { CLICK, h, listed, rowsOf } from "./dom.js";
import { readTexts } from "./files.js";
import { readState, Store } from "./state.js";
import { Studio } from "./studio.js";

const GREETING_MS = 2500;
const NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/** @type {<T extends Element>(selector: string) => T} */
const find = (selector) => document.querySelector(selector);
const strip = /** @type {PairStrip} */ (find("pair-strip"));
const steer = /** @type {PairSteer} */ (find("pair-steer"));
const lens = /** @type {PairLens} */ (find("pair-lens"));
const walk = /** @type {PairWalk} */ (find("pair-walk"));
const plane = /** @type {PairPlane} */ (find("pair-plane"));
const take = /** @type {PairTake} */ (find("pair-take"));
const card = /** @type {ModelCard} */ (find("model-card"));
const picker = /** @type {HTMLSelectElement} */ (find("#model"));
const own = /** @type {OwnPicture} */ (find("own-picture"));
const invitation = /** @type {HTMLElement} */ (find("#invitation"));

const api = new Api(new URL(".", document.baseURI), askKey);
const store = new Store();
const studio = new Studio(api, store, report);

let lifted = false; // a picture of the page is being dragged, which is no file

/** Show a notice under a name; the next one of the name takes its place. @param {string} name @param {(string | Node)[]} content texts are paragraphs */
function notify(name, ...content) {
  find(`[data-notice="${name}"]`)?.remove();
  if (!content.length) return;
  const close = h("button", { className: "quiet", "aria-label": "Close", onclick: () => notify(name) }, "×");
  const parts = content.map((part) => (typeof part === "string" ? h("p", {}, part) : part));
  const notice = h("div", { className: "notice" }, h("div", {}, ...parts), close);
  notice.dataset.notice = name;
  find("#notices").append(notice);
}

/** Show an error as what it is; null takes it away. @param {any} error */
function report(error) {
  if (!error) return notify("error");
  if (!(error instanceof Problem)) {
    console.error(error);
    return notify("error", `The page failed: ${error.message}`);
  }
  const fields = error.errors.map((/** @type {any} */ one) => `${one.pointer} = ${one.value}: ${[one.allowed].flat().join(", ")}`);
  const small = h("small", {}, [error.status || "", error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · "));
  const details = h("details", {}, h("summary", {}, "Details"), ...fields.map((/** @type {string} */ text) => h("p", {}, text)), small);
  notify("error", told(error), details, ...(REFUSED.includes(error.status) ? [] : [again()]));
}

/** Return a problem as a sentence. @param {Problem} problem */
function told(problem) {
  return problem.status ? `The service says: ${problem.message}.` : "The service does not answer.";
}

function again() {
  return h("button", { onclick: () => (notify("error"), open()) }, "Try again");
}

api.addEventListener("wait", (event) => {
  const { problem, seconds } = /** @type {CustomEvent} */ (event).detail;
  const until = Date.now() + seconds * 1000;
  const left = h("p");
  const tick = () => (left.textContent = `Trying again in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s.`);
  tick();
  const timer = setInterval(() => (left.isConnected && Date.now() < until ? tick() : clearInterval(timer)), 250);
  notify("wait", told(problem), left, h("small", {}, `${problem.status || ""} ${problem.code}`));
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
    const generators = studio.cards.filter((one) => one.kind === "generator");
    picker.replaceChildren(...generators.map(({ name }) => h("option", { value: name }, name)));
    const wanted = generators.find(({ name }) => name === store.state.model);
    studio.card = wanted ?? generators.find(({ name }) => name === normal);
    if (!studio.card) return notify("error", "No generator is served yet. Put one into the service's folder of models, and", again());
    if (store.state.model && !wanted) notify("model", `The model ${store.state.model} is not served here; this is ${normal}.`);
    await openModel();
  } catch (error) {
    report(error);
  }
}

async function openModel() {
  walk.stop();
  for (const part of [strip, lens, walk, plane, own]) part.cancel();
  const { name } = studio.card;
  const { digest, model } = store.state;
  if (digest && !studio.digest.startsWith(digest) && model === name) {
    notify("digest", `This was made by another file of ${name} (${digest}); the one served now is ${studio.digest}. The pictures may differ.`);
  }
  store.set({ model: name, digest: studio.digest, ...fitting(), ...fittingFilters() }, true);
  for (const one of ["error", "drop"]) notify(one);
  picker.value = name;
  find("#headline").textContent = headline();
  steer.open();
  own.open();
  if (filtered()) await describe();
  await strip.open();
  if (!strip.columns.length) return;
  await lens.open(strip.pair(strip.columns[0]));
  card.show(studio.card, studio.classifiers[0]?.classes ?? []);
  take.open(() => strip.columns.slice(0, strip.visible).map(({ seed }) => seed));
  greet();
  await describe();
  steer.offerFilters();
  if (studio.classifiers.length) strip.redraw(); // with labels, if the service has them
  take.draw();
  await Promise.all([walk.open(seen), plane.open()]);
}

/** Fetch the service's description of itself, once. */
async function describe() {
  studio.document ??= await api.json(api.url("openapi.json"));
}

/** Pairs whose images are there: the strip's, and the one in the lens. */
function seen() {
  return [...strip.columns.map((column) => strip.pair(column)), lens.shown].filter(Boolean);
}

function headline() {
  const { domains } = studio;
  if (domains.length < 2) return `One random number, drawn as ${domains[0]}.`;
  return `One random number, drawn ${NUMBERS[domains.length] ?? domains.length} ways: ${listed(domains)}.`;
}

/** Return what of the state fits the model, of a URL that was made for another one, and say what does not. */
function fitting() {
  const { truncation, directions } = store.state;
  const known = studio.card.directions.map(({ name }, i) => name ?? String(i + 1));
  const kept = Object.entries(directions).filter(([name]) => known.includes(name));
  const gone = Object.keys(directions).filter((name) => !known.includes(name));
  if (gone.length) notify("model", `${studio.card.name} has no direction ${listed(gone)}, so it is left out.`);
  const within = kept.map(([name, spreads]) => [name, Math.max(-MOST_SPREADS, Math.min(MOST_SPREADS, spreads))]);
  return { directions: Object.fromEntries(within), truncation: truncation !== null && truncation >= mostVaried(studio.normal) ? null : truncation };
}

function filtered() {
  const { class: named, confidence, agree } = store.state;
  return Boolean(named || confidence || agree);
}

/** Return filters that fit the model; an address that the page has not made, and that names none, gets those that the model opens with. */
function fittingFilters() {
  const { class: named, digest } = store.state;
  const [classifier] = studio.classifiers;
  notify("filters");
  if (!filtered()) return digest ? {} : usualFilters(studio);
  if (!classifier) notify("filters", `${studio.card.name} has no classifier, so it cannot be filtered.`);
  else if (named && !classifier.classes.includes(named)) notify("filters", `${studio.card.name} has no class ${named}, so it is left out.`);
  else return {};
  return classifier ? { class: null } : usualFilters(studio);
}

/** Light one column up for a moment, so that one sees what belongs together. */
function greet() {
  if (store.state.pin || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  strip.peek(rowsOf(strip.grid)[0].at(Math.min(2, strip.columns.length - 1)));
  setTimeout(() => !strip.matches(":hover, :focus-within") && strip.peek(null), GREETING_MS);
}

/** Restore the view of a picture saved here; show the counterparts of any other. @param {File | undefined} file */
async function openPicture(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) return notify("drop", `${file.name} is no picture. Choose a ${PICTURES}.`);
  notify("drop", `Reading ${file.name}…`);
  const texts = readTexts(await file.arrayBuffer());
  const { View: view, Model: model, Digest: digest } = texts;
  if (!view) {
    notify("drop");
    return own.read(file, file.name);
  }
  const other = studio.cards.find(({ name }) => name === model);
  if (!other) return notify("drop", `${file.name} was made by the model ${model}, which is not served here.`);
  studio.card = other;
  store.enter({ ...readState(view), digest: studio.digest, model: null });
  await openModel();
  notify("drop", other.digest === digest
    ? `${file.name} is ${content(texts)} of ${model}, and this is its view.`
    : `${file.name} was made by another file of ${model}: ${digest.slice(0, 19)}, and ${other.digest.slice(0, 19)} is served now. The pictures may differ.`);
}

/** Return what a saved picture says that it shows. @param {Record<string, string>} texts */
function content({ Seed: seed = "" }) {
  const [, first, last] = /^(\d+)-(\d+)$/.exec(seed) ?? [];
  return first ? `a sheet of seeds ${first} to ${last}` : studio.title(store.state.pin ?? "");
}

/** Open another model. @param {string} name */
function choose(name) {
  studio.card = studio.cards.find((one) => one.name === name && one.kind === "generator");
  store.enter({ model: name, digest: studio.digest, pin: null, keys: [], frame: 0, directions: {}, left: null, right: null, ...usualFilters(studio) });
  openModel().catch(report);
}

/** Show what a file that is held over the page would become. @param {DragEvent} event */
function invite(event) {
  if (lifted || !event.dataTransfer?.types.includes("Files") || !studio.card) return;
  invitation.textContent = own.invitation;
  invitation.hidden = false;
}

for (const part of [strip, steer, lens, walk, plane, take, own]) part.start(studio);
if (CLICK === "Tap") find("#how").textContent = "Tap a picture: its counterparts light up, and it is a stop on a walk; tap it again to leave it out.";
picker.addEventListener("change", () => choose(picker.value));
document.addEventListener("model", (event) => choose(/** @type {CustomEvent} */ (event).detail));
document.addEventListener("picture", (event) => openPicture(/** @type {CustomEvent} */ (event).detail).catch(report));
document.addEventListener("peek", (event) => lens.peek(/** @type {CustomEvent} */ (event).detail));
strip.addEventListener("drawn", () => {
  take.draw();
  if (strip.columns.length) lens.follow(strip.columns.map((column) => strip.pair(column)));
});
document.addEventListener("dragstart", () => (lifted = true));
document.addEventListener("dragend", () => (lifted = false));
document.addEventListener("dragenter", invite);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("dragleave", (event) => event.relatedTarget || (invitation.hidden = true)); // it has left the page
document.addEventListener("drop", (event) => {
  event.preventDefault();
  invitation.hidden = true;
  if (!lifted) openPicture(event.dataTransfer?.files[0]).catch(report);
});
addEventListener("popstate", () => {
  const { model } = store.state;
  const next = readState(location.search);
  store.set(next, next.model !== model);
  if (next.model !== model) open();
});
addEventListener("resize", () => strip.columns.length && strip.redraw());
open();
