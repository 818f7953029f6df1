"""What runs reached and how they were made, as rows of tables for people.

A cell of a measure has its floor behind it in brackets, or for a distance the least that real images have.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from torch import nn

from training.config.domain import DomainConfig
from training.results.published import published_accuracy, published_pixel_agreement
from training.results.recipes import changes, filed
from training.runs.checkpoint import last_step
from training.runs.effort import MachineFacts, machines, seconds
from training.runs.folder import RunFolder
from training.runs.reports import Row, Rows, spread
from training.steps.construction import build_discriminator, build_generator

PIXELS = {"binarised": "pixels agree, binarised", "within_51": "within 51", "within_25": "within 25"}


def latents_of(run: RunFolder) -> str:
    """Say of which latents a run's pairs were measured. Raises RunError where they were not."""
    return str(_quality(run)["latents"])


def strip_file(folder: Path, experiment: str, domain: str) -> Path:
    """Name the picture of what is drawn for a domain, in the folder of a page's pictures."""
    return folder / experiment / f"{domain}.png"


def drawn_rows(run: RunFolder, own: Path, pictures: Path) -> Rows:
    """Return a row for each domain of what a run draws.

    `own` is the folder of experiment files, `pictures` that of the strips. Raises RunError where the run is
    not measured after its last checkpoint.
    """
    experiment, quality = run.experiment(), _quality(run)
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(run, own),
            "drawn": f"![]({strip_file(pictures, experiment.name, domain.name)})",
            **_measures(domain, quality),
        }
        for domain in experiment.domains
    ]


def taught_rows(runs: Sequence[RunFolder], own: Path) -> Rows:
    """Return a row for each domain without labels whose classes runs that are alike were taught.

    Raises RunError where one is not measured after its last checkpoint.
    """
    experiment = runs[0].experiment()
    measured = [run.accuracy(last_step(run.checkpoints)) for run in runs]
    held_out = [f"{one.held_out:.0%} of {one.name}" for one in experiment.domains if one.held_out]
    published = {domain: published_accuracy(experiment, domain) for domain in experiment.domains}
    return [
        {
            "experiment": experiment.name,
            "domain": domain.name,
            "steps": _steps(runs[0], own),
            "seeds": ", ".join(str(run.experiment().seed) for run in runs),
            "held out": ", ".join(held_out),
            "images": f"{measured[0]['images'][domain.name]:,}",
            "accuracy": spread([one["accuracy"][domain.name] for one in measured]),
            "published": _cell(published[domain], form=".2%"),
        }
        for domain in experiment.domains
        if not domain.labelled and domain.name in measured[0]["accuracy"]
    ]


def made_row(runs: Sequence[RunFolder], own: Path) -> Row:
    """Return how runs that are alike were made: how large, how long, where.

    `own` is the folder of experiment files; what runs do otherwise than the file of their name is told.
    """
    experiment = runs[0].experiment()
    places = dict.fromkeys(_place(machine) for run in runs for machine in machines(run))
    return {
        "experiment": experiment.name,
        "steps": _steps(runs[0], own),
        "batch": experiment.batch_size,
        "precision": ", ".join(dict.fromkeys(itertools.chain.from_iterable(map(_precisions, runs)))),
        "generator": _parameters(build_generator(experiment)),
        "discriminator": _parameters(build_discriminator(experiment)),
        "minutes": f"{mean(seconds(run) for run in runs) / 60:.0f}",
        "machine": "; ".join(places),
        "otherwise than its file": ", ".join(changes(experiment, filed(experiment, own))),
    }


def _quality(run: RunFolder) -> Mapping[str, Any]:
    return run.quality(last_step(run.checkpoints))


def _measures(domain: DomainConfig, quality: Mapping[str, Any]) -> Row:
    def of(measure: str) -> Any:
        return quality.get(measure, {}).get(domain.name)

    pixels, distance = of("pixel_agreement") or {}, of("frechet_distance") or {}
    floors = pixels.get("floor", {})
    return {
        **{title: _cell(pixels.get(name), floors.get(name)) for name, title in PIXELS.items()},
        "published": _cell(published_pixel_agreement(domain) if pixels else None, form=".3f"),
        "classes agree": _cell(of("class_agreement")),
        "class balance": _cell(of("class_balance")),
        "Frechet distance": _cell(distance.get("drawn"), distance.get("floor"), ".2f"),
        "its classifier": _cell(_overall(of("classifier_accuracy")), form=".2%"),
    }


def _overall(shares: float | Mapping[str, float] | None) -> float | None:
    """Return the mean over attributes, where there are some."""
    return mean(shares.values()) if isinstance(shares, Mapping) else shares


def _cell(value: float | None, floor: float | None = None, form: str = ".4f") -> str:
    behind = "" if floor is None else f" ({floor:{form}})"
    return "" if value is None else f"{value:{form}}{behind}"


def _steps(run: RunFolder, own: Path) -> str:
    done, asked = last_step(run.checkpoints), filed(run.experiment(), own).steps
    return f"{done:,}" if done == asked else f"{done:,} of {asked:,}"


def _parameters(network: nn.Module) -> str:
    return f"{sum(weight.numel() for weight in network.parameters()):,}"


def _precisions(run: RunFolder) -> list[str]:
    """Return the precisions that a run was trained in; earlier ones kept theirs in the experiment."""
    noted = [str(machine["precision"]) for machine in machines(run) if "precision" in machine]
    return noted or [run.description()["experiment"].get("precision", "32-true")]


def _place(machine: MachineFacts) -> str:
    threads = int(machine["processes"]) * int(machine["threads"])
    return f"{machine['device']}, {threads} of {machine['of_threads']} threads"
