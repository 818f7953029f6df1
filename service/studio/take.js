/** Take it away: files of what is shown, and the exact commands that fetch them again. */

import { h, save } from "./dom.js";
import { addTexts } from "./files.js";
import { Part } from "./studio.js";

const SHARD_SIZE = 1000;

export class PairTake extends Part {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    super.start(studio);
    studio.store.addEventListener("change", () => this.draw());
  }

  /** @param {() => number[]} seeds those that the strip shows */
  open(seeds) {
    this.seeds = seeds;
    this.tab ??= "curl";
    this.code = h("code", {});
    this.tabs = h("div", { className: "tabs", role: "group", "aria-label": "Language" });
    this.copied = h("button", { className: "quiet copy", onclick: () => this.copy() }, "Copy");
    const button = (/** @type {string} */ text, /** @type {() => Promise<void>} */ act, className = "") =>
      h("button", { className, onclick: () => act().catch(this.studio.report) }, text);
    this.animation = button("Walk as GIF", () => this.studio.saveWalk("gif"));
    this.replaceChildren(
      h("h2", {}, "Take it away"),
      h("div", { className: "bar" }, button("Sheet as PNG", () => this.file("png"), "main"), button("Arrays as npz", () => this.file("npz")), this.animation),
      this.tabs,
      h("div", { className: "code" }, h("pre", { tabIndex: 0, "aria-label": "Command" }, this.code), this.copied));
    this.draw();
  }

  /** Copy the command; where the browser has no clipboard, as on plain http, select it for the keyboard. */
  async copy() {
    const done = await navigator.clipboard?.writeText(this.code.textContent).then(() => true, () => false);
    if (!done) getSelection().selectAllChildren(this.code);
    this.copied.textContent = done || document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (this.copied.textContent = "Copy"), done ? 1500 : 4000);
  }

  /** URL of what the strip shows, in a format. @param {string} format */
  url(format) {
    const { api, common, filters, scale } = this.studio;
    return api.url("generate", { ...common, seeds: this.seeds(), ...filters, format, scale: format === "png" ? scale : null });
  }

  /** URL of shards of the same model, domains and filters, with `number` as it is. @param {string} number */
  shards(number) {
    const { api, common, filters, card } = this.studio;
    return `${api.base}shards/${number}.tar${api.url("", { ...common, digest: card.digest, size: SHARD_SIZE, ...filters }).search}`;
  }

  /** Commands by name; those for routes that the service lacks are left out. @returns {Record<string, string>} */
  commands() {
    const { api, card: { name }, domains } = this.studio;
    const keyed = api.key !== null;
    const curl = `curl${keyed ? ' -H "X-API-Key: $KEY"' : ""}`;
    const lines = [`${curl} -o ${name}.png '${this.url("png")}'`, `${curl} -o ${name}.npz '${this.url("npz")}'`];
    const python = [
      `import io${keyed ? ", os" : ""}, urllib.request`, "import numpy", "",
      `url = "${this.url("npz")}"`,
      `request = urllib.request.Request(url${keyed ? ', headers={"X-API-Key": os.environ["KEY"]}' : ""})`,
      "pairs = numpy.load(io.BytesIO(urllib.request.urlopen(request).read()))",
      ...domains.map((domain) => `print("${domain}", pairs["${domain}"].shape)`),
    ].join("\n");
    if (!this.studio.can("/shards/{number}.tar")) return { curl: lines.join("\n"), Python: python };
    const first = Math.floor(this.state.seed / SHARD_SIZE);
    lines.push("", `# ${SHARD_SIZE} pairs in one file, and any number of such files`, `${curl} -OJ '${this.shards(String(first).padStart(6, "0"))}'`);
    const load = [
      "from datasets import load_dataset", "",
      `url = "${this.shards("{:06d}")}"`,
      `files = [url.format(number) for number in range(${first}, ${first + 10})]`,
      `pairs = load_dataset("webdataset", data_files=files, split="train", streaming=True)`,
      "print(next(iter(pairs)).keys())",
    ].join("\n");
    return { curl: lines.join("\n"), Python: python, load_dataset: load };
  }

  draw() {
    if (!this.code) return;
    const commands = this.commands();
    if (!commands[this.tab]) this.tab = "curl";
    this.code.textContent = commands[this.tab];
    this.animation.disabled = this.state.keys.length < 2;
    const names = Object.keys(commands);
    if (names.length !== this.tabs.childElementCount) {
      this.tabs.replaceChildren(...names.map((name) => h("button", { onclick: () => ((this.tab = name), this.draw()) }, name)));
    }
    for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(tab.textContent === this.tab));
  }

  /** Fetch and save what the strip shows. @param {"png" | "npz"} format */
  async file(format) {
    const bytes = new Uint8Array(await (await this.studio.api.fetch(this.url(format))).arrayBuffer());
    const seeds = this.seeds();
    const texts = this.studio.texts(this.state.pin ?? "", { Seed: `${seeds[0]}-${seeds.at(-1)}`, Index: "0" });
    save(format === "png" ? addTexts(bytes, texts) : new Blob([bytes]), `${this.studio.card.name}.${format}`);
  }
}
customElements.define("pair-take", PairTake);
