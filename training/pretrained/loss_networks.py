"""Pretrained networks of the coupling losses: classifiers and feature networks, frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from training.config.experiment import Experiment
from training.config.networks import CouplingConfig
from training.errors import ConfigError
from training.losses.auxiliary import COUPLINGS
from training.pretrained.classifier import Classifier, classifier_file, load_classifier
from training.pretrained.efficientnet import PACKAGES, EfficientNetLite, loss_side
from training.pretrained.features import FeatureNetwork, load_feature_network

LossNetwork = Classifier | EfficientNetLite | FeatureNetwork
LossNetworks = Mapping[str, Mapping[str, LossNetwork]]  # by coupling and domain


def load_loss_networks(experiment: Experiment) -> LossNetworks:
    """Load the loss networks of an experiment's couplings.

    Raises RunError if one is missing, and ConfigError if domains have different classes.
    """
    return {
        coupling.name: LOADERS[COUPLINGS[coupling.name].requires](coupling, experiment)
        for coupling in experiment.couplings
        if COUPLINGS[coupling.name].requires in LOADERS
    }


def _classifiers(coupling: CouplingConfig, experiment: Experiment) -> Mapping[str, LossNetwork]:
    folder = Path(coupling.classifiers)
    classifiers = {
        domain.name: load_classifier(classifier_file(folder, domain, experiment.size)) for domain in experiment.domains
    }
    class_counts = {name: classifier.settings["classes"] for name, classifier in classifiers.items()}
    if len(set(class_counts.values())) > 1:
        raise ConfigError(f"coupling {coupling.name!r}: domains must have the same classes; they have {class_counts}")
    return classifiers


def _feature_network(coupling: CouplingConfig, experiment: Experiment) -> Mapping[str, LossNetwork]:
    name = coupling.feature_network
    known = name in PACKAGES
    network = EfficientNetLite(name, loss_side(experiment.size)) if known else load_feature_network(name)
    return dict.fromkeys((domain.name for domain in experiment.domains), network)


LOADERS: dict[str, Callable[[CouplingConfig, Experiment], Mapping[str, LossNetwork]]] = {
    "classifiers": _classifiers,
    "feature_network": _feature_network,
}
