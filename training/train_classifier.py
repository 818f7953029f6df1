"""Train a classifier on the real images of each domain of an experiment.

    python -m training.train_classifier training/recipes/digit_edge.toml

They evaluate generated pairs. Classifiers for a loss, or for the service, are trained apart from these, with a
folder and a seed of their own, so that the evaluation stays independent of both: --classifiers, --seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from service.metadata import Provenance
from training.cli import parse, verb
from training.config import Positive, listed, one_of
from training.config.data import DOMAIN, DomainConfig
from training.config.experiment import Experiment, load_experiment
from training.data.choices import Choices
from training.data.dataset import ImageSet, load_split, require_labels
from training.engine.machine import Machine
from training.errors import ConfigError
from training.losses.pixels import AUGMENTATIONS
from training.onnx_export import describe_domain
from training.pretrained.classifier import (
    PEAK_LEARNING_RATE,
    TRAINING_BATCH,
    Classifier,
    TrainingRecord,
    accuracy,
    accuracy_by_class,
    classifier_file,
    fit,
    save_classifier,
)
from training.runs.folder import provenance
from training.zoo import CLASSIFIERS, size_mismatch


@dataclass(frozen=True)
class ClassifierOptions:
    """Architecture, length, augmentations and folder of the classifiers."""

    classifiers: Path = Path("classifiers")
    """Folder of the classifiers."""
    table: Annotated[str, one_of(CLASSIFIERS), listed(CLASSIFIERS)] = "digit"
    """Name of the architecture."""
    epochs: Positive = 4
    """Times that every training image is seen, on average."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Random changes of the training images, in this order: affine, elastic; without those that a domain forbids."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the weights and the images' order."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Train one classifier a domain and print its accuracy on the real test images."""
    options = parse(ClassifierOptions(), arguments)
    experiment = load_experiment(target, Choices(Machine.from_environment().has_gpu()))
    if wrong := size_mismatch(CLASSIFIERS, options.table, experiment.size):
        raise ConfigError(f"table = {options.table!r}: {wrong}")
    device = options.machine.device("training classifiers")
    for domain in experiment.domains:
        file = classifier_file(options.classifiers, domain, experiment.size)
        classifier, record = train_classifier(domain, experiment, options, device)
        save_classifier(classifier, file, record)
        print(f"{describe(domain.name, classifier)}; {file}")


def describe(domain: str, classifier: Classifier) -> str:
    """Return the accuracy of a classifier in words, and that of each attribute if there are some."""
    shares = zip(classifier.attributes, classifier.accuracy.flatten().tolist(), strict=False)
    each = "".join(f", {name} {share:.2%}" for name, share in shares)
    return f"{domain}: {float(classifier.accuracy.mean()):.2%} of real test images classified right{each}"


def train_classifier(
    domain: DomainConfig, experiment: Experiment, options: ClassifierOptions, device: torch.device
) -> tuple[Classifier, TrainingRecord]:
    """Train on the whole training split and measure on the whole test split. Raises DataError."""
    recipe = describe_recipe(domain, experiment, options)
    made = provenance()  # before the training, whose files may change meanwhile
    training_set = load_split(domain, "train", experiment.size)
    labels = require_labels(training_set.labels, domain, "train")
    test_set = load_split(domain, "test", experiment.size)
    require_labels(test_set.labels, domain, "test")
    torch.manual_seed(options.seed)
    attributes = domain.label_columns
    classes = len(attributes) or int(labels.max()) + 1
    classifier = Classifier(options.table, domain.channels, classes, attributes).to(device)
    steps = fit(classifier, training_set, options.epochs, options.seed, recipe["augmentations"])
    classifier.accuracy.copy_(accuracy(classifier, test_set))
    numbered = tuple(map(str, range(classes)))
    names = () if attributes else (training_set.class_names or numbered)[:classes]
    return classifier, TrainingRecord(
        domain=describe_domain(domain, experiment.size),
        class_names=names,
        provenance=Provenance(
            experiment=recipe, seed=options.seed, steps=steps, images_seen=steps * TRAINING_BATCH, **made
        ),
        quality=measure(classifier, test_set, names),
        data_license=experiment.data_license,
    )


def measure(classifier: Classifier, test_set: ImageSet, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the accuracy on real test images: of all, and of each class or attribute by its name."""
    quality: dict[str, Any] = {"images": len(test_set.images), "accuracy": classifier.named_accuracy()}
    if class_names:
        by_class = accuracy_by_class(classifier, test_set, len(class_names))
        quality["accuracy_by_class"] = {class_names[number]: share for number, share in by_class.items()}
    return quality


def describe_recipe(domain: DomainConfig, experiment: Experiment, options: ClassifierOptions) -> dict[str, Any]:
    """Return what repeats the training, with its seed."""
    return {
        "verb": "train_classifier",
        "domain": DOMAIN.dump_python(domain, mode="json"),
        "size": list(experiment.size),
        "table": options.table,
        "epochs": options.epochs,
        "augmentations": [name for name in options.augmentations if name not in domain.forbidden_augmentations],
        "batch_size": TRAINING_BATCH,
        "peak_learning_rate": PEAK_LEARNING_RATE,
    }


if __name__ == "__main__":
    main()
