"""Export the averaged generator of a run, or a classifier that it taught, as one ONNX file, and prove it.

    python -m training.export runs/00003_digit_edge
    python -m training.export runs/00004_mnist_to_usps --classifier-of usps

Writes models/<name>/<version>/model.onnx, the next version where none is named, and config.pbtxt beside the
versions, so that Triton Inference Server takes the same folder. A config.pbtxt that was edited is kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from service.metadata import Domain, ModelMetadata, Name, Provenance
from training.command_line import parse, verb
from training.config.fields import Positive
from training.errors import ConfigError
from training.exporting.graphs import GRAPHS
from training.exporting.onnx_file import prove, write_onnx
from training.exporting.triton import triton_config
from training.files import write_whole, writing
from training.runs.folder import RunFolder
from training.runs.trained import load_adapted, load_average


@dataclass(frozen=True)
class ExportOptions:
    """What the model is called and where it goes."""

    models: Path = Path("models")
    """Model repository."""
    name: Name | None = None
    """Name of the model; the experiment's where it is not said, and for a classifier its domain's too."""
    version: Positive | None = None
    """Version; the next where it is not said. An existing one is never overwritten."""
    classifier_of: Name | None = None
    """Domain whose classifier is exported, of a run with lessons; the generator where it is not said."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Export a measured run."""
    options = parse(ExportOptions(), arguments)
    run = RunFolder.open(target)
    file, report = export(run, options)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB; {report}")


def export(run: RunFolder, options: ExportOptions) -> tuple[Path, str]:
    """Write a run's model into the repository; return its file and what the proof found.

    Nothing appears under its name before onnxruntime computes what PyTorch does. Raises RunError where the
    run is not measured, ConfigError where the version exists, ExportError where the proof fails.
    """
    network, steps = load(run, options.classifier_of)
    metadata = describe(run, options, steps)
    folder = options.models / metadata.name
    version = folder / metadata.version
    if version.exists():
        raise ConfigError(f"{version} exists, and a version is never changed: name another")
    aside = folder / f".{metadata.version}.part"
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        aside.mkdir(parents=True)
    try:
        with writing(version / "model.onnx"):
            write_onnx(network, metadata, aside / "model.onnx")
        report = prove(network, metadata, aside / "model.onnx")
        config = triton_config(metadata.name, GRAPHS[metadata.kind](network, metadata))
        kept = write_config(folder / "config.pbtxt", config)
        with writing(version):
            aside.rename(version)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return version / "model.onnx", "; ".join(filter(None, [report, kept]))


def write_config(file: Path, config: str) -> str:
    """Write a model's config.pbtxt unless there is one; say so if there is another one, which is kept."""
    if not file.exists():
        write_whole(file, lambda aside: aside.write_text(config, encoding="utf-8"))
    elif file.read_text(encoding="utf-8", errors="replace").split() != config.split():
        return f"{file} is not what export writes, and is kept as it is: remove it to have it written anew"
    return ""


def load(run: RunFolder, classifier_of: str | None) -> tuple[nn.Module, int]:
    """Return the generator of a run, or a domain's classifier, and its step. Raises RunError, ConfigError."""
    if classifier_of is None:
        return load_average(run)
    classifiers, steps = load_adapted(run)
    if classifier_of not in classifiers:
        raise ConfigError(f"classifier_of = {classifier_of!r}: must be one of {', '.join(classifiers)}")
    return classifiers[classifier_of], steps


def describe(run: RunFolder, options: ExportOptions, steps: int) -> ModelMetadata:
    """Collect what the file will say of itself. Raises RunError where it is not measured after `steps`."""
    experiment, description = run.experiment(), run.description()
    reading = options.classifier_of
    name = options.name or "_".join([experiment.name, *([reading, "classifier"] if reading else [])])
    height, width = experiment.size
    return ModelMetadata(
        kind="classifier" if reading else "generator",
        name=name,
        version=str(options.version or next_version(options.models / name)),
        prior=experiment.latent_prior,
        domains=tuple(
            Domain(name=d.name, height=height, width=width, channels=d.channels, description=d.description)
            for d in experiment.domains
            if reading in (None, d.name)
        ),
        provenance=Provenance(
            experiment=description["experiment"],
            seed=experiment.seed,
            steps=steps,
            images_seen=steps
            * experiment.discriminator.updates
            * experiment.batch_size
            * len(experiment.domains),
            commit=description["commit"],
            versions=description["versions"],
        ),
        quality=run.accuracy(steps) if reading else run.quality(steps),
        data_license=experiment.data_license,
    )


def next_version(folder: Path) -> int:
    """Return the version after the highest in a model's folder; 1 where there is none."""
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal()]
    return max(versions, default=0) + 1


if __name__ == "__main__":
    main()
