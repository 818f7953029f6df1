"""Networks that couplings ask while a run learns, and that do not learn in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from training.config.experiment import Experiment
from training.config.losses import CouplingConfig
from training.errors import ConfigError
from training.losses.coupling import COUPLINGS
from training.pretrained.classifier import Classifier, classifier_file, load_classifier
from training.pretrained.features import Perception, load_perception

Coupler = Classifier | Perception
Couplers = Mapping[str, Mapping[str, Coupler]]  # by coupling and domain


def load_couplers(experiment: Experiment) -> Couplers:
    """Read what the couplings of an experiment ask.

    Raises RunError where it is missing, and ConfigError where domains have other classes than one another.
    """
    return {
        coupling.name: LOADERS[COUPLINGS[coupling.name].asks](coupling, experiment)
        for coupling in experiment.couplings
        if COUPLINGS[coupling.name].asks in LOADERS
    }


def _classifiers(coupling: CouplingConfig, experiment: Experiment) -> Mapping[str, Coupler]:
    folder = Path(coupling.classifiers)
    asked = {
        domain.name: load_classifier(classifier_file(folder, domain, experiment.size)) for domain in experiment.domains
    }
    told = {name: classifier.settings["classes"] for name, classifier in asked.items()}
    if len(set(told.values())) > 1:
        raise ConfigError(f"coupling {coupling.name!r}: domains must have the same classes; they have {told}")
    return asked


def _perception(coupling: CouplingConfig, experiment: Experiment) -> Mapping[str, Coupler]:
    return dict.fromkeys((domain.name for domain in experiment.domains), load_perception(coupling.vgg))


LOADERS: dict[str, Callable[[CouplingConfig, Experiment], Mapping[str, Coupler]]] = {
    "classifiers": _classifiers,
    "perception": _perception,
}
