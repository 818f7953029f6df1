"""Images that a classifier is unsure of, left out of what a domain learns from, as Soft-CoGAN prunes SVHN."""

from __future__ import annotations

import itertools
from pathlib import Path

from training.config.domain import DomainConfig
from training.config.experiment import Experiment
from training.errors import DataError
from training.images.sets import ImageSet
from training.pretrained.classifiers import classifier_file, load_classifier
from training.pretrained.reading import confidence


def prune(experiment: Experiment, sets: dict[str, ImageSet]) -> dict[str, ImageSet]:
    """Return of each domain's images those that its classifier is sure enough of; all where none is asked.

    Raises RunError where a classifier has not been trained, DataError where no image is left.
    """
    return {domain.name: _prune(domain, sets[domain.name], experiment.size) for domain in experiment.domains}


def _prune(domain: DomainConfig, images: ImageSet, size: tuple[int, int]) -> ImageSet:
    if domain.prune.below == 0:
        return images
    classifier = load_classifier(classifier_file(Path(domain.prune.classifiers), domain, size))
    sure = confidence(classifier, images.images) >= domain.prune.below
    if not sure.any():
        raise DataError(f"domain {domain.name}: prune.below = {domain.prune.below} leaves no image")
    labels = None if images.labels is None else images.labels[sure]
    origins = tuple(itertools.compress(images.origins, sure.tolist()))
    return ImageSet(images.images[sure], labels, images.class_names, origins)
