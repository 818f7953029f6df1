"""Quality of an encoder: real test images of a domain, what they become in the others, and how near it is to the truth.

The floor takes the nearest of many generated images instead of the encoder's latent; the ceiling moves that latent by
descent. Axes: N images, K passes, Z latent, C, H, W.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config.experiment import Experiment
from training.data.dataset import load_pairs
from training.losses.pixels import Images
from training.metrics.frechet import counterpart_distance, pixel_agreement
from training.metrics.quality import load_evaluation_classifiers, load_real
from training.networks.coupled import generate, latents_of_seeds
from training.pretrained.classifier import classify
from training.pretrained.encoder import LatentEncoder, descend

ENOUGH = 1.01  # of the least mean error: the fewest passes within it are taken
QUANTILES = (0.5, 0.9, 0.99)
NEAREST_OF = 10_000  # generated pairs
DESCENT_STEPS = 200


def measure_encoder(
    encoder: LatentEncoder, experiment: Experiment, classifiers: Path, descent_images: int
) -> dict[str, Any]:
    """Return every measure of an encoder that the data allow, as JSON; set its passes to as few as do as well."""
    tests = TestSets(experiment, classifiers)
    found = {name: encoder.encode(name, images.images) for name, images in tests.inputs.items()}
    by_passes = torch.cat([errors for _, errors in found.values()]).mean(0)
    encoder.passes = passes = int((by_passes <= ENOUGH * by_passes.min()).nonzero()[0]) + 1
    generated = generate(encoder.generator, latents_of_seeds(experiment.latent_prior, range(NEAREST_OF)))
    measured = {}
    for name, (latents, errors) in found.items():
        own = errors[:, passes - 1]
        measured[name] = {
            "images": len(own),
            "error": {"mean": float(own.mean()), "quantiles": {str(q): float(own.quantile(q)) for q in QUANTILES}},
            "encoder": tests.measure(name, slice(None), generate(encoder.generator, latents[:, passes - 1])),
            "floor": tests.measure(name, slice(None), _nearest(generated, name, tests.inputs[name].images)),
            "ceiling": _descent(encoder, tests, name, latents[:, passes - 1], descent_images),
        }
    return {"passes": passes, "error_by_passes": by_passes.tolist(), "domains": measured}


class TestSets:
    """Real test images of each domain, what is known of their counterparts, and evaluation classifiers."""

    __test__ = False  # no test of pytest's

    def __init__(self, experiment: Experiment, classifiers: Path) -> None:
        """Load all of them. Raises DataError, and RunError if an evaluation classifier has not been trained."""
        real = load_real(experiment)
        pairs = load_pairs(experiment)
        self.inputs = real | pairs
        self._classifiers = load_evaluation_classifiers(experiment, real, classifiers)
        origins = {d.name: "pairs" if d.name in pairs else d.image_fields("transform") for d in experiment.domains}
        self._aligned = {name: [n for n, o in origins.items() if o == origin] for name, origin in origins.items()}

    def measure(self, domain: str, rows: slice, generated: Images) -> dict[str, Any]:
        """Compare what rows of a domain's test images became with their labels, and with their true counterparts."""
        labels, measured = self.inputs[domain].labels, {}
        for name in (name for name in generated if name != domain):
            parts: dict[str, Any] = {}
            if labels is not None and name in self._classifiers:
                kept = classify(self._classifiers[name], generated[name]) == labels[rows]
                parts["class_kept"] = float(kept.float().mean())
            if name in self._aligned[domain]:
                true = self.inputs[name].images[rows]
                parts["pixel_agreement"] = pixel_agreement(true, generated[name])["binarised"]
                parts["distance"] = counterpart_distance(true, generated[name])["distance"]
            measured[name] = parts
        return measured


def _nearest(generated: Images, domain: str, images: Tensor, batch: int = 500) -> Images:
    """Return the generated pairs whose image of the domain is nearest to each image, by squared distance."""
    known = generated[domain].flatten(1).float()
    rows = torch.cat([torch.cdist(part.flatten(1).float(), known).argmin(1) for part in images.split(batch)])
    return {name: candidates[rows] for name, candidates in generated.items()}


def _descent(encoder: LatentEncoder, tests: TestSets, domain: str, latents: Tensor, count: int) -> dict[str, Any]:
    """Measure some images, spread over all of them, with latents that descent has moved."""
    rows = slice(None, None, max(1, len(latents) // count))
    images = tests.inputs[domain].images[rows]
    moved = descend(encoder, domain, images, latents[rows], DESCENT_STEPS)
    return {"images": len(images), **tests.measure(domain, rows, generate(encoder.generator, moved))}
