"""Measures without labels against values worked out by hand, and on real images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from training.config.experiment import Experiment
from training.data.dataset import load_split
from training.errors import DataError
from training.metrics.label_free import (
    Compared,
    extract,
    extract_real,
    frechet,
    kernel_distance,
    label_free_distance,
    measure_without_labels,
    measuring_network,
    nearest,
    precision_recall,
    recognise_domains,
)
from training.pretrained import recogniser

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


class Identity(nn.Module):
    """Take features for images, as libraries expect it."""

    num_features = 6

    def forward(self, features: Tensor) -> Tensor:
        """Return them."""
        return features


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    """Return features of two sets [N, 6] that differ in mean and spread."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(300, 6, generator=random), 0.3 + 1.5 * torch.randn(200, 6, generator=random)


@pytest.mark.parametrize("count", [200, 4])
def test_the_frechet_distance_is_the_library_s(sets: tuple[Tensor, Tensor], count: int) -> None:
    """Torchmetrics' figure, with more images than features and with fewer."""
    metric = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    real, generated = (one[:count].double() for one in sets)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    assert frechet(real, generated) == pytest.approx(float(metric.compute()), rel=1e-3)
    assert frechet(real, real.flip(0)) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_the_library_s(sets: tuple[Tensor, Tensor]) -> None:
    """Torchmetrics' KID of one subset of everything; as many are taken of both; none between halves of one set."""
    with pytest.warns(UserWarning, match="buffer"):
        metric = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=200)
    metric.update(sets[0][:200], real=True)
    metric.update(sets[1], real=False)
    assert kernel_distance(*sets) == pytest.approx(float(metric.compute()[0]), rel=1e-3)
    assert abs(kernel_distance(sets[0][::2], sets[0][1::2])) < kernel_distance(*sets) / 5


def test_precision_and_recall_tell_noise_from_collapse() -> None:
    """Points on a line, a unit apart: their third neighbours are within 2 or 3, and of two equal points far off."""
    real = torch.arange(10.0)[:, None]
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 1000) == (0.0, 0.0)
    collapsed = torch.full((10, 1), 4.0)
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1.0  # every copy is real
    assert recall == pytest.approx(0.1)  # and covers one point alone
    half_wrong = torch.cat([real[:5], real[:5] + 1000])
    assert precision_recall(real, half_wrong)[0] == 0.5


def test_the_nearest_is_found_even_if_it_is_a_copy() -> None:
    """A copy is at no distance; another one is nearest to the one it is nearest to."""
    among = torch.randn(40, 6) * 100
    distances, indices = nearest(torch.stack([among[7], among[3] + 0.1]), among)
    assert indices.tolist() == [7, 3]
    assert distances[0] < 1e-4
    assert distances[1] == pytest.approx(0.1 * 6**0.5, rel=1e-3)


def test_worse_images_are_farther(make_experiment: MakeExperiment) -> None:
    """Real digits are nearest to real ones, blurred ones farther, noise farthest; real features are kept."""
    network = measuring_network(make_experiment(), 32)
    (domain,) = make_experiment(("digit",)).domains
    images = load_split(domain, "train", (28, 28)).images
    real, other = images[::2], images[1::2]
    blurred = nn.functional.avg_pool2d(other.float(), 5, 1, 2).byte()
    distances = [label_free_distance(real, one, network) for one in (other, blurred, torch.randint_like(other, 256))]
    assert distances == sorted(distances)
    assert distances[1] > 2 * distances[0]
    kept = extract_real(network, real)
    network.forward = None  # type: ignore[assignment,method-assign]  # they are not computed again
    torch.testing.assert_close(extract_real(network, real), kept)
    with pytest.raises(TypeError):
        extract(network, real)


def test_what_learned_from_a_network_is_measured_by_the_other(make_experiment: MakeExperiment) -> None:
    """Only couplings that compare features count; VGG19 is neither."""
    learning = {"name": "content", "weight": 1.0}
    couplings = {
        "efficientnet_lite2": [[learning]],
        "efficientnet_lite0": [
            [],
            [{"name": "reconstruction", "weight": 1.0}],
            [learning | {"feature_network": "efficientnet_lite2"}],
            [learning | {"feature_network": "vgg.pth"}],
        ],
    }
    for name, choices in couplings.items():
        assert [measuring_network(make_experiment(couplings=some)).name for some in choices] == [name] * len(choices)


def test_copies_of_training_images_show(make_experiment: MakeExperiment) -> None:
    """Of all domains' images, grey and colour; those that were copied are found, and are nearer than test images."""
    experiment = make_experiment(("digit", "colour"))
    pairs = {domain.name: load_split(domain, "train", (28, 28)).images[:60] for domain in experiment.domains}
    quality, closest = measure_without_labels(experiment, pairs, 300, CPU)
    assert (quality["network"], quality["pixels"]) == ("efficientnet_lite0", 32)
    assert quality["domains"].keys() == pairs.keys()
    for name, measured in quality["domains"].items():
        assert measured["images"]["test"] == 100
        assert measured["images"]["compared"] == 60
        assert measured["nearest_training_image"]["generated"] < measured["nearest_training_image"]["floor"]
        assert measured["precision"]["generated"] > 0.5
        assert torch.equal(closest[name]["generated"][:5], closest[name]["training"][:5])


def test_two_images_are_needed(make_experiment: MakeExperiment) -> None:
    """One image has no spread: the error names the domain and how many there must be."""
    experiment = make_experiment(("digit",))
    with pytest.raises(DataError, match="domain digit: 2 test and training images"):
        measure_without_labels(experiment, {"digit": torch.zeros(1, 1, 28, 28, dtype=torch.uint8)}, 300, CPU)


def test_domains_are_recognised_by_what_sets_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated images of the right kind are taken for their own domain's, and those of the other's kind are not."""
    monkeypatch.setattr(recogniser, "STEPS", 1000)
    random = torch.Generator().manual_seed(0)

    def dark(count: int, channels: int = 1) -> Tensor:
        return torch.randint(0, 100, (count, channels, 16, 16), dtype=torch.uint8, generator=random)

    def light(count: int) -> Tensor:
        return 120 + dark(count, 3)

    domains = {"right": Compared(dark(40), dark(40), dark(100)), "swapped": Compared(dark(40), light(40), light(100))}
    shares = recognise_domains(domains, CPU)
    assert shares["right"]["generated"] > 0.95
    assert shares["swapped"]["generated"] < 0.05
    assert all(share["real"] > 0.95 for share in shares.values())
    assert recognise_domains(domains, CPU) == shares
    assert recognise_domains({"alone": domains["right"]}, CPU) == {"alone": {"generated": 1, "real": 1}}
