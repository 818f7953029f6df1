"""Batches, augmentation and noise of a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric

from training.config.experiment import Experiment
from training.engine.batches import Batches, DiscriminatorInput
from training.engine.trainer import Trainer
from training.errors import ConfigError

MakeExperiment = Callable[..., Experiment]
AUXILIARY_LOSSES = [{"name": "labels", "weight": 1.0}]
CLASSES = torch.tensor([0] * 90 + [2] * 9 + [3])


@pytest.mark.parametrize(("balanced", "shares"), [(False, [0.9, 0, 0.09, 0.01]), (True, [1 / 3, 0, 1 / 3, 1 / 3])])
def test_classes_of_a_balanced_domain_are_sampled_equally_often(
    make_experiment: MakeExperiment, balanced: bool, shares: list[float]
) -> None:
    """Either way an image keeps its label, and is sampled as often as others of its class."""
    domain = {"name": "known", "source": "digits", "labelled": True, "balanced": balanced}
    experiment = make_experiment(domains=[domain], lessons=AUXILIARY_LOSSES, batch_size=20_000)
    values = torch.arange(100, dtype=torch.uint8)
    images = values.reshape(100, 1, 1, 1).expand(100, 1, 28, 28)
    batches = Batches(experiment, {"known": images}, {"known": CLASSES}, Fabric(accelerator="cpu"))
    batches.begin(1)
    generated, labels = batches.labelled()
    rows = ((generated["known"][:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(CLASSES[rows], labels["known"])
    assert labels["known"].bincount(minlength=4) / 20_000 == pytest.approx(shares, abs=0.015)
    often = rows.bincount(minlength=100)[:90]
    assert often.min() / often.float().mean() > 0.6
    assert often.max() / often.float().mean() < 1.5


def test_a_balanced_domain_must_be_labelled(make_experiment: MakeExperiment) -> None:
    """Its classes would be read where nothing may know them."""
    domain = {"name": "unknown", "source": "digits", "balanced": True}
    with pytest.raises(ConfigError, match=r"balanced domains \['unknown'\] are not labelled"):
        make_experiment(domains=[domain])


MakeTrainer = Callable[[Experiment], Trainer]


def test_without_options_images_are_not_augmented(make_experiment: MakeExperiment) -> None:
    """No copy is made, and no random number is drawn."""
    images = {"digit": torch.rand(2, 1, 4, 4), "edge": torch.rand(2, 1, 4, 4)}
    before = torch.get_rng_state()
    augmented = DiscriminatorInput(make_experiment())(images, 0)
    assert all(augmented[name] is images[name] for name in images)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_domain_forbids_what_would_make_it_another(make_experiment: MakeExperiment) -> None:
    """Color alters the digits, and leaves the negatives, which differ by it, as they are."""
    experiment = make_experiment(("digit", "negative"), discriminator={"augmentations": ["color"]})
    images = {name: torch.rand(8, 1, 4, 4) for name in ("digit", "negative")}
    augmented = DiscriminatorInput(experiment)(images, 0)
    assert not torch.equal(augmented["digit"], images["digit"])
    assert torch.equal(augmented["negative"], images["negative"])


@pytest.mark.parametrize(("done", "deviation"), [(0, 0.4), (10, 0.3), (20, 0.2), (40, 0.0), (70, 0.0)])
def test_noise_fades(make_experiment: MakeExperiment, done: int, deviation: float) -> None:
    """Over the first half of 80 steps it falls linearly, and then there is none."""
    noisy = {"noise": 0.4, "noise_until": 0.5}
    view = DiscriminatorInput(make_experiment(steps=80, discriminator=noisy))
    augmented = view({"digit": torch.zeros(100, 1, 20, 20)}, done)["digit"]
    assert augmented.std().item() == pytest.approx(deviation, rel=0.02)


def test_all_that_the_discriminator_sees_is_altered(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Real images, and the generated ones of both updates, all have a cutout."""
    trainer = make_trainer(make_experiment(discriminator={"augmentations": ["cutout"]}))
    seen: list[dict[str, torch.Tensor]] = []
    trainer.state.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.step()
    assert len(seen) == 2  # real and generated images together, then the generated ones of the generator's update
    for images in seen:
        assert all((batch == 0).flatten(1).sum(1).min() >= 7 * 7 for batch in images.values())


def test_real_images_are_altered_once(make_experiment: MakeExperiment, fabric: Fabric) -> None:
    """Of blank images the discriminator sees the noise that was asked for, and no more."""
    experiment = make_experiment(("digit",), discriminator={"noise": 0.5})
    trainer = Trainer(experiment, {"digit": torch.zeros(9, 1, 28, 28, dtype=torch.uint8)}, fabric)
    seen: list[dict[str, torch.Tensor]] = []
    trainer.state.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.step()
    assert seen[0]["digit"][: experiment.batch_size].std().item() == pytest.approx(0.5, rel=0.05)  # the real ones
