"""Export the averaged generator of a run, or a classifier, as one ONNX file, and prove it.

    python -m training.export runs/00003_digit_edge
    python -m training.export served_classifiers/mnist_edge_2f1c0a9e.pt --goes-with digit_edge
    python -m training.export runs/00004_mnist_to_usps --classifier-of usps
    python -m training.export runs/00003_digit_edge --encoder-of digit
    python -m training.export models/digit_edge/2/model.onnx

A .pt file is a classifier of `training.train_classifier`; --classifier-of is one that a run has adapted;
--encoder-of takes the encoder of `training.train_encoder`, for images of that domain.

Writes models/<name>/<version>/model.onnx, the next version where none is named, with its digest, and beside the
versions config.pbtxt, so that Triton Inference Server takes the same folder, and the card of the newest version, so
that a hub shows it: `hf upload USER/digit_edge models/digit_edge`. What was edited is kept. Beside the versions of a
generator lies directions.png, too: a pair moved along its directions. An exported model is written again as today's
export writes it: faster, where that has learned to be, and a generator with its directions. Its figures stay, as it
computes the same; an encoder goes with the newest version of its generator.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from service.metadata import Domain, ModelMetadata, Name, Provenance, graph_digest
from training.cli import parse, verb
from training.config import Positive
from training.config.experiment import Experiment
from training.errors import ConfigError, RunError
from training.files import write_whole, writing
from training.onnx_export import (
    SPREADS,
    Graph,
    Port,
    describe_domain,
    direction_pairs,
    exported_graph,
    make_graph,
    prove,
    save_onnx,
    write_card,
    write_onnx,
)
from training.pretrained.classifier import load_recorded
from training.pretrained.exported import model_file, read_metadata
from training.runs.figures import save_sheet
from training.runs.folder import RunFolder, Snapshot, load_adapted, load_average
from training.train_encoder import load_encoder

MAX_BATCH = 64
TEMPLATE = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {inputs} ]
output [
{outputs}
]
version_policy: {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ }}
"""


@dataclass(frozen=True)
class ExportOptions:
    """Name, version and repository of the exported model."""

    models: Path = Path("models")
    """Model repository."""
    name: Name | None = None
    """Name of the model; by default the experiment's, and <domain>_classifier for a classifier file."""
    version: Positive | None = None
    """Version; by default the next. An existing one is never overwritten."""
    classifier_of: Name | None = None
    """Domain whose adapted classifier is exported, of a run with auxiliary losses; by default the generator is."""
    encoder_of: Name | None = None
    """Domain whose images are encoded, of a run with an encoder; the exported generator is found by its weights."""
    goes_with: tuple[Name, ...] = ()
    """Generators in the repository whose images a classifier is for; of an exported one, those it had if left out."""
    halves: bool = False
    """Store weights in half precision, as encoders always do: half the size; a byte of an image may differ by 1."""
    snapshot: Snapshot = "best"
    """The generator of the least distance while the run went on, or of the last checkpoint."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Export a measured run, or a classifier file."""
    options = parse(ExportOptions(), arguments)
    if target.suffix == ".pt":
        file, report = export_classifier(target, options)
    elif target.suffix == ".onnx" or not RunFolder.is_at(target):
        file, report = export_again(model_file(target), options)
    else:
        file, report = export(RunFolder.open(target), options)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB; {report}")


def export(run: RunFolder, options: ExportOptions) -> tuple[Path, str]:
    """Write a run's model into the repository; return its file and the result of the proof.

    Raises RunError if the run is not measured, ConfigError if the version exists or a generator of goes_with
    does not, ExportError if the proof fails.
    """
    if options.encoder_of is not None:
        return export_encoder(run, options.encoder_of, options)
    network, steps = load(run, options)
    return write(network, describe(run, options, steps), options)


def export_encoder(run: RunFolder, domain: str, options: ExportOptions) -> tuple[Path, str]:
    """Write a domain's encoder of a run into the repository; return its file and the result of the proof.

    Raises RunError if there is none or the generator has not been exported, ConfigError and ExportError as `export`.
    """
    if options.classifier_of is not None:
        raise ConfigError("classifier_of and encoder_of exclude each other: export one after the other")
    experiment, (encoder, description, quality) = run.experiment(), load_encoder(run)
    if domain not in quality["domains"]:
        raise ConfigError(f"encoder_of = {domain!r}: must be one of {', '.join(quality['domains'])}")
    recipe, steps = description["recipe"], quality["steps"]
    metadata = ModelMetadata(
        kind="encoder",
        **name_and_version(options, f"{experiment.name}_{domain}_encoder"),
        prior=experiment.latent_prior,
        domains=domains_of(experiment, domain),
        goes_with=(exported_generator(run, options.models, quality["generator_steps"]),),
        provenance=Provenance(
            experiment={"verb": "train_encoder", "recipe": recipe, "run": run.description()["experiment"]},
            seed=recipe["seed"],
            steps=steps,
            images_seen=2 * steps * recipe["batch_size"] * len(encoder.domains),
            commit=description["commit"],
            versions=description["versions"],
        ),
        quality={key: quality[key] for key in ("steps", "passes", "error_by_passes")} | quality["domains"][domain],
        data_license=experiment.data_license,
    )
    return write(encoder, metadata, options)


def exported_generator(run: RunFolder, models: Path, steps: int) -> str:
    """Return the graph digest of the newest version of a run's exported generator.

    Raises RunError unless that version came from the snapshot after so many steps, as the encoder did.
    """
    experiment = run.description()["experiment"]
    file = newest_file(models / experiment["name"])
    made = read_metadata(file).provenance if file.is_file() else None
    if made is None or (made.experiment, made.steps) != (experiment, steps):
        raise RunError(
            f"{models} does not hold the generator that the encoder belongs to: python -m training.export {run.path}"
        )
    return graph_digest(file.read_bytes())


def domains_of(experiment: Experiment, name: str | None) -> tuple[Domain, ...]:
    """Return the domain of a name, or all, as an exported file states them."""
    return tuple(describe_domain(d, experiment.size) for d in experiment.domains if name in (None, d.name))


def export_classifier(file: Path, options: ExportOptions) -> tuple[Path, str]:
    """Write a trained classifier into the repository; return its file and the result of the proof.

    Raises RunError if the file is missing, damaged, without a training record or of attributes, ConfigError and
    ExportError as `export` does.
    """
    if options.classifier_of is not None:
        raise ConfigError(
            f"classifier_of = {options.classifier_of!r} is for a run folder, and {file} is a classifier: leave it out"
        )
    classifier, record = load_recorded(file)
    if classifier.attributes:
        raise RunError(
            f"{file} classifies the attributes {', '.join(classifier.attributes)}, and a served classifier has classes "
            "that exclude one another: train one on a domain with a label_column"
        )
    metadata = ModelMetadata(
        kind="classifier",
        **name_and_version(options, f"{record.domain.name}_classifier"),
        domains=(record.domain,),
        classes=record.class_names,
        goes_with=options.goes_with,
        provenance=record.provenance,
        quality=record.quality,
        data_license=record.data_license,
    )
    return write(classifier, metadata, options)


def export_again(file: Path, options: ExportOptions) -> tuple[Path, str]:
    """Write an exported model as another version, as a run's model is written today; return its file and the proof.

    Raises RunError if the file is no exported model or an encoder's generator is missing, ConfigError if the version
    exists, ExportError if the proof fails.
    """
    metadata, model = read_metadata(file), onnx.load(file)
    changes = name_and_version(options, metadata.name)
    if metadata.kind == "encoder":
        changes["goes_with"] = tuple(newest_of(digest, options.models) for digest in metadata.goes_with)
    elif options.goes_with:
        changes["goes_with"] = options.goes_with
    written = metadata.model_copy(update=changes)

    def fill(aside: Path) -> tuple[str, str]:
        save_onnx(model, written, aside, options.halves)
        graph = exported_graph(file, written)
        return prove(graph, aside, computed_by=str(file)), triton_config(written.name, graph)

    return place(written, options.models, fill)


def newest_of(digest: str, models: Path) -> str:
    """Return the graph digest of the newest version of an exported generator. Raises RunError if there is none."""
    files = {graph_digest(file.read_bytes()): file for file in models.glob("*/*/model.onnx")}
    if digest in files:
        newest = newest_file(files[digest].parents[1])
        if read_metadata(newest).provenance == read_metadata(files[digest]).provenance:
            return graph_digest(newest.read_bytes())
    raise RunError(
        f"{models} does not hold the generator of graph digest {digest} and a newest version of the same run"
    )


def write(network: nn.Module, metadata: ModelMetadata, options: ExportOptions) -> tuple[Path, str]:
    """Write a model, its digest, config.pbtxt and its card into the repository.

    Nothing appears under the model's name before onnxruntime computes what PyTorch does.
    """

    def fill(aside: Path) -> tuple[str, str]:
        write_onnx(network, metadata, aside, options.halves)
        graph = make_graph(network, metadata)
        return prove(graph, aside), triton_config(metadata.name, graph)

    return place(metadata, options.models, fill)


def place(metadata: ModelMetadata, models: Path, fill: Callable[[Path], tuple[str, str]]) -> tuple[Path, str]:
    """Write a version, config.pbtxt and a sheet of directions; `fill` writes the model, returns report and config."""
    folder = models / metadata.name
    version = folder / metadata.version
    if version.exists():
        raise ConfigError(f"{version} exists, and a version is never changed: name another")
    check_generators(metadata, models)
    aside = folder / f".{metadata.version}.part"
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        aside.mkdir(parents=True)
    try:
        with writing(version / "model.onnx"):
            report, config = fill(aside / "model.onnx")
        kept = write_config(folder / "config.pbtxt", config)
        if (written := read_metadata(aside / "model.onnx")).directions:  # a row each, seed 0 moved by SPREADS
            pairs = direction_pairs(written, aside / "model.onnx", seed=0)
            save_sheet(pairs, folder / "directions.png", columns=len(SPREADS), scale=2)
        digest = hashlib.sha256((aside / "model.onnx").read_bytes()).hexdigest()
        with writing(version):
            (aside / "model.onnx.sha256").write_text(f"{digest}  model.onnx\n")
            aside.rename(version)
        noted = write_card(version / "model.onnx", metadata)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return version / "model.onnx", "; ".join(filter(None, [report, kept, noted]))


def triton_config(name: str, graph: Graph) -> str:
    """Return the text of a model's config.pbtxt."""

    def described(port: Port) -> str:
        sides = ", ".join(map(str, port.shape))
        return f'{{ name: "{port.name}" data_type: TYPE_{port.kind} dims: [ {sides} ] }}'

    inputs = ", ".join(map(described, graph.inputs))
    outputs = ",\n".join(f"  {described(port)}" for port in graph.outputs)
    return TEMPLATE.format(name=name, max_batch=MAX_BATCH, inputs=inputs, outputs=outputs)


def write_config(file: Path, config: str) -> str:
    """Write a model's config.pbtxt unless there is one; return a warning if an edited one is kept."""
    if not file.exists():
        write_whole(file, lambda aside: aside.write_text(config, encoding="utf-8"))
    elif file.read_text(encoding="utf-8", errors="replace").split() != config.split():
        return f"{file} is not what export writes, and is kept as it is: remove it to have it written anew"
    return ""


def load(run: RunFolder, options: ExportOptions) -> tuple[nn.Module, int]:
    """Return the generator of a run, or a domain's classifier, and its step. Raises RunError, ConfigError."""
    if options.classifier_of is None:
        return load_average(run, options.snapshot)
    classifier_of, (classifiers, steps) = options.classifier_of, load_adapted(run)
    if classifier_of not in classifiers:
        raise ConfigError(f"classifier_of = {classifier_of!r}: must be one of {', '.join(classifiers)}")
    return classifiers[classifier_of], steps


def describe(run: RunFolder, options: ExportOptions, steps: int) -> ModelMetadata:
    """Return the metadata of a run's model. Raises RunError if it is not measured after `steps`."""
    experiment, description = run.experiment(), run.description()
    domain = options.classifier_of
    return ModelMetadata(
        kind="classifier" if domain else "generator",
        **name_and_version(options, f"{experiment.name}_{domain}_classifier" if domain else experiment.name),
        prior=None if domain else experiment.latent_prior,
        domains=domains_of(experiment, domain),
        classes=class_names(run.accuracy(steps), experiment.classes) if domain else (),
        goes_with=options.goes_with,
        provenance=Provenance(
            experiment=description["experiment"],
            seed=experiment.seed,
            steps=steps,
            images_seen=steps * experiment.discriminator.updates * experiment.batch_size * len(experiment.domains),
            commit=description["commit"],
            versions=description["versions"],
        ),
        quality=adapted_quality(run.accuracy(steps), domain) if domain else run.quality(steps),
        data_license=experiment.data_license,
    )


def class_names(measured: dict[str, Any], classes: int) -> tuple[str, ...]:
    """Return the names of an adapted classifier's classes; their numbers if the sources name others or none."""
    names = tuple(measured.get("class_names", ()))  # a run measured by an earlier version has none
    return names if len(names) == classes else tuple(str(number) for number in range(classes))


def adapted_quality(measured: dict[str, Any], domain: str) -> dict[str, Any]:
    """Return the accuracy of a domain's adapted classifier on real test images, if these have labels."""
    if domain not in measured["accuracy"]:
        return {"steps": measured["steps"], "not_measured": f"accuracy: the test images of {domain} have no labels"}
    return {"steps": measured["steps"], "images": measured["images"][domain], "accuracy": measured["accuracy"][domain]}


def check_generators(metadata: ModelMetadata, models: Path) -> None:
    """Raise ConfigError unless `goes_with` names generators in the repository with a classifier's domain."""
    if metadata.goes_with and metadata.kind == "generator":
        raise ConfigError(f"goes_with = {metadata.goes_with} is for a classifier, and {metadata.name} is a generator")
    for name in metadata.goes_with if metadata.kind == "classifier" else ():
        file = newest_file(models / name)
        if not file.is_file():
            raise ConfigError(f"goes_with: {models / name} holds no model: export the generator first, or leave it out")
        found = read_metadata(file)
        if found.kind != "generator" or not shapes(metadata.domains) <= shapes(found.domains):
            raise ConfigError(
                f"goes_with: {file} is a {found.kind} of {sorted(shapes(found.domains))}; it must be a generator of "
                f"{sorted(shapes(metadata.domains))}: name another, or leave it out"
            )


def shapes(domains: Iterable[Domain]) -> set[tuple[str, int, int, int]]:
    """Return name, height, width and channels of each domain."""
    return {(domain.name, domain.height, domain.width, domain.channels) for domain in domains}


def name_and_version(options: ExportOptions, default: str) -> dict[str, Any]:
    """Return both as options give them, or else the default name and the next version."""
    name = options.name or default
    return {"name": name, "version": str(options.version or next_version(options.models / name))}


def newest_file(folder: Path) -> Path:
    """Return the file of the highest version in a model's folder, whether or not there is one."""
    return folder / str(next_version(folder) - 1) / "model.onnx"


def next_version(folder: Path) -> int:
    """Return the version after the highest in a model's folder; 1 if there is none. A date is no version."""
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal() and len(entry.name) < 10]
    return max(versions, default=0) + 1


if __name__ == "__main__":
    main()
