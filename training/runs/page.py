"""Page of results, in Markdown, from the result of each experiment that a folder keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files import expecting, read_json
from training.runs.figures import markdown

RESULT = "result.json"
HEAD = """# Results

Written by `python -m training.report` from the results of whole runs, which it keeps beside their pictures: no figure
here is typed. How a run differs from its recipe stands in the [training details](#training-details); recipes without
a whole run are [listed at the end](#not-run). [models/README.md](../models/README.md) has sheets of the models.
"""
GENERATED = """
## Generated images

Of whole test sets, and of the latents of
{latents}. In brackets the floor: the value of unrelated real images, or for a distance that of real
training images. Samples are of seeds 0 to 7, not chosen: images below one another within an experiment are a
pair.

{table}
- **Pixels agree**: the share of pixels at which the transform of the other domain's generated image equals
  the image generated for the domain, to the same side of mid-grey, or within so many of 255 levels.
  **Published**: Liu & Tuzel 2016, with a tolerance that they do not state.
- **Classes agree**: the share of pairs whose images are given the same class by the evaluation classifiers; in
  brackets that of true pairs of real test images, where there are some.
- **Doubtful**: the share of images whose class the domain's classifier gives less than 0.9; in brackets that of real
  test images. **Class balance**: the entropy of the generated classes over that of equally many of each.
- **Frechet distance** between the features of generated and of real images in the domain's classifier; only
  those of one classifier can be compared. **Its classifier**: its accuracy on real test images.
"""
ADAPTED = """
## Unsupervised domain adaptation

Accuracy of the last step on all test images of the domain without labels: mean and standard deviation over
the seeds. **Held out** is the share of a domain's images that was kept for testing, as the official code
divides USPS; others are divided as their source has it. **Published** is that of CoGAN.

{table}"""
DISTANCES = """
## Distance over the steps

Distance of snapshots to the training images while the run went on, a mean over domains. The best snapshot is
measured above, unless the last is named; other latents and images choose it than those that measure it. **Best in the
last fifth**: if so, the run was still getting better. **Pairs**: the run's first samples, over its steps.

{table}"""
DETAILS = """
## Training details

Batch of each domain; parameters of the networks; minutes of wall-clock time with pauses, the mean of one run
if there are several seeds.

{table}"""
NOT_RUN = """
## Not run

Recipes of which no run to the last step was measured, with their steps. Nothing is shown of shorter runs.

{names}
"""
TABLES = (("generated", GENERATED), ("adapted", ADAPTED), ("distances", DISTANCES), ("details", DETAILS))


def result_file(folder: Path, name: str) -> Path:
    """Return the path of an experiment's result in the folder of a page's results and pictures."""
    return folder / name / RESULT


def page(folder: Path, recipes: Mapping[str, int]) -> str:
    """Return the page of all results in a folder: tables that have rows, and the recipes without a result.

    `recipes` are steps by name. Raises RunError if a file holds no result.
    """
    results = {file.parent.name: _read(file) for file in sorted(folder.glob(f"*/{RESULT}"))}
    latents = ", ".join(dict.fromkeys(text for one in results.values() for text in one["latents"]))
    parts = [HEAD]
    for name, text in TABLES:
        if rows := [row for one in results.values() for row in one[name]]:
            parts.append(text.format(table=markdown(rows), latents=latents))
    if missing := [f"`{name}` ({steps:,})" for name, steps in recipes.items() if name not in results]:
        parts.append(NOT_RUN.format(names=",\n".join(missing)))
    return "".join(parts)


def _read(file: Path) -> Mapping[str, Any]:
    with expecting("a result", file, "python -m training.report RUN makes it anew"):
        result: Mapping[str, Any] = read_json(file, dict)
        if missing := {"latents", *(name for name, _ in TABLES)} - set(result):
            raise KeyError(", ".join(sorted(missing)))
    return result
