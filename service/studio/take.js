/** Take it away: files of what is shown, and the exact commands that fetch them again. */

import { h, save } from "./dom.js";
import { addTexts } from "./files.js";

const SHARD_SIZE = 1000;

export class PairTake extends HTMLElement {
  /** @param {import("./studio.js").Studio} studio */
  start(studio) {
    this.studio = studio;
    studio.store.addEventListener("change", () => this.draw());
  }

  /** @param {() => {seeds: number[], points: string[]}} shown what the strip shows */
  open(shown) {
    this.shown = shown;
    this.tab = this.tab ?? "curl";
    this.code = h("code", {});
    this.tabs = h("div", { className: "tabs", role: "group", "aria-label": "Language" });
    const copy = h("button", { className: "quiet copy", onclick: async () => {
      await navigator.clipboard.writeText(this.code.textContent ?? "");
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    } }, "Copy");
    this.animation = h("button", { onclick: () => this.file("gif") }, "Walk as GIF");
    this.replaceChildren(
      h("h2", {}, "Take it away"),
      h("div", { className: "bar" },
        h("button", { className: "main", onclick: () => this.file("png") }, "Sheet as PNG"),
        h("button", { onclick: () => this.file("npz") }, "Arrays as npz"),
        this.animation),
      this.tabs,
      h("div", { className: "code" }, h("pre", { tabIndex: 0, "aria-label": "Command" }, this.code), copy));
    this.draw();
  }

  /** URL of what the strip shows, in a format. @param {string} format */
  url(format) {
    const { api, common, filters } = this.studio;
    return api.url("generate", { ...common, seeds: this.shown().seeds, ...filters, format });
  }

  /** URL of shards of the same model, domains and filters, with `number` as it is. @param {string} number */
  shards(number) {
    const { api, common, filters, card } = this.studio;
    const query = api.url("", { ...common, digest: card.digest, size: SHARD_SIZE, ...filters }).search;
    return `${api.base}shards/${number}.tar${query}`;
  }

  /** Commands by name; those for routes that the service lacks are left out. @returns {Record<string, string>} */
  commands() {
    const { api, studio } = { api: this.studio.api, studio: this.studio };
    const name = studio.card.name;
    const key = api.key === null ? "" : " -H \"X-API-Key: $KEY\"";
    const headers = api.key === null ? "" : ", headers={\"X-API-Key\": os.environ[\"KEY\"]}";
    const python = [
      `import io${api.key === null ? "" : ", os"}, urllib.request`, "import numpy", "",
      `url = "${this.url("npz")}"`,
      `request = urllib.request.Request(url${headers})`,
      "pairs = numpy.load(io.BytesIO(urllib.request.urlopen(request).read()))",
      ...studio.domains.map((domain) => `print("${domain}", pairs["${domain}"].shape)`),
    ];
    const curl = [`curl${key} -o ${name}.png '${this.url("png")}'`, `curl${key} -o ${name}.npz '${this.url("npz")}'`];
    if (!studio.can("/shards/{number}.tar")) return { curl: curl.join("\n"), Python: python.join("\n") };
    const first = Math.floor(studio.state.seed / SHARD_SIZE);
    const wide = (/** @type {number} */ number) => String(number).padStart(6, "0");
    curl.push("", `# ${SHARD_SIZE} pairs in one file, and any number of such files`, `curl${key} -OJ '${this.shards(wide(first))}'`);
    const load = [
      "from datasets import load_dataset", "",
      `url = "${this.shards("{:06d}")}"`,
      `files = [url.format(number) for number in range(${first}, ${first + 10})]`,
      `pairs = load_dataset("webdataset", data_files=files, split="train", streaming=True)`,
      "print(next(iter(pairs)).keys())",
    ];
    return { curl: curl.join("\n"), Python: python.join("\n"), load_dataset: load.join("\n") };
  }

  draw() {
    if (!this.code || !this.studio.card) return;
    const commands = this.commands();
    if (!commands[this.tab]) this.tab = "curl";
    this.code.textContent = commands[this.tab];
    this.animation.disabled = this.studio.state.keys.length < 2;
    const names = Object.keys(commands);
    if (names.join() !== [...this.tabs.children].map((tab) => tab.textContent).join()) {
      this.tabs.replaceChildren(...names.map((name) => h("button", { onclick: () => ((this.tab = name), this.draw()) }, name)));
    }
    for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(tab.textContent === this.tab));
  }

  /** Fetch and save a file. @param {"png" | "npz" | "gif"} format */
  async file(format) {
    const { studio } = this;
    const { keys, steps, loop } = studio.state;
    try {
      const response = await (format === "gif" ? studio.path(keys, { steps, loop, format }) : studio.api.fetch(this.url(format)));
      const bytes = new Uint8Array(await response.arrayBuffer());
      const seeds = this.shown().seeds;
      const texts = studio.texts(studio.state.pin ?? "", { Seed: `${seeds[0]}-${seeds.at(-1)}`, Index: "0" });
      save(format === "png" ? addTexts(bytes, texts) : new Blob([bytes]), `${studio.card.name}${format === "gif" ? "-walk" : ""}.${format}`);
    } catch (error) {
      studio.report(error);
    }
  }
}
customElements.define("pair-take", PairTake);
