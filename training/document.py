"""Write what runs reached as a page: what they draw and how good it is, what they taught, how they were made.

    python -m training.document runs/* --to docs/results.md

Every figure comes from the folders of the runs, which `evaluate` or `adapt` has measured. Writes the page
and, in a folder of its name beside it, a strip of pictures for each domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from training.command_line import parse, verb
from training.errors import ConfigError, RunError
from training.files import write_lines
from training.networks.drawing import draw, latents_of_seeds
from training.results.page import page
from training.results.recipes import alike
from training.results.tables import drawn_rows, latents_of, made_row, strip_file, taught_rows
from training.runs.folder import RunFolder
from training.runs.sheets import save_sheet
from training.runs.trained import load_average

SEEDS = range(8)


@dataclass(frozen=True)
class DocumentOptions:
    """Which runs beside the target, and where the page goes."""

    others: Positional[tuple[Path, ...]] = ()
    """The other runs' folders."""
    to: Path = Path("results.md")
    """File of the page."""
    experiments: Path = Path(__file__).parent / "experiments"
    """Folder of the files that experiments are named after: what a run does otherwise is told."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Write the page of measured runs."""
    options = parse(DocumentOptions(), arguments)
    if not options.to.suffix:
        raise ConfigError(f"to = '{options.to}': must have a suffix, as pictures go into a folder without")
    document([RunFolder.open(path) for path in (target, *options.others)], options)
    print(options.to)


def document(runs: Sequence[RunFolder], options: DocumentOptions) -> None:
    """Write the page and its pictures.

    Raises RunError, before anything is written, where a run is not measured or an experiment is drawn twice.
    """
    drawn = [run for run in runs if run.quality_file.is_file()]
    taught = [run for run in runs if run.accuracy_file.is_file()]
    check(runs, drawn, taught)
    folder = options.to.with_suffix("")
    text = page(
        [row for run in drawn for row in drawn_rows(run, options.experiments, Path(folder.name))],
        [row for group in alike(taught) for row in taught_rows(group, options.experiments)],
        [made_row(group, options.experiments) for group in alike(runs)],
        ", ".join(dict.fromkeys(latents_of(run) for run in drawn)),
    )
    for run in drawn:
        save_strips(run, folder)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    write_lines(options.to, text.splitlines())


def check(runs: Sequence[RunFolder], drawn: Sequence[RunFolder], taught: Sequence[RunFolder]) -> None:
    """Raise RunError where a run is not measured, or two draw for one experiment."""
    for run in runs:
        if run not in [*drawn, *taught]:
            raise RunError(f"{run.path} is not measured: python -m training.evaluate {run.path}")
    paths: dict[str, Path] = {}
    for run in drawn:
        name = run.experiment().name
        if name in paths:
            raise RunError(f"{paths[name]} and {run.path} are of one experiment, {name}: a page has one of them")
        paths[name] = run.path


def save_strips(run: RunFolder, folder: Path) -> None:
    """Write what the averaged generator of a run draws of the first seeds, a picture for each domain."""
    experiment, (generator, _) = run.experiment(), load_average(run)
    for name, images in draw(generator, latents_of_seeds(experiment.latent_prior, SEEDS)).items():
        file = strip_file(folder, experiment.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_sheet({name: images}, file, columns=len(SEEDS))


if __name__ == "__main__":
    main()
