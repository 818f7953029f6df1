"""One step of training, and what it changes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.config.fields import Precision
from training.engine.trainer import Trainer
from training.losses.adversarial import LOSSES

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weights and buffers of a network."""
    return copy.deepcopy(network.state_dict())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Say whether two snapshots are alike to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_generator_forward_serves_both_updates(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, loss: str
) -> None:
    """A step runs the generator once, and moves the weights of both networks and the average."""
    trainer = make_trainer(make_experiment(loss=loss))
    calls: list[int] = []
    trainer.state.generator.register_forward_hook(lambda *_: calls.append(1))
    networks = (trainer.state.generator, trainer.state.discriminator, trainer.state.average)
    before = [snapshot(network) for network in networks]
    trainer.step()
    assert len(calls) == 1
    assert not any(equal(old, network.state_dict()) for old, network in zip(before, networks, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generators_update_leaves_the_discriminator(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, loss: str
) -> None:
    """While the generator learns, the discriminator has neither new weights nor new gradients."""
    trainer = make_trainer(make_experiment(loss=loss))
    seen: list[tuple[dict[str, Tensor], list[Tensor]]] = []

    def look(*_: object) -> None:
        gradients = [
            weight.grad.clone() for weight in trainer.state.discriminator.parameters() if weight.grad is not None
        ]
        seen.append((snapshot(trainer.state.discriminator), gradients))

    trainer.state.discriminator.register_forward_hook(look)  # the last forward is the generator's update
    trainer.step()
    look()
    (weights, gradients), (after, gradients_after) = seen[-2:]
    assert equal(weights, after)
    assert len(gradients) == len(gradients_after) == len(list(trainer.state.discriminator.parameters()))
    assert all(map(torch.equal, gradients, gradients_after))
    assert all(weight.requires_grad for weight in trainer.state.discriminator.parameters())


def test_the_penalty_comes_every_so_many_steps(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A lazy penalty is computed at the first step and then every `penalty_every`."""
    trainer = make_trainer(make_experiment(discriminator={"penalty": "r1", "penalty_every": 3}))
    penalised = []
    for _ in range(7):
        trainer.state.means.reset()
        trainer.step()
        penalised.append("r1" in trainer.state.means.means())
    assert penalised == [True, False, False, True, False, False, True]


def test_a_heavy_penalty_flattens_the_discriminator(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """The penalty takes part in the update: with a great weight the gradients at real images fall."""
    heavy = {"penalty": "r1", "penalty_every": 1, "penalty_weight": 1e4, "initialisation": "he"}
    trainer = make_trainer(make_experiment(discriminator=heavy | {"learning_rate": 1e-3}))
    penalties = []
    for _ in range(20):
        trainer.state.means.reset()
        trainer.step()
        penalties.append(trainer.state.means.means()["r1"])
    assert penalties[-1] < penalties[0] / 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"warmdown": 0.5}, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ({"halve_every": 3}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ({"halve_every": 3, "warmdown": 0.5}, [1, 1, 1, 0.5, 0.5, 0.375, 0.125, 0.0625]),
    ],
    ids=str,
)
def test_learning_rates_fall(
    make_experiment: MakeExperiment,
    make_trainer: MakeTrainer,
    schedule: dict[str, float],
    expected: list[float],
) -> None:
    """In eight steps both rates fall linearly over the last half, by half every three steps, or by both."""
    experiment = make_experiment(steps=8, generator={"learning_rate": 0.001}, **schedule)
    trainer = make_trainer(experiment)
    shares = []
    for _ in range(8):
        trainer.step()
        state: dict[str, Any] = trainer.state.state_dict()
        rates = [state[f"{side}_optimiser"]["param_groups"][0]["lr"] for side in ("generator", "discriminator")]
        shares.append(rates[0] / 0.001)
        assert rates[1] / experiment.discriminator.learning_rate == pytest.approx(shares[-1])
    assert shares == pytest.approx(expected)


@pytest.mark.parametrize(("precision", "kind"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_networks_calculate_in_the_precision_that_is_asked(
    make_experiment: MakeExperiment,
    make_trainer: Callable[..., Trainer],
    precision: Precision,
    kind: torch.dtype,
) -> None:
    """What their layers put out is of its kind, and their weights stay whole."""
    trainer = make_trainer(make_experiment(), precision)
    seen: set[torch.dtype] = set()
    for network in (trainer.state.generator, trainer.state.discriminator):
        network.trunk[0].register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    trainer.step()
    assert seen == {kind}
    networks = trainer.state.networks.values()
    assert {weight.dtype for network in networks for weight in network.parameters()} == {torch.float32}


def test_the_average_draws_without_a_gradient(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """The averaged generator is no part of the graph, and its own buffers follow the generator's."""
    trainer = make_trainer(make_experiment(generator={"ema": 0.0}))
    trainer.step()
    assert not any(weight.requires_grad for weight in trainer.state.average.parameters())
    assert equal(trainer.state.average.state_dict(), trainer.state.generator.state_dict())


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latents_follow_the_prior(make_experiment: MakeExperiment, make_trainer: MakeTrainer, prior: str) -> None:
    """The generator is taught on latents of the distribution that the exported file states."""
    trainer = make_trainer(make_experiment(["digit"], prior=prior, batch_size=500))
    drawn: list[Tensor] = []
    trainer.state.generator.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0]))
    trainer.step()
    latents = drawn[0]
    assert latents.shape == (500, 8)
    assert latents.mean().abs() < 0.1
    assert float(latents.std()) == pytest.approx(1 if prior == "normal" else 3**-0.5, rel=0.05)
    assert (latents.abs().max() <= 1) == (prior == "uniform")


def test_real_images_are_in_the_generators_range(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """The discriminator sees real images on the same scale as drawn ones, in grey and in colour."""
    for table, low in (("digit", 0.0), ("digit_leaky", -1.0)):
        trainer = make_trainer(make_experiment(("digit", "colour"), generator={"table": table}))
        seen: list[dict[str, Tensor]] = []
        trainer.state.discriminator.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0]))
        trainer.step()
        real = list(itertools.chain(seen[0].values()))
        assert [batch.shape[1] for batch in real] == [1, 3]
        assert all(batch.min() == low and batch.max() > 0.9 for batch in real)
