"""Updates of a weight, means of losses, and statistics of logits against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from tests.training.test_train import assert_same
from training.config.experiment import Experiment
from training.config.networks import NetworkConfig
from training.engine import state
from training.engine.batches import HeldOutImages
from training.engine.machine import Processes
from training.engine.state import Learner, LogitStatistics, RunningMeans, descend
from training.engine.trainer import Trainer
from training.losses.adversarial import LOSSES, adversarial_loss
from training.networks.weights import OPTIMISERS

# A weight that begins at 1, after gradients of 1 and -2, at a rate of 0.1 with betas of 0.5 and 0.75.
SECOND = 0.75 * 0.25 + 0.25 * 4  # the mean of squared gradients after both, of which the first is 0.25
WEIGHTS = {
    "adam": (0.9, 0.9 + 0.1 * 1 / (SECOND / (1 - 0.75**2)) ** 0.5),  # the mean of gradients: -0.75 / 0.75
    "sgd": (0.9, 0.9 + 0.1 * 1.5),  # 0.5 * 1 - 2
    "rmsprop": (0.8, 0.8 + 0.1 * 2 / SECOND**0.5),
}


def learner_of(fabric: Fabric, **options: Any) -> Learner:
    """Make the learner of a single weight, which begins at 1."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    return Learner(network, NetworkConfig(**options), fabric)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_updates_as_its_options_say(fabric: Fabric, optimiser: str, decay: float) -> None:
    """Rate, betas and weight decay count: gradients are chosen so that with the decay they are 1 and -2."""
    learner = learner_of(fabric, optimiser=optimiser, learning_rate=0.1, betas=(0.5, 0.75), weight_decay=decay)
    (weight,) = learner.network.parameters()
    weights = []
    for gradient in (1.0, -2.0):
        descend((gradient - decay * weight.item()) * weight.sum(), [learner], fabric)
        weights.append(weight.item())
    assert weights == pytest.approx(WEIGHTS[optimiser], rel=1e-5)


def test_means_are_those_since_the_last_reset() -> None:
    """Each name counts its own values, and what is not finite is named."""
    means = RunningMeans()
    means.add(loss=torch.tensor(1.0), penalty=torch.tensor(4.0))
    means.add(loss=torch.tensor(2.0))
    assert means.means() == {"loss": 1.5, "penalty": 4.0}
    assert means.not_finite() == []
    means.add(loss=torch.tensor(float("nan")), penalty=torch.tensor(float("inf")))
    assert means.not_finite() == ["loss", "penalty"]
    means.reset()
    assert means.means() == {}


MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
REAL = {"digit": torch.tensor([2.0, -1.0, 3.0, 0.25]), "edge": torch.tensor([9.0, 8.0, 7.0, 2.0])}
FAKE = {"digit": torch.tensor([-1.0, -2.0, -3.0, 1.0]), "edge": torch.tensor([0.0, 1.0, 2.0, 6.0])}


def fill(name: str, fabric: Fabric) -> LogitStatistics:
    """Return the statistics of three updates, of a loss by name."""
    filled = LogitStatistics(list(REAL), LOSSES[name], Processes(fabric))
    for _ in range(2):
        filled.add(REAL, FAKE)
    filled.add(dict.fromkeys(REAL, torch.ones(4)), dict.fromkeys(REAL, -torch.ones(4)))
    return filled


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_logits_are_means_over_updates(name: str, fabric: Fabric) -> None:
    """The loss of each domain is that of the registry, and its sides, where it has them, add up to it."""
    means, loss = fill(name, fabric).means(), LOSSES[name].discriminator
    for domain in REAL:
        expected = (2 * loss(REAL[domain], FAKE[domain]) + loss(torch.ones(4), -torch.ones(4))) / 3
        assert means[f"discriminator_loss/{domain}"] == pytest.approx(float(expected))
        if name != "relativistic":
            both = means[f"real_loss/{domain}"] + means[f"fake_loss/{domain}"]
            assert both == pytest.approx(float(expected))
    assert ("real_loss/digit" in means) == (name != "relativistic")
    assert means["real_logit"] == pytest.approx((2 * (4.25 + 26) / 8 + 1) / 3)
    assert means["fake_logit"] == pytest.approx((2 * (-5 + 9) / 8 - 1) / 3)


@pytest.mark.parametrize(
    ("name", "digit", "edge"),
    [
        ("ce", (0.75, 0.75), (1.0, 0.0)),  # at 0, where a fake image of logit 0 does not count as fake
        ("hinge", (0.75, 0.75), (1.0, 0.0)),
        ("lsgan", (0.5, 0.75), (1.0, 0.25)),  # at 0.5
        ("wgan", (0.75, 0.75), (0.75, 0.75)),  # halfway between the means: -0.094 and 4.375
        ("relativistic", (0.75, 0.75), (0.75, 0.75)),
    ],
)
def test_accuracy_is_counted_at_the_boundary_of_the_loss(
    name: str, digit: tuple[float, float], edge: tuple[float, float], fabric: Fabric
) -> None:
    """Real images above it, fake ones below; a loss without one takes the middle of both means."""
    filled = fill(name, fabric)
    means = filled.means()
    for domain, expected in (("digit", digit), ("edge", edge)):
        shares = [means[f"{place}_accuracy/{domain}"] for place in ("real", "fake")]
        assert shares == pytest.approx([(2 * share + 1) / 3 for share in expected])
    others = filled.accuracy({"edge": torch.tensor([-10.0, 0.75, 2.5, 10.0])})
    above = {"wgan": 0.25, "relativistic": 0.25}  # at 2.92, the middle over all updates
    assert float(others["edge"]) == above.get(name, 0.75)


def test_smoothed_labels_move_the_boundary() -> None:
    """It is where the discriminator is undecided: the logit of the middle of both labels."""
    assert LOSSES["ce"].boundary == 0.0
    assert adversarial_loss("ce", 0.9, 0.0).boundary == pytest.approx(math.log(0.45 / 0.55))
    assert adversarial_loss("lsgan", 0.9, 0.1).boundary == pytest.approx(0.5)


def test_kept_logits_are_bounded(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many updates they become sums, and the means are the same."""
    expected = fill("ce", fabric).means()
    monkeypatch.setattr(state, "MAX_PENDING", 2)
    filled = fill("ce", fabric)
    pending = filled.state_dict()["pending"]
    assert len(pending) == 1
    assert filled.means() == pytest.approx(expected)


@pytest.mark.parametrize("table", ["digit_strided", "digit_spectral", "dcgan_28"])
def test_held_out_images_change_nothing(make_experiment: MakeExperiment, make_trainer: MakeTrainer, table: str) -> None:
    """Steps are the same to the bit with the gauge between them, dropout, batch statistics and noise included."""
    discriminator = {"table": table, "noise": 0.1, "augmentations": ["translation"]}
    experiment = make_experiment(discriminator=discriminator)
    plain, gauged = make_trainer(experiment), make_trainer(experiment)
    images = {name: torch.randint(256, (9, 1, *experiment.size)).byte() for name in ("digit", "edge")}
    gauge = HeldOutImages(experiment, images, gauged.state, gauged.processes)
    for trainer in (plain, gauged):
        for _ in range(3):
            trainer.step()
            if trainer is gauged:
                assert gauge.accuracy().keys() == {"held_out_accuracy/digit", "held_out_accuracy/edge"}
    assert gauged.state.logits.means() == pytest.approx(plain.state.logits.means())  # added up in another order
    for trainer in (plain, gauged):
        trainer.state.logits.reset()
    assert_same(plain.state.state_dict(), gauged.state.state_dict())


def test_a_discriminator_that_knows_its_images_by_heart_is_found(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer
) -> None:
    """Its accuracy on the images that it learned from is whole, and on others it is not."""
    trainer = make_trainer(make_experiment(("digit",)))

    class BrightIsReal(nn.Module):
        def forward(self, images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: batch.mean((1, 2, 3)) for name, batch in images.items()}

    trainer.state.logits.add({"digit": torch.ones(4)}, {"digit": -torch.ones(4)})
    trainer.state.learners["discriminator"].forward = BrightIsReal()
    black, white = torch.zeros(1, 1, 28, 28).byte(), torch.full((3, 1, 28, 28), 255).byte()
    images = {"digit": torch.cat([black, white])}
    gauge = HeldOutImages(trainer.experiment, images, trainer.state, trainer.processes)
    assert trainer.state.logits.means()["real_accuracy/digit"] == 1.0
    assert 0.4 < gauge.accuracy()["held_out_accuracy/digit"] < 1.0  # three in four, of 16 at random
