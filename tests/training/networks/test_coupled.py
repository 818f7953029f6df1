"""Networks from architectures, over any number of domains by the same code, and latents of given images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from service.latents import draw_latent
from service.metadata import Prior
from training.config.experiment import Experiment
from training.engine.state import build_discriminator, build_generator
from training.networks.coupled import CoupledDiscriminator, CoupledGenerator, choose, generate, invert, latents_of_seeds
from training.zoo import DISCRIMINATORS, GENERATORS

MakeExperiment = Callable[..., Experiment]
NAMES = ("digit", "edge", "negative", "twin", "colour")
COUNTS = (1, 2, 3, 5)
CHANNELS = [(name, 3 if name == "colour" else 1) for name in NAMES]


def count(network: nn.Module) -> int:
    """Count the weights of a network."""
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("domains", COUNTS)
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_draws_every_domain(domains: int, name: str) -> None:
    """One latent batch gives one image batch a domain, named by it, of its channels and in the range."""
    table, channels = GENERATORS[name], CHANNELS[:domains]
    generator = CoupledGenerator(table, dict(channels), 8, width=1 / 64, shared_layers=len(table.layers) - 1)
    images = generator(torch.randn(3, 8))
    assert [(domain, batch.shape) for domain, batch in images.items()] == [
        (domain, (3, count, *table.size)) for domain, count in channels
    ]
    low, high = generator.image_range
    assert (low, high) == ((0, 1) if table.layers[-1].activation == "sigmoid" else (-1, 1))
    for batch in images.values():
        assert batch.min() >= low
        assert batch.max() <= high


@pytest.mark.parametrize("domains", COUNTS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_has_logits_of_every_domain(domains: int, name: str) -> None:
    """Every image gets one logit, in batches of different lengths, and the same in any company."""
    table, channels = DISCRIMINATORS[name], CHANNELS[:domains]
    shared = len(table.layers) - 1
    discriminator = CoupledDiscriminator(table, dict(channels), width=1 / 64, shared_layers=shared).eval()
    images = {domain: torch.randn(2 + i, count, *table.size) for i, (domain, count) in enumerate(channels)}
    logits = discriminator(images)
    assert [(domain, batch.shape) for domain, batch in logits.items()] == [
        (domain, (len(batch),)) for domain, batch in images.items()
    ]
    for domain, batch in images.items():
        torch.testing.assert_close(discriminator({domain: batch})[domain], logits[domain])


@pytest.mark.parametrize("name", ["dcgan_digit", "upsample", "photo_128"])
@pytest.mark.parametrize("method", ["forward", "features", "classify"])
def test_batch_statistics_are_of_one_domain(name: str, method: str) -> None:
    """In training a domain's logits do not depend on what the other domain's images are."""
    torch.manual_seed(0)
    table, channels = DISCRIMINATORS[name], {"digit": 1, "edge": 1}
    discriminator = CoupledDiscriminator(table, channels, 1 / 8, len(table.layers) - 1, classes=2)
    for module in discriminator.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    digit, *others = torch.randn(3, 4, 1, *table.size)
    one, other = (getattr(discriminator, method)({"digit": digit, "edge": 9 * edge}) for edge in others)
    assert torch.equal(one["digit"], other["digit"])
    assert not torch.equal(one["edge"], other["edge"])


@pytest.mark.parametrize("domains", COUNTS)
def test_the_trunk_runs_once_a_batch(make_experiment: MakeExperiment, domains: int) -> None:
    """However many domains there are, the shared layers of both networks work once for all of them."""
    experiment = make_experiment(NAMES[:domains])
    calls = []
    generator, discriminator = build_generator(experiment), build_discriminator(experiment)
    generator.trunk.register_forward_hook(lambda *_: calls.append("generator"))
    discriminator.trunk.register_forward_hook(lambda *_: calls.append("discriminator"))
    discriminator(generator(torch.randn(3, experiment.latent_dim)))
    assert calls == ["generator", "discriminator"]


@pytest.mark.parametrize("shared", range(6))
def test_any_number_of_generator_layers_is_shared(make_experiment: MakeExperiment, shared: int) -> None:
    """From none to all layers are shared, and what is shared has the weights of one domain's network."""
    experiment = make_experiment(generator={"shared_layers": shared})
    alone = build_generator(make_experiment(["digit"], generator={"shared_layers": shared}))
    generator = build_generator(experiment)
    head = alone.heads["digit"]
    assert count(alone) == count(build_generator(make_experiment(["digit"])))
    assert count(generator) == count(alone.trunk) + 2 * count(head)
    generator.eval()
    images = generator(torch.randn(2, experiment.latent_dim))
    assert torch.equal(images["digit"], images["edge"]) == (shared == 5)


@pytest.mark.parametrize("shared", range(5))
def test_equal_heads_start_with_equal_pairs(make_experiment: MakeExperiment, shared: int) -> None:
    """Pairs are equal before the first step, and learn apart: no weight is shared by two heads."""
    experiment = make_experiment(generator={"shared_layers": shared, "equal_heads": True})
    generator = build_generator(experiment).eval()
    images = generator(torch.randn(2, experiment.latent_dim))
    assert torch.equal(images["digit"], images["edge"])
    images["digit"].sum().backward()
    assert all(weight.grad is None for weight in generator.heads["edge"].parameters())


def test_the_greatest_of_the_first_values_chooses() -> None:
    """The others of them count for nothing, the rest of the latent as it is; equal ones choose the first."""
    latents = torch.tensor([[0.1, 3.0, -2.0, 0.5, -0.5], [0.2, 0.1, 0.0, 0.5, -0.5], [0.0, 0.0, 0.0, 1.0, 2.0]])
    root = 3**0.5
    expected = [[0.0, root, 0.0, 0.5, -0.5], [root, 0.0, 0.0, 0.5, -0.5], [root, 0.0, 0.0, 1.0, 2.0]]
    torch.testing.assert_close(choose(latents, 3), torch.tensor(expected))
    assert choose(latents, 0) is latents


def test_a_choice_is_learned_as_by_a_softmax() -> None:
    """The value of the code that images want more of rises, that of the greatest too: its own share of the softmax."""
    latents = torch.tensor([[0.1, 3.0, -2.0, 0.5]], requires_grad=True)
    code = choose(latents, 3)
    assert torch.equal(code.detach(), choose(latents.detach(), 3))
    (gradient,) = torch.autograd.grad(code[0, 0], latents)
    soft = torch.autograd.grad(3**0.5 * latents[:, :3].softmax(1)[0, 0], latents)[0]
    torch.testing.assert_close(gradient, soft)


def test_a_generator_draws_by_what_is_chosen(make_experiment: MakeExperiment) -> None:
    """Images change with the choice, and not with the values that lost."""
    generator = build_generator(make_experiment(generator={"choices": 4})).eval()
    latent = torch.zeros(1, 8)
    latent[0, :4] = torch.tensor([1.0, 2.0, 0.5, -1.0])
    lost, other = latent.clone(), latent.clone()
    lost[0, 0], other[0, 0] = 1.9, 2.1
    assert torch.equal(generator(latent)["edge"], generator(lost)["edge"])
    assert not torch.equal(generator(latent)["edge"], generator(other)["edge"])
    assert torch.equal(generator.of_domain("edge", other), generator(other)["edge"])


@pytest.mark.parametrize("shared", range(5))
def test_any_number_of_discriminator_layers_is_shared(make_experiment: MakeExperiment, shared: int) -> None:
    """From none to all layers are shared; the border counts from the logit."""
    discriminator = build_discriminator(make_experiment(discriminator={"shared_layers": shared}))
    stem = discriminator.stems["digit"]
    weighty = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(module, weighty) for module in discriminator.trunk) == shared
    assert sum(isinstance(module, weighty) for module in stem.modules()) == 4 - shared
    images = torch.randn(2, 1, 28, 28)
    logits = discriminator({"digit": images, "edge": images})
    assert torch.equal(logits["digit"], logits["edge"]) == (shared == 4)


@pytest.mark.parametrize(("own_last", "shared"), [(1, 3), (1, 2), (2, 0), (4, 0)])
def test_the_last_layers_can_be_a_domains_own(make_experiment: MakeExperiment, own_last: int, shared: int) -> None:
    """The border can run the other way, or on both sides: the trunk begins where the stems end."""
    border = {"own_last_layers": own_last, "shared_layers": shared}
    discriminator = build_discriminator(make_experiment(discriminator=border))
    weighty = (nn.Conv2d, nn.Linear)
    parts = (discriminator.stems["digit"], discriminator.trunk, discriminator.heads["digit"])
    counts = [sum(isinstance(module, weighty) for module in part.modules()) for part in parts]
    assert counts == [4 - shared - own_last, shared, own_last]
    images = torch.randn(2, 1, 28, 28)
    logits = discriminator({"digit": images, "edge": images})
    assert not torch.equal(logits["digit"], logits["edge"])


def test_by_default_one_layer_is_not_shared(make_experiment: MakeExperiment) -> None:
    """Own last layers are taken of the shared ones, and every domain keeps its first."""
    discriminator = build_discriminator(make_experiment(discriminator={"own_last_layers": 1}))
    assert sum(isinstance(module, nn.Conv2d) for module in discriminator.stems["digit"].modules()) == 1
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in discriminator.trunk) == 2


def test_shared_weights_are_the_same_object(make_experiment: MakeExperiment) -> None:
    """A step that only one domain's loss takes moves the trunk of all, and no other head."""
    experiment = make_experiment(("digit", "edge"))
    generator = build_generator(experiment)
    generator(torch.randn(3, experiment.latent_dim))["digit"].sum().backward()
    assert all(weight.grad is not None for weight in generator.trunk.parameters())
    assert all(weight.grad is not None for weight in generator.heads["digit"].parameters())
    assert all(weight.grad is None for weight in generator.heads["edge"].parameters())


def test_the_paper_generator_has_its_weights() -> None:
    """The official one shares 7,833,476, idle biases before norms among them, and has 4,609 a head."""
    channels = {"digit": 1, "edge": 1}
    generator = CoupledGenerator(GENERATORS["digit"], channels, latent_dim=100, width=1, shared_layers=4)
    convolutions = 100 * 1024 * 16 + 9 * (1024 * 512 + 512 * 256 + 256 * 128)
    assert convolutions == 7_831_552
    idle_biases, slopes = 1024 + 512 + 256 + 128, 4  # a PReLU's slope a layer
    assert count(generator.trunk) == convolutions + slopes == 7_833_476 - idle_biases
    assert {count(head) for head in generator.heads.values()} == {128 * 36 + 1} == {4_609}


def test_the_paper_discriminator_has_its_weights() -> None:
    """REFERENCE counts 427,593 with two logits; one logit saves 501 of them."""
    channels = {"digit": 1, "edge": 1}
    discriminator = CoupledDiscriminator(DISCRIMINATORS["digit"], channels, width=1, shared_layers=3)
    stem = 20 * 25 + 20
    shared = (50 * 20 * 25 + 50) + (500 * 50 * 16 + 500) + 1 + (500 + 1)  # the 1 is PReLU's slope
    assert [count(one) for one in discriminator.stems.values()] == [stem, stem]
    assert count(discriminator.trunk) == shared
    assert count(discriminator) == 2 * stem + shared == 427_593 - 501


def test_the_adapting_discriminator_has_its_weights() -> None:
    """The official code's classifier adds 500 weights and a bias for each of 10 classes."""
    channels = {"mnist": 1, "usps": 1}
    plain, adapting = (
        CoupledDiscriminator(DISCRIMINATORS["digit"], channels, width=1, shared_layers=3, classes=classes)
        for classes in (0, 10)
    )
    assert count(adapting) == count(plain) + 10 * (500 + 1)
    assert adapting.features({"usps": torch.randn(2, 1, 28, 28)})["usps"].shape == (2, 500)


@pytest.mark.parametrize("shared", range(1, 5))
@pytest.mark.parametrize("table", ["digit", "digit_strided", "digit_spectral"])
def test_logits_and_classes_are_of_the_same_features(make_experiment: MakeExperiment, table: str, shared: int) -> None:
    """The last shared layer alone makes both of them of the features, wherever the border runs."""
    experiment = make_experiment(
        ("known", "edge"),
        lessons=[{"name": "labels", "weight": 1.0}],
        classifier={"classes": 3},
        discriminator={"table": table, "shared_layers": shared, "initialisation": "he"},
    )
    discriminator = build_discriminator(experiment).eval()
    images = {"known": torch.randn(4, 1, 28, 28), "edge": torch.randn(2, 1, 28, 28)}
    logits, classes = discriminator(images), discriminator.classify(images)
    features = discriminator.features(images)
    last = next(module for module in reversed(discriminator.trunk) if isinstance(module, nn.Conv2d | nn.Linear))
    for name, batch in images.items():
        assert classes[name].shape == (len(batch), 3)
        values = nn.functional.linear(features[name], last.weight.flatten(1), last.bias)
        torch.testing.assert_close(torch.cat([logits[name][:, None], classes[name]], 1), values)


def test_latents_are_the_services() -> None:
    """A seed draws here what the service draws for it."""
    prior = Prior(distribution="uniform", latent_dim=5)
    latents = latents_of_seeds(prior, range(3, 6))
    assert latents.dtype == torch.float32
    assert np.array_equal(latents.numpy(), np.stack([draw_latent(prior, seed) for seed in (3, 4, 5)]))


def test_a_latent_gives_the_same_images_in_any_batch(make_experiment: MakeExperiment) -> None:
    """Drawing is in evaluation mode, whatever mode the generator is in, and leaves it as it was."""
    experiment = make_experiment(("digit", "colour"))
    generator = build_generator(experiment).train()
    latents = latents_of_seeds(experiment.latent_prior, range(5))
    whole, split = generate(generator, latents), generate(generator, latents, batch=2)
    assert generator.training
    assert {name: tuple(images.shape) for name, images in whole.items()} == {
        "digit": (5, 1, 28, 28),
        "colour": (5, 3, 28, 28),
    }
    for name, images in whole.items():
        assert (images.int() - split[name].int()).abs().max() <= 1  # sums in another order round differently


@pytest.fixture
def generator(make_experiment: MakeExperiment) -> CoupledGenerator:
    """Return one of three domains whose images depend on the latent, untrained."""
    torch.manual_seed(0)
    network = {"width": 1 / 32, "initialisation": "he"}
    return build_generator(make_experiment(("digit", "edge", "colour"), latent_dim=4, generator=network))


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("domain", ["digit", "colour"])
def test_a_generated_image_is_found_again(generator: CoupledGenerator, distribution: str, domain: str) -> None:
    """The latent of an image gives the image, and the other domains' too; it stays within the prior."""
    prior = Prior.model_validate({"distribution": distribution, "latent_dim": 4})
    latents = latents_of_seeds(prior, range(1000, 1003))
    with torch.no_grad():
        pairs = generator.eval()(latents)
        found = invert(generator, domain, pairs[domain], prior, restarts=3, steps=120)
        again = generator(found.latents)
    assert (found.distances < found.before / 3).all()
    for name, images in pairs.items():
        assert (again[name] - images).square().mean() < (images.roll(1, 0) - images).square().mean() / 10
    assert found.latents.abs().max() <= (3.0 if distribution == "normal" else 1.0)


def test_other_images_change_nothing(generator: CoupledGenerator) -> None:
    """An image has the same latent alone and among others, and the generator is left as it was."""
    prior = Prior(distribution="normal", latent_dim=4)
    images = torch.rand(3, 1, 28, 28)
    together = invert(generator, "digit", images, prior, restarts=2, steps=5)
    alone = invert(generator, "digit", images[1:2], prior, restarts=2, steps=5)
    torch.testing.assert_close(together.latents[1:2], alone.latents, atol=1e-3, rtol=1e-3)
    assert generator.training
    assert all(weight.requires_grad for weight in generator.parameters())
    assert (together.distances <= together.before).all()
