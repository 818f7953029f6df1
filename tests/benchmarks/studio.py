"""Time to the first images of the studio, and redraws a second while a slider moves, in a real Chromium.

    make bench                                                  # after the others
    .venv-service/bin/python -m tests.benchmarks.studio         # this alone, about a minute

Prints a table of medians and ranges over repeats, with browser and service together on one core and on all. Every
repeat opens the page with an empty cache and seeds of its own, and no value of the sliders comes twice, so that
neither browser nor service has an image already. Trust figures of an idle machine only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import MODELS, SWITCHES, Visitor
from tests.running import services

Figures = dict[str, float]
GOALS = {"first images, ms from opening": "<= 300", "redraws a second": ">= 20"}

# Note when the images of the strip are on the screen: at the second frame after they are in the document.
WATCH = """
window.shownAt = new Promise((resolve) => new MutationObserver((_, observer) => {
  if (!document.querySelector("pair-strip .cell img[src]")) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now())));
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["src"] }));
"""

# Move each slider from end to end, a step a frame, and count how often the strip has new images.
MOVE = """
async () => {
  const strip = document.querySelector("pair-strip");
  const seen = new Set();
  strip.addEventListener("drawn", () => seen.add(strip.querySelector(".cell img").src));
  const sliders = [...document.querySelectorAll("pair-steer fieldset:first-child input")];
  const start = performance.now();
  for (const slider of sliders) {
    for (let value = Number(slider.min); value <= Number(slider.max); value += Number(slider.step)) {
      await new Promise(requestAnimationFrame);
      slider.value = String(value);
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
  return (1000 * seen.size) / (performance.now() - start);
}
"""


def main() -> None:
    """Measure on one core and on all, and print the table."""
    options = parse()
    if (program := shutil.which("chromium")) is None:
        print("no chromium is installed: the studio is NOT MEASURED")
        return
    if (busy := os.getloadavg()[0]) > 0.5:
        print(f"The machine is busy (load {busy:.1f}): no figure of this run is to be trusted.", flush=True)
    cores = os.sched_getaffinity(0)
    print("| cores | figure | goal | median | range |\n| --- | --- | --- | ---: | ---: |")
    for chosen in ({min(cores)}, cores):
        os.sched_setaffinity(0, chosen)  # the service and the browser inherit it
        samples = measure(program, options)
        for name in samples[0]:
            values = [sample[name] for sample in samples]
            row = f"{statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f}"
            print(f"| {len(chosen)} | {name} | {GOALS.get(name, '')} | {row} |", flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of models")
    parser.add_argument("--model", default="digit_edge")
    return parser.parse_args()


def measure(program: str, options: argparse.Namespace) -> list[Figures]:
    """Return the figures of each repeat, after one that warms up."""
    with services(options.models) as start, sync_playwright() as playwright:
        url = start().url
        browser = playwright.chromium.launch(executable_path=program, args=SWITCHES)
        return [visit(browser, url, options.model, repeat) for repeat in range(options.repeats + 1)][1:]


def visit(browser: Browser, url: str, model: str, repeat: int) -> Figures:
    """Open the page once, and move its sliders. Raises RuntimeError if the page logs an error."""
    visitor = Visitor(browser, url)
    page = visitor.open(f"?model={model}&seed={1000 * (repeat + 1)}", init=WATCH)
    shown: float = page.evaluate("window.shownAt")
    loaded: float = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    redraws: float = page.evaluate(MOVE)
    page.context.close()
    if visitor.errors:
        raise RuntimeError(f"the page has logged {visitor.errors}")
    return {
        "first images, ms from opening": shown,
        "first images, ms from the page's load": shown - loaded,
        "redraws a second": redraws,
    }


if __name__ == "__main__":
    main()
