"""Report on runs: a comparison, or the page of results.

    python -m training.report runs/00003_digit_edge runs/00004_digit_edge
    python -m training.report runs/* --to docs/results.md

A folder gets a comparison: report.md, report.csv and metrics.png. A file gets the page, of all results in the folder
beside it, to which those of the given runs are added with their pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
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
from training.files import make_folder, read_json, write_json, write_lines
from training.metrics.label_free import SNAPSHOT_MEASURES
from training.networks.coupled import generate, latents_of_seeds
from training.networks.weights import count_weights
from training.runs.figures import (
    Curve,
    Row,
    Rows,
    Value,
    by_metric,
    flat,
    markdown,
    save_curves,
    save_excerpt,
    save_report,
    save_sheet,
    spread,
)
from training.runs.folder import (
    MachineFacts,
    RunFolder,
    last_step,
    list_samples,
    load_average,
    machines,
    seconds,
    snapshot_step,
)
from training.runs.page import page, result_file

SEEDS = range(8)
DISTANCE, FILM = "distance.png", "training.webp"
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


@dataclass(frozen=True)
class ReportOptions:
    """Other runs, and the output of the report."""

    others: Positional[tuple[Path, ...]] = ()
    """The other runs' folders."""
    to: Path = Path("comparison")
    """Folder of a comparison, or file of a page, such as results.md."""
    recipes: Path = Path(__file__).parent / "recipes"
    """Folder of recipes: a page names the fields in which a run differs from the recipe of its name, and those that
    have no whole run."""


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
    make_folder(folder)
    save_report(rows, folder)
    save_curves(by_metric(curves), "step", folder / "metrics.png")
    print(markdown(rows) + f"\n{folder}")


def compare(runs: Sequence[RunFolder]) -> Rows:
    """Return a row for each value, and in it a column for each run.

    First the fields in which their experiments differ, then the last of each metric, then the quality.
    """
    fields = {str(run.path): flat(_run_fields(run)) for run in runs}
    lasts = {str(run.path): {name: kept[-1] for name, (_, kept) in run.curves().items()} for run in runs}
    files = {str(run.path): run.quality_file for run in runs}
    qualities = {name: flat(read_json(file, dict) if file.is_file() else {}, "quality") for name, file in files.items()}
    differing = [row for row in _turned(fields) if len({row[str(run.path)] for run in runs}) > 1]
    return [*differing, *_turned(lasts), *_turned(qualities)]


def _turned(columns: Mapping[str, Mapping[str, Value]]) -> Rows:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [{"name": name} | {run: column.get(name) for run, column in columns.items()} for name in names]


def _run_fields(run: RunFolder) -> object:
    """Return every field of a run's experiment, with defaults for fields that are newer."""
    try:
        return EXPERIMENT.dump_python(run.experiment(), mode="json")
    except ConfigError:  # it has fields that were removed since
        return run.description()["experiment"]


def document(runs: Sequence[RunFolder], options: ReportOptions) -> None:
    """Write the results and pictures of whole runs, and the page of all results that are there.

    Raises RunError, before anything is written, if a run is not measured or two are of one experiment.
    """
    shorter = {run.path: text for run in runs if (text := _shorter(run, options.recipes))}
    whole = [run for run in runs if run.path not in shorter]
    check(whole)
    folder, groups = options.to.with_suffix(""), group(whole, _name)
    results = {_name(own[0]): result(own, options.recipes, folder) for own in groups}
    for run in whole:
        if run.quality_file.is_file():
            save_pictures(run, folder / _name(run))
    for name, kept in results.items():
        make_folder((file := result_file(folder, name)).parent)
        write_json(file, kept)
    write_lines(options.to, page(folder, recipe_steps(options.recipes)).splitlines())
    for path, text in shorter.items():
        print(f"left out, as its recipe has more steps: {path}, {text}")


def result(runs: Sequence[RunFolder], recipes: Path, folder: Path) -> Mapping[str, Any]:
    """Return the rows of an experiment's runs in each table of the page, whose pictures are in `folder`."""
    generated, pictures = [run for run in runs if run.quality_file.is_file()], Path(folder.name, _name(runs[0]))
    adapted = group([run for run in runs if run.accuracy_file.is_file()], _recipe_and_steps)
    return {
        "latents": [str(_quality(run)["latents"]) for run in generated],
        "generated": [row for run in generated for row in generated_rows(run, pictures)],
        "adapted": [row for own in adapted for row in adapted_rows(own)],
        "distances": [distance_row(run, pictures) for run in generated if distance_curves(run)],
        "details": [details_row(own, recipes) for own in group(runs, _recipe_and_steps)],
    }


def group(runs: Sequence[RunFolder], key: Callable[[RunFolder], Hashable]) -> list[list[RunFolder]]:
    """Return the runs in groups of one key, in their order."""
    groups: dict[Hashable, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _name(run: RunFolder) -> str:
    return run.experiment().name


def _recipe_and_steps(run: RunFolder) -> Hashable:
    return (last_step(run.checkpoints), *_recipe_fields(run.experiment()).items())


def recipe_steps(recipes: Path) -> dict[str, int]:
    """Return the steps of every recipe in a folder, by name."""
    experiments = [load_experiment(file) for file in sorted(recipes.glob("*.toml"))]
    return {experiment.name: experiment.steps for experiment in experiments}


def check(runs: Sequence[RunFolder]) -> None:
    """Raise RunError if a run is not measured, or two are of one experiment."""
    for run in runs:
        if not (run.quality_file.is_file() or run.accuracy_file.is_file()):
            raise RunError(f"{run.path} is not measured: python -m training.evaluate {run.path}")
    for one, *others in group([run for run in runs if run.quality_file.is_file()], _name):
        for other in others:
            raise RunError(f"{one.path} and {other.path} are of one experiment, {_name(one)}: a page has one of them")


def save_pictures(run: RunFolder, folder: Path) -> None:
    """Write images of the first seeds, a file for each domain, the distance over the steps, and a film of samples."""
    experiment, snapshot = run.experiment(), _quality(run)["steps"] == snapshot_step(run, "best")
    generator, _ = load_average(run, "best" if snapshot else "last")
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in generate(generator, latents_of_seeds(experiment.latent_prior, SEEDS)).items():
        save_sheet({name: images}, folder / f"{name}.png", columns=len(SEEDS))
    if curves := distance_curves(run):
        labelled = {name.partition("/")[2] or "mean": curve for name, curve in curves.items()}
        save_curves({next(iter(curves)): labelled}, "step", folder / DISTANCE)
    if sheets := list_samples(run):
        save_excerpt(sheets, experiment.sample_count, folder / FILM)


def distance_curves(run: RunFolder) -> dict[str, Curve]:
    """Return the curves of the distance of a run's snapshots: its mean over domains, and each domain's.

    Empty if none was measured.
    """
    curves = run.curves()
    measure = next((name for name in SNAPSHOT_MEASURES if name in curves), None)
    return {name: curve for name, curve in curves.items() if name.partition("/")[0] == measure}


def distance_row(run: RunFolder, pictures: Path) -> Row:
    """Return how the distance of a run's snapshots fell, and whether it was still falling at the end."""
    experiment, (measure, (steps, values)) = run.experiment(), next(iter(distance_curves(run).items()))
    best = min(values)
    step = steps[values.index(best)]
    return {
        "experiment": experiment.name,
        "pairs": f"![]({pictures / FILM})" if list_samples(run) else "",
        "distance": f"![]({pictures / DISTANCE})",
        "measure": measure,
        "best": f"{best:.2f}",
        "after step": f"{int(step):,}",
        "last": f"{values[-1]:.2f}",
        "best in the last fifth": "yes" if step > 0.8 * experiment.steps else "no",
    }


def generated_rows(run: RunFolder, pictures: Path) -> Rows:
    """Return the row of each domain of a run: generated images and metrics.

    `pictures` is the folder of the images. Raises RunError if the run is not measured after its last checkpoint.
    """
    experiment, quality = run.experiment(), _quality(run)
    measured, last = int(quality["steps"]), snapshot_step(run, "last")
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(run) + ("" if measured == last else f"; the best, {measured:,}"),
            "samples": f"![]({pictures / f'{domain.name}.png'})",
            **_measures(domain, quality),
        }
        for domain in experiment.domains
    ]


def adapted_rows(runs: Sequence[RunFolder]) -> Rows:
    """Return the row of each domain without labels, over the seeds of one recipe.

    Raises RunError if one is not measured after its last checkpoint.
    """
    experiment = runs[0].experiment()
    measured = [run.accuracy(last_step(run.checkpoints)) for run in runs]
    held_out = [f"{one.held_out:.0%} of {one.name}" for one in experiment.domains if one.held_out]
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(runs[0]),
            "seeds": ", ".join(str(run.experiment().seed) for run in runs),
            "held out": ", ".join(held_out),
            "images": f"{measured[0]['images'][domain.name]:,}",
            "accuracy": spread([one["accuracy"][domain.name] for one in measured]),
            "published": _cell(published_accuracy(experiment, domain), form=".2%"),
        }
        for domain in experiment.domains
        if not domain.labelled and domain.name in measured[0]["accuracy"]
    ]


def details_row(runs: Sequence[RunFolder], recipes: Path) -> Row:
    """Return batch, parameters, time, machine and overrides of runs of one recipe, of the folder `recipes`."""
    experiment = runs[0].experiment()
    places = dict.fromkeys(_place(machine) for run in runs for machine in machines(run))
    return {
        "experiment": experiment.name,
        "steps": _steps(runs[0]),
        "batch": experiment.batch_size,
        "precision": ", ".join(dict.fromkeys(precision for run in runs for precision in _precisions(run))),
        "generator": f"{count_weights(build_generator(experiment)):,}",
        "discriminator": f"{count_weights(build_discriminator(experiment)):,}",
        "minutes": f"{mean(seconds(run) for run in runs) / 60:.0f}",
        "machine": "; ".join(places),
        "overrides": ", ".join(overrides(experiment, recipe_of(experiment, recipes))),
    }


def _quality(run: RunFolder) -> Mapping[str, Any]:
    return run.quality(snapshot_step(run, "best"), snapshot_step(run, "last"))


def _measures(domain: DomainConfig, quality: Mapping[str, Any]) -> Row:
    def of(measure: str) -> Any:
        return quality.get(measure, {}).get(domain.name)

    pixels, distance, doubtful = (of(name) or {} for name in ("pixel_agreement", "frechet_distance", "doubtful_images"))
    floors = pixels.get("floor", {})
    free = quality.get("without_labels", {}).get("domains", {}).get(domain.name, {}).get("frechet_distance", {})
    return {
        **{title: _cell(pixels.get(name), floors.get(name)) for name, title in PIXELS.items()},
        "published": _cell(PIXEL_AGREEMENT.get((domain.source, domain.transform)) if pixels else None, form=".3f"),
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


def _steps(run: RunFolder) -> str:
    return f"{last_step(run.checkpoints):,}"


def _shorter(run: RunFolder, recipes: Path) -> str:
    """Return how far a run is, if that is less than its recipe has steps."""
    done, planned = last_step(run.checkpoints), recipe_of(run.experiment(), recipes).steps
    return f"{done:,} of {planned:,} steps" if done < planned else ""


def _precisions(run: RunFolder) -> list[str]:
    """Return the precisions that a run was trained in; earlier ones kept theirs in the experiment."""
    noted = [str(machine["precision"]) for machine in machines(run) if "precision" in machine]
    return noted or [run.description()["experiment"].get("precision", "32-true")]


def _place(machine: MachineFacts) -> str:
    threads = int(machine["processes"]) * int(machine["threads"])
    return f"{machine['device']}, {threads} of {machine['of_threads']} threads"


def published_accuracy(experiment: Experiment, domain: DomainConfig) -> float | None:
    """Return the published accuracy in a domain adapted from these labelled domains, if there is one."""
    labelled = [one for one in experiment.domains if one.labelled]
    known = [ACCURACY.get((one.source, one.count, domain.source, domain.count)) for one in labelled]
    return next((figure for figure in known if figure is not None), None)


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
