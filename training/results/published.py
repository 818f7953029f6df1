"""Figures of the literature that ours stand beside, by the images that they are of.

Experiments of the same images are compared with the same figure, whatever their recipe.
"""

from __future__ import annotations

from training.config.domain import DomainConfig
from training.config.experiment import Experiment

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


def published_pixel_agreement(domain: DomainConfig) -> float | None:
    """Return the share of pixels that agree, of a domain made of these images, where one is known."""
    return PIXEL_AGREEMENT.get((domain.source, domain.transform))


def published_accuracy(experiment: Experiment, domain: DomainConfig) -> float | None:
    """Return the accuracy in a domain that these labelled domains teach, where one is known."""
    teachers = [one for one in experiment.domains if one.labelled]
    known = [ACCURACY.get((teacher.source, teacher.count, domain.source, domain.count)) for teacher in teachers]
    return next((figure for figure in known if figure is not None), None)
