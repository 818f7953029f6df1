"""Quality of an encoder, and usefulness of generated pairs.

An encoder translates real test images of a domain, compared with their true counterparts. Its floor takes the nearest
of many generated images instead of the encoder's latent; its ceiling moves that latent by descent. Networks trained on
generated pairs are compared with those trained on real images; generated images are compared for copies.
Axes: N images, B batch, K passes or cells of a thumbnail, Z latent, C, H, W.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy, relu

from service.metadata import Prior
from training.config.experiment import Experiment
from training.data.dataset import load_pairs, load_training_sets
from training.data.sources import share_out
from training.losses.pixels import Images, from_bytes, to_bytes
from training.metrics.quality import counterpart_distance, load_evaluation_classifiers, load_real, pixel_agreement
from training.networks.coupled import generate, latents_of_seeds
from training.pretrained.classifier import classify, train_once
from training.pretrained.encoder import LatentEncoder, descend
from training.pretrained.recogniser import DomainRecogniser

UNIT = (0.0, 1.0)
BATCH = 64
SIDE = 8  # cells of a thumbnail, across and down
NEAR = 0.01  # share of test images that count as near to a training image
PART = 64  # images whose distances to all others are in memory, and in caches, at a time

Examples = tuple[Tensor, Tensor]  # images [N, C, H, W], and their classes [N] or counterparts [N, C, H, W]


def compare(
    train: Callable[[Examples, int], float],
    generated: Examples,
    real: Examples,
    seeds: Sequence[int],
    worst: float,
    falls: bool = False,
) -> dict[str, Any]:
    """Return the figures of networks trained on generated and on real examples, for every seed.

    `train` returns the figure of one network, which rises as it learns, or `falls`. `reached` is the share of the way
    from the worst figure to that of real examples; None if these are not better, and more epochs are needed. Real
    examples are repeated if they are fewer, so that the number of steps is the same.
    """
    count, there = len(generated[0]), len(real[0])
    learned, best = [train(generated, seed) for seed in seeds], []
    for seed in seeds:
        rows = share_out(there, shares=1, seed=seed)[0][np.arange(count) % there]
        best.append(train((real[0][rows], real[1][rows]), seed))
    way = worst - mean(best)
    better = way > 0 if falls else way < 0
    return {
        "images": {"generated": count, "real": min(count, there)},
        "generated": learned,
        "real": best,
        "reached": (worst - mean(learned)) / way if better else None,
    }


class Translator(nn.Module):
    """A small U-Net: images uint8 [B, C, H, W] of one domain -> those of another, float in UNIT, of the same size.

    It is pix2pix's generator (Isola et al. 2017, section 3.2) with two halvings.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(64, 32, 3, 2, 1)
        self.leave = nn.ConvTranspose2d(64, 16, 3, 2, 1)
        self.last = nn.Conv2d(32 + channels, out, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Translate."""
        given = from_bytes(images, UNIT)
        whole = self.enter(given)
        halved = self.down(whole)
        halved = torch.cat([halved, relu(self.up(self.inner(halved), list(halved.shape[2:])))], 1)
        whole = torch.cat([given, whole, relu(self.leave(halved, list(whole.shape[2:])))], 1)
        translated: Tensor = self.last(whole).sigmoid()
        return translated

    @torch.inference_mode()
    def translate(self, images: Tensor) -> Tensor:
        """Return the counterparts of images, uint8 [N, C, H, W]."""
        device = self.last.weight.device
        return torch.cat([to_bytes(self(part.to(device)), UNIT).cpu() for part in images.split(BATCH)])


def fit_translator(pairs: Examples, epochs: int, seed: int, device: torch.device) -> Translator:
    """Train on pairs, uint8 [N, C, H, W] each, by the cross entropy of every value.

    By pix2pix's L1 (Isola et al. 2017, equation 3) all images become black where most of each counterpart is.
    """
    torch.manual_seed(seed)
    images, counterparts = pairs
    translator = Translator(images.shape[1], counterparts.shape[1]).to(device)
    steps = math.ceil(epochs * len(images) / BATCH)

    def loss() -> Tensor:
        rows = torch.randint(len(images), (BATCH,))
        wanted = from_bytes(counterparts[rows].to(device), UNIT)
        return binary_cross_entropy(translator(images[rows].to(device)), wanted)

    train_once(translator, loss, steps)
    return translator


class Prints(NamedTuple):
    """Digests of the bytes of images, and thumbnails [N, K], by which they are compared.

    A thumbnail is the image averaged to SIDE x SIDE cells; the distance of two is the root of the mean squared
    difference of their values, of 1 between black and white.
    """

    digests: list[bytes]
    thumbnails: Tensor


def take_prints(images: Tensor) -> Prints:
    """Return the prints of images uint8 [N, C, H, W]."""
    digests = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
    cells = torch.cat([adaptive_avg_pool2d(from_bytes(part, UNIT), SIDE).flatten(1) for part in images.split(PART)])
    return Prints(digests, cells / math.sqrt(cells.shape[1]))


def join_prints(parts: Sequence[Prints]) -> Prints:
    """Return the prints of images that are in parts."""
    digests = [digest for part in parts for digest in part.digests]
    return Prints(digests, torch.cat([part.thumbnails for part in parts]))


def nearest_distance(thumbnails: Tensor, among: Tensor | None = None) -> Tensor:
    """Return the distance [N] to the nearest of other images, or of the same ones but itself."""
    others = thumbnails if among is None else among
    shift, found = others.square().sum(1) / -2, []
    room = torch.empty(min(PART, len(thumbnails)), len(others))  # used again: large blocks are given back too late
    for start in range(0, len(thumbnails), PART):
        part = thumbnails[start : start + PART]
        closeness = torch.addmm(shift, part, others.T, out=room[: len(part)])  # (|x|^2 - the squared distance) / 2
        if among is None:
            rows = torch.arange(len(part))
            closeness[rows, start + rows] = -math.inf
        found.append(part.square().sum(1) - 2 * closeness.amax(1))
    return torch.cat(found).clamp_min(0).sqrt()


def measure_copies(generated: Prints, training: Prints, test: Prints) -> dict[str, Any]:
    """Return how many generated images are copies of training images or of one another, beside real images, as JSON.

    Images are near if they are nearer than all but NEAR of the test images are to their nearest training image.
    """
    known, sets = set(training.digests), {"generated": generated, "test": test}
    distances = {name: nearest_distance(one.thumbnails, training.thumbnails) for name, one in sets.items()}
    near = float(distances["test"].quantile(NEAR))
    among = {"generated": nearest_distance(generated.thumbnails), "training": nearest_distance(training.thumbnails)}

    def shares(kinds: dict[str, Tensor]) -> dict[str, float]:
        return {name: float((values <= near).double().mean()) for name, values in kinds.items()}

    return {
        "images": {"training": len(training.digests), **{name: len(one.digests) for name, one in sets.items()}},
        "equal_to_training": {name: sum(one in known for one in prints.digests) for name, prints in sets.items()},
        "distance_to_training": {name: float(values.median()) for name, values in distances.items()},
        "near": near,
        "near_training": shares(distances),
        "near_another": shares(among),
    }


MORE = 2  # times as many passes are tried as were trained
ENOUGH = 1.01  # of the least mean error: the fewest passes within it suffice
QUANTILES = (0.5, 0.9, 0.99)
NEAREST_OF = 10_000  # generated pairs
DESCENT_STEPS = 200


def measure_encoder(encoder: LatentEncoder, tests: RealTests, prior: Prior, descent_images: int) -> dict[str, Any]:
    """Return every measure of an encoder that the data allow, as JSON; set its passes to the fewest that suffice."""
    most = MORE * encoder.passes
    found = {name: encoder.encode(name, tests.inputs[name].images, most) for name in encoder.domains}
    by_passes = torch.cat([errors for _, errors in found.values()]).mean(0)
    encoder.passes = passes = int((by_passes <= ENOUGH * by_passes.min()).nonzero()[0]) + 1
    generated = generate(encoder.generator, latents_of_seeds(prior, range(NEAREST_OF)))
    measured = {}
    for name, (latents, errors) in found.items():
        own = errors[:, passes - 1]
        measured[name] = {
            "images": len(own),
            "error": {"mean": float(own.mean()), "quantiles": {str(q): float(own.quantile(q)) for q in QUANTILES}},
            "encoder": tests.measure(name, slice(None), generate(encoder.generator, latents[:, passes - 1])),
            "floor": tests.measure(name, slice(None), _nearest(generated, name, tests.inputs[name].images)),
            "ceiling": _descent(encoder, tests, name, latents[:, passes - 1], descent_images),
            "real": tests.measure_real(name),
        }
    return {"passes": passes, "error_by_passes": by_passes.tolist(), "domains": measured}


class RealTests:
    """Real test images of each domain, their counterparts if known, and evaluation classifiers.

    Where a domain has no classifier, a network that tells the domains apart takes its place.
    """

    def __init__(self, experiment: Experiment, classifiers: Path) -> None:
        """Load all of them. Raises DataError, and RunError if an evaluation classifier has not been trained."""
        real, pairs = load_real(experiment), load_pairs(experiment)
        self.inputs = real | pairs
        self._classifiers = load_evaluation_classifiers(experiment, real, classifiers)
        origins = {d.name: "pairs" if d.name in pairs else d.image_fields("transform") for d in experiment.domains}
        self._aligned = {name: [n for n, o in origins.items() if o == origin] for name, origin in origins.items()}
        self._experiment = experiment

    @cached_property
    def _recogniser(self) -> DomainRecogniser:
        sets = load_training_sets(self._experiment)
        return DomainRecogniser({name: one.images for name, one in sets.items()}, torch.device("cpu"))

    def measure(self, domain: str, rows: slice, generated: Images) -> dict[str, Any]:
        """Compare translations of rows of a domain's test images with their labels and their true counterparts."""
        labels, measured = self.inputs[domain].labels, {}
        for name in (name for name in generated if name != domain):
            parts: dict[str, Any] = {}
            if labels is not None and name in self._classifiers:
                kept = classify(self._classifiers[name], generated[name]) == labels[rows]
                parts["class_kept"] = float(kept.float().mean())
            if name not in self._classifiers:
                parts["recognised"] = self._recogniser.share(name, generated[name])
            if name in self._aligned[domain]:
                true = self.inputs[name].images[rows]
                parts["pixel_agreement"] = pixel_agreement(true, generated[name])["binarised"]
                parts["distance"] = counterpart_distance(true, generated[name])["distance"]
            measured[name] = parts
        return measured

    def measure_real(self, domain: str) -> dict[str, Any]:
        """Measure the real test images of the other domains that have no classifier."""
        others = [name for name in self.inputs if name not in {domain, *self._classifiers}]
        return {name: {"recognised": self._recogniser.share(name, self.inputs[name].images)} for name in others}


def _nearest(generated: Images, domain: str, images: Tensor, batch: int = 500) -> Images:
    """Return the generated pairs whose image of the domain is nearest to each image, by squared distance."""
    known = generated[domain].flatten(1).float()
    rows = torch.cat([torch.cdist(part.flatten(1).float(), known).argmin(1) for part in images.split(batch)])
    return {name: candidates[rows] for name, candidates in generated.items()}


def _descent(encoder: LatentEncoder, tests: RealTests, domain: str, latents: Tensor, count: int) -> dict[str, Any]:
    """Measure some images, spread over all of them, with latents that descent has moved."""
    rows = slice(None, None, max(1, len(latents) // count))
    images = tests.inputs[domain].images[rows]
    moved = descend(encoder, domain, images, latents[rows], DESCENT_STEPS)
    return {"images": len(images), **tests.measure(domain, rows, generate(encoder.generator, moved))}
