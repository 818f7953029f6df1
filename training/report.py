"""Report on runs: a comparison, or the page of results.

    python -m training.report runs/00003_digit_edge runs/00004_digit_edge
    python -m training.report runs/* --to docs/results.md

A folder gets a comparison: report.md, report.csv and metrics.png. A file gets the page; a folder beside it, its
pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from tyro.conf import Positional

from training.cli import parse, verb
from training.config.data import DomainConfig
from training.config.experiment import EXPERIMENT, Experiment, load_experiment
from training.engine.state import build_discriminator, build_generator
from training.errors import ConfigError, RunError
from training.files import read_json, write_lines
from training.networks.coupled import generate, latents_of_seeds
from training.networks.weights import count_weights
from training.runs.figures import (
    Row,
    Rows,
    Value,
    by_metric,
    distance_curves,
    distance_row,
    flat,
    markdown,
    save_curves,
    save_distance,
    save_report,
    save_sheet,
    spread,
)
from training.runs.folder import (
    MachineFacts,
    RunFolder,
    Snapshot,
    last_step,
    load_average,
    machines,
    seconds,
    snapshot_step,
)

SEEDS = range(8)
PIXELS = {"binarised": "pixels agree, binarised", "within_51": "within 51", "within_25": "within 25"}
# Last parts of the names of fields that differ between runs of one recipe.
NOT_OF_RECIPE = {"seed", "log_every", "sample_every", "checkpoint_every", "measure_every", "classifiers", "description"}

MNIST, USPS = "ylecun/mnist", "flwrlabs/usps"

# Share of agreeing pixels, by source and transform: CoGAN, Liu & Tuzel 2016, section 4; tolerance not stated.
PIXEL_AGREEMENT = {(MNIST, "edge"): 0.952, (MNIST, "negative"): 0.967}

# Accuracy in a domain without labels, by source and count of those with labels and of its own: CoGAN, on all
# images as comparisons report it, on few as Tzeng et al. 2017 do.
ACCURACY = {
    (MNIST, None, USPS, None): 0.9565,
    (USPS, None, MNIST, None): 0.9315,
    (MNIST, 2000, USPS, 1800): 0.912,
    (USPS, 1800, MNIST, 2000): 0.891,
}

HEAD = """# Results

Written by `python -m training.report` from the folders of measured runs: no figure here is typed. Runs that
were stopped early, or trained with overrides, are listed as they are; see the training details below.
"""
GENERATED = """
## Generated images

After so many steps, of how many in the recipe; measured on whole test sets, and on the latents of
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

Of snapshots to the images that were learned from, while the run went on, a mean over domains. The best snapshot
is what was measured above, unless the last is named. The latents, and the images it is chosen by, are others than
those that measure it. A run is best in its last fifth if it was still getting better.

{table}"""
DETAILS = """
## Training details

Batch of each domain; parameters of the networks; minutes of wall-clock time with pauses, the mean of one run
if there are several seeds.

{table}"""


@dataclass(frozen=True)
class ReportOptions:
    """Other runs, and the output of the report."""

    others: Positional[tuple[Path, ...]] = ()
    """The other runs' folders."""
    to: Path = Path("comparison")
    """Folder of a comparison, or file of a page, such as results.md."""
    recipes: Path = Path(__file__).parent / "recipes"
    """Folder of recipes: a page names the fields in which a run differs from the recipe of its name."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Compare runs, or write the page of measured runs."""
    options = parse(ReportOptions(), arguments)
    runs = [RunFolder.open(path) for path in (target, *options.others)]
    if options.to.suffix:
        document(runs, options)
        print(options.to)
    else:
        write_comparison(runs, options.to)


def write_comparison(runs: Sequence[RunFolder], folder: Path) -> None:
    """Write report.md, report.csv and metrics.png. Raises RunError if no run has metrics."""
    rows, curves = compare(runs), {str(run.path): run.curves() for run in runs}
    if not any(curves.values()):
        raise RunError(f"{', '.join(curves)}: no metrics yet; they come every experiment.log_every steps")
    folder.mkdir(parents=True, exist_ok=True)
    save_report(rows, folder)
    save_curves(by_metric(curves), "step", folder / "metrics.png")
    print(markdown(rows) + f"\n{folder}")


def compare(runs: Sequence[RunFolder]) -> Rows:
    """Return a row for each value, and in it a column for each run.

    First the fields in which their experiments differ, then the last of each metric, then the quality.
    """
    fields = {str(run.path): flat(_run_fields(run)) for run in runs}
    lasts = {str(run.path): {name: kept[-1] for name, (_, kept) in run.curves().items()} for run in runs}
    qualities = {str(run.path): flat(_kept_quality(run), "quality") for run in runs}
    return [*_differing(_turned(fields)), *_turned(lasts), *_turned(qualities)]


def _turned(columns: Mapping[str, Mapping[str, Value]]) -> Rows:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [{"name": name} | {run: column.get(name) for run, column in columns.items()} for name in names]


def _differing(rows: Rows) -> Rows:
    return [row for row in rows if len({value for name, value in row.items() if name != "name"}) > 1]


def _run_fields(run: RunFolder) -> object:
    """Return every field of a run's experiment, with defaults for fields that are newer."""
    try:
        return EXPERIMENT.dump_python(run.experiment(), mode="json")
    except ConfigError:  # it has fields that were removed since
        return run.description()["experiment"]


def _kept_quality(run: RunFolder) -> object:
    return read_json(run.quality_file) if run.quality_file.is_file() else {}


def document(runs: Sequence[RunFolder], options: ReportOptions) -> None:
    """Write the page and its pictures.

    Raises RunError, before anything is written, if a run is not measured or two are of one experiment.
    """
    generated = [run for run in runs if run.quality_file.is_file()]
    adapted = [run for run in runs if run.accuracy_file.is_file()]
    check(runs, generated, adapted)
    folder = options.to.with_suffix("")
    text = page(
        [row for run in generated for row in generated_rows(run, options.recipes, Path(folder.name))],
        [row for group in group_by_recipe(adapted) for row in adapted_rows(group, options.recipes)],
        [distance_row(run, distance_file(Path(folder.name), run)) for run in generated if distance_curves(run)],
        [details_row(group, options.recipes) for group in group_by_recipe(runs)],
        ", ".join(dict.fromkeys(str(_quality(run)["latents"]) for run in generated)),
    )
    for run in generated:
        save_strips(run, folder)
        save_distance(run, distance_file(folder, run))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    write_lines(options.to, text.splitlines())


def check(runs: Sequence[RunFolder], generated: Sequence[RunFolder], adapted: Sequence[RunFolder]) -> None:
    """Raise RunError if a run is not measured, or two are of one experiment."""
    for run in runs:
        if run not in [*generated, *adapted]:
            raise RunError(f"{run.path} is not measured: python -m training.evaluate {run.path}")
    paths: dict[str, Path] = {}
    for run in generated:
        name = run.experiment().name
        if name in paths:
            raise RunError(f"{paths[name]} and {run.path} are of one experiment, {name}: a page has one of them")
        paths[name] = run.path


def save_strips(run: RunFolder, folder: Path) -> None:
    """Write images of the EMA generator of the first seeds, a file for each domain."""
    experiment, (generator, _) = run.experiment(), load_average(run, measured_snapshot(run))
    for name, images in generate(generator, latents_of_seeds(experiment.latent_prior, SEEDS)).items():
        file = strip_file(folder, experiment.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_sheet({name: images}, file, columns=len(SEEDS))


def measured_snapshot(run: RunFolder) -> Snapshot:
    """Return the snapshot that was measured. Raises RunError if it is not a run's best or last one."""
    return "best" if _quality(run)["steps"] == snapshot_step(run, "best") else "last"


def distance_file(folder: Path, run: RunFolder) -> Path:
    """Return the path of the curve of a run's distance in the folder of a page's pictures."""
    return folder / run.experiment().name / "distance.png"


def page(generated: Rows, adapted: Rows, distances: Rows, details: Rows, latents: str) -> str:
    """Return the page in Markdown, a section for each table that has rows, of those `latents`."""
    sections = ((GENERATED, generated), (ADAPTED, adapted), (DISTANCES, distances), (DETAILS, details))
    texts = [text.format(table=markdown(rows), latents=latents) for text, rows in sections if rows]
    return "".join([HEAD, *texts])


def strip_file(folder: Path, experiment: str, domain: str) -> Path:
    """Return the path of a domain's generated images in the folder of a page's pictures."""
    return folder / experiment / f"{domain}.png"


def generated_rows(run: RunFolder, recipes: Path, pictures: Path) -> Rows:
    """Return the row of each domain of a run: generated images and metrics.

    `recipes` is the folder of recipes, `pictures` that of the images. Raises RunError if the run is not
    measured after its last checkpoint.
    """
    experiment, quality = run.experiment(), _quality(run)
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(run, recipes) + _chosen(run, quality),
            "samples": f"![]({strip_file(pictures, experiment.name, domain.name)})",
            **_measures(domain, quality),
        }
        for domain in experiment.domains
    ]


def adapted_rows(runs: Sequence[RunFolder], recipes: Path) -> Rows:
    """Return the row of each domain without labels, over the seeds of one recipe.

    Raises RunError if one is not measured after its last checkpoint.
    """
    experiment = runs[0].experiment()
    measured = [run.accuracy(last_step(run.checkpoints)) for run in runs]
    held_out = [f"{one.held_out:.0%} of {one.name}" for one in experiment.domains if one.held_out]
    published = {domain: published_accuracy(experiment, domain) for domain in experiment.domains}
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(runs[0], recipes),
            "seeds": ", ".join(str(run.experiment().seed) for run in runs),
            "held out": ", ".join(held_out),
            "images": f"{measured[0]['images'][domain.name]:,}",
            "accuracy": spread([one["accuracy"][domain.name] for one in measured]),
            "published": _cell(published[domain], form=".2%"),
        }
        for domain in experiment.domains
        if not domain.labelled and domain.name in measured[0]["accuracy"]
    ]


def details_row(runs: Sequence[RunFolder], recipes: Path) -> Row:
    """Return the training details of runs of one recipe: batch, parameters, time, machine, overrides.

    `recipes` is the folder of recipes.
    """
    experiment = runs[0].experiment()
    places = dict.fromkeys(_place(machine) for run in runs for machine in machines(run))
    return {
        "experiment": experiment.name,
        "steps": _steps(runs[0], recipes),
        "batch": experiment.batch_size,
        "precision": ", ".join(dict.fromkeys(itertools.chain.from_iterable(map(_precisions, runs)))),
        "generator": f"{count_weights(build_generator(experiment)):,}",
        "discriminator": f"{count_weights(build_discriminator(experiment)):,}",
        "minutes": f"{mean(seconds(run) for run in runs) / 60:.0f}",
        "machine": "; ".join(places),
        "overrides": ", ".join(overrides(experiment, recipe_of(experiment, recipes))),
    }


def _quality(run: RunFolder) -> Mapping[str, Any]:
    return run.quality(snapshot_step(run, "best"), snapshot_step(run, "last"))


def _chosen(run: RunFolder, quality: Mapping[str, Any]) -> str:
    """Return after which step a run was measured, if it is not the last."""
    measured = int(quality["steps"])
    return "" if measured == snapshot_step(run, "last") else f"; the best, {measured:,}"


def _measures(domain: DomainConfig, quality: Mapping[str, Any]) -> Row:
    def of(measure: str) -> Any:
        return quality.get(measure, {}).get(domain.name)

    pixels, distance = of("pixel_agreement") or {}, of("frechet_distance") or {}
    doubtful = of("doubtful_images") or {}
    floors = pixels.get("floor", {})
    free = quality.get("without_labels", {}).get("domains", {}).get(domain.name, {}).get("frechet_distance", {})
    return {
        **{title: _cell(pixels.get(name), floors.get(name)) for name, title in PIXELS.items()},
        "published": _cell(published_pixel_agreement(domain) if pixels else None, form=".3f"),
        "classes agree": _cell(of("class_agreement"), of("class_agreement_of_real_pairs")),
        "doubtful": _cell(doubtful.get("generated"), doubtful.get("real"), ".2%"),
        "class balance": _cell(of("class_balance")),
        "Frechet distance": _cell(distance.get("drawn"), distance.get("floor"), ".2f"),
        "distance without labels": _cell(free.get("generated"), free.get("floor"), ".1f"),
        "its classifier": _cell(_overall(of("classifier_accuracy")), form=".2%"),
    }


def _overall(shares: float | Mapping[str, float] | None) -> float | None:
    """Return the mean over attributes, if there are some."""
    return mean(shares.values()) if isinstance(shares, Mapping) else shares


def _cell(value: float | None, floor: float | None = None, form: str = ".4f") -> str:
    behind = "" if floor is None else f" ({floor:{form}})"
    return "" if value is None else f"{value:{form}}{behind}"


def _steps(run: RunFolder, recipes: Path) -> str:
    done, planned = last_step(run.checkpoints), recipe_of(run.experiment(), recipes).steps
    return f"{done:,}" if done == planned else f"{done:,} of {planned:,}"


def _precisions(run: RunFolder) -> list[str]:
    """Return the precisions that a run was trained in; earlier ones kept theirs in the experiment."""
    noted = [str(machine["precision"]) for machine in machines(run) if "precision" in machine]
    return noted or [run.description()["experiment"].get("precision", "32-true")]


def _place(machine: MachineFacts) -> str:
    threads = int(machine["processes"]) * int(machine["threads"])
    return f"{machine['device']}, {threads} of {machine['of_threads']} threads"


def published_pixel_agreement(domain: DomainConfig) -> float | None:
    """Return the published pixel agreement of a domain of these images, if there is one."""
    return PIXEL_AGREEMENT.get((domain.source, domain.transform))


def published_accuracy(experiment: Experiment, domain: DomainConfig) -> float | None:
    """Return the published accuracy in a domain adapted from these labelled domains, if there is one."""
    labelled = [one for one in experiment.domains if one.labelled]
    known = [ACCURACY.get((one.source, one.count, domain.source, domain.count)) for one in labelled]
    return next((figure for figure in known if figure is not None), None)


def group_by_recipe(runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """Return the runs in groups of one recipe and one number of steps, in their order."""
    groups: dict[object, list[RunFolder]] = {}
    for run in runs:
        fields = _recipe_fields(run.experiment())
        groups.setdefault((last_step(run.checkpoints), *fields.items()), []).append(run)
    return list(groups.values())


def recipe_of(experiment: Experiment, recipes: Path) -> Experiment:
    """Return the experiment of the recipe of that name; if there is none, this one."""
    file = recipes / f"{experiment.name}.toml"
    return load_experiment(file) if file.is_file() else experiment


def overrides(experiment: Experiment, base: Experiment) -> list[str]:
    """Return the fields in which an experiment differs from another: generator.width = 0.5."""
    ours, theirs = _recipe_fields(experiment), _recipe_fields(base)
    names = dict.fromkeys([*theirs, *ours])
    return [f"{name} = {ours.get(name)}" for name in names if ours.get(name) != theirs.get(name)]


def _recipe_fields(experiment: Experiment) -> Row:
    fields = flat(EXPERIMENT.dump_python(experiment, mode="json"))
    return {name: value for name, value in fields.items() if name.split(".")[-1] not in NOT_OF_RECIPE}


if __name__ == "__main__":
    main()
