"""Train the classifiers that judge an experiment's pairs, one on the real images of each domain.

python -m training.train_classifiers training/experiments/digit_edge.toml
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from training.architectures import CLASSIFIERS, misfit
from training.command_line import parse, verb
from training.compute.machine import Machine
from training.config.domain import DomainConfig
from training.config.experiment import Experiment, load_experiment
from training.config.fields import Positive, listed, one_of
from training.errors import ConfigError
from training.images.labels import require_labels
from training.images.sets import load_split
from training.pretrained.classifiers import Classifier, classifier_file, fit, save_classifier
from training.pretrained.reading import accuracy


@dataclass(frozen=True)
class ClassifierOptions:
    """How long to train, and where to write."""

    classifiers: Path = Path("classifiers")
    """Folder of the classifiers."""
    table: Annotated[str, one_of(CLASSIFIERS), listed(CLASSIFIERS)] = "digit"
    """Table of layers."""
    epochs: Positive = 4
    """Times that every training image is seen, on average."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the weights and the images' order."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Train one classifier a domain and print its accuracy on the real test images."""
    options = parse(ClassifierOptions(), arguments)
    experiment = load_experiment(target)
    if wrong := misfit(CLASSIFIERS, options.table, experiment.size):
        raise ConfigError(f"table = {options.table!r}: {wrong}")
    device = options.machine.device("training classifiers")
    for domain in experiment.domains:
        file = classifier_file(options.classifiers, domain, experiment.size)
        classifier = train_classifier(domain, experiment, options, device)
        save_classifier(classifier, file)
        print(f"{describe(domain.name, classifier)}; {file}")


def describe(domain: str, classifier: Classifier) -> str:
    """Say how much of its domain a classifier reads right, and of each attribute where there are some."""
    shares = zip(classifier.attributes, classifier.accuracy.flatten().tolist(), strict=False)
    each = "".join(f", {name} {share:.2%}" for name, share in shares)
    return f"{domain}: {float(classifier.accuracy.mean()):.2%} of real test images classified right{each}"


def train_classifier(
    domain: DomainConfig, experiment: Experiment, options: ClassifierOptions, device: torch.device
) -> Classifier:
    """Train on the whole training split and measure on the whole test split. Raises DataError."""
    training_set = load_split(domain, "train", experiment.size)
    labels = require_labels(training_set.labels, domain, "train")
    test_set = load_split(domain, "test", experiment.size)
    require_labels(test_set.labels, domain, "test")
    torch.manual_seed(options.seed)
    attributes = domain.label_columns
    classes = len(attributes) or int(labels.max()) + 1
    classifier = Classifier(options.table, domain.channels, classes, attributes).to(device)
    fit(classifier, training_set, options.epochs, options.seed)
    classifier.accuracy.copy_(accuracy(classifier, test_set))
    return classifier


if __name__ == "__main__":
    main()
