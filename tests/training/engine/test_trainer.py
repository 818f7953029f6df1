"""One step of training, and what it changes."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import Precision
from training.config.experiment import Experiment
from training.engine.batches import Batches, DiscriminatorInput
from training.engine.machine import Machine
from training.engine.state import State, WeightedLosses
from training.engine.trainer import AuxiliaryLosses, CouplingLosses, DiscriminatorUpdate, GeneratorUpdate, Trainer
from training.losses.adversarial import LOSSES
from training.losses.auxiliary import GeneratedBatch

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
    networks = (trainer.state.generator, trainer.state.discriminator, trainer.state.ema_generator)
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


@pytest.mark.parametrize(
    ("discriminator", "calls"),
    [({}, 1), ({"penalty": "r1", "penalty_every": 1}, 2), ({"table": "dcgan_digit", "width": 1 / 16}, 2)],
    ids=["together", "penalised", "normalised"],
)
def test_real_and_generated_images_are_judged_together(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, discriminator: dict[str, Any], calls: int
) -> None:
    """One forward pass has all images of the update, unless a penalty or a batch norm keeps them apart."""
    trainer = make_trainer(make_experiment(discriminator=discriminator))
    batches: list[int] = []
    trainer.state.discriminator.register_forward_hook(
        lambda _module, inputs, _logits: batches.append(len(inputs[0]["edge"]))
    )
    trainer.step()
    assert batches == [8 // calls] * calls + [4]  # the last is the generator's update


def test_judged_together_is_judged_apart(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """The logits of real and generated images are those of a forward pass each."""
    trainer = make_trainer(make_experiment(("digit", "edge", "negative")))
    names = list(trainer.state.generator.heads)
    places = {place: {name: torch.randn(3, 1, 28, 28) for name in names} for place in ("real", "fake")}
    for place, logits in trainer._update_discriminator._logits_by_place(places).items():
        torch.testing.assert_close(logits, trainer.state.discriminator(places[place]))


def test_the_penalty_comes_every_so_many_steps(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A lazy penalty is computed at the first step and then every `penalty_every`."""
    trainer = make_trainer(make_experiment(discriminator={"penalty": "r1", "penalty_every": 3}))
    penalised = []
    for _ in range(7):
        trainer.state.means.reset()
        trainer.step()
        penalised.append("r1" in trainer.state.means.means())
    assert penalised == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(("until", "done"), [(1.0, (0.0, 0.25, 0.5, 0.75)), (0.5, (0.0, 0.5, 1.0, 1.0))])
def test_a_penalty_falls_along_half_a_cosine(
    until: float,
    done: tuple[float, ...],
    make_experiment: MakeExperiment,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From its weight to what remains, over its share of the steps; a lazy one counts for the steps between."""
    falling = {"penalty_weight": 2.0, "penalty_every": 2, "penalty_remains": 0.1, "penalty_until": until}
    trainer = make_trainer(make_experiment(discriminator={"penalty": "r1", **falling}, steps=8))
    means, weights = trainer.state.means, list[float]()
    weigh = means.weigh

    def record(loss: Tensor, costs: WeightedLosses) -> Tensor:
        weights.extend(weight for name, (weight, _) in costs.items() if name == "r1")
        return weigh(loss, costs)

    monkeypatch.setattr(means, "weigh", record)
    for _ in range(8):
        trainer.step()
    falls = [(1 - math.cos(math.pi * share)) / 2 for share in done]
    assert weights == pytest.approx([4.0 * (1 - 0.9 * fall) for fall in falls])


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
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, schedule: dict[str, float], expected: list[float]
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
def test_networks_calculate_in_the_given_precision(
    make_experiment: MakeExperiment, make_trainer: Callable[..., Trainer], precision: Precision, kind: torch.dtype
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
    assert not any(weight.requires_grad for weight in trainer.state.ema_generator.parameters())
    assert equal(trainer.state.ema_generator.state_dict(), trainer.state.generator.state_dict())


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latents_follow_the_prior(make_experiment: MakeExperiment, make_trainer: MakeTrainer, prior: str) -> None:
    """The generator is trained on latents of the distribution that the exported file states."""
    trainer = make_trainer(make_experiment(["digit"], prior=prior, batch_size=500))
    generated: list[Tensor] = []
    trainer.state.generator.register_forward_pre_hook(lambda _, inputs: generated.append(inputs[0]))
    trainer.step()
    latents = generated[0]
    assert latents.shape == (500, 8)
    assert latents.mean().abs() < 0.1
    assert float(latents.std()) == pytest.approx(1 if prior == "normal" else 3**-0.5, rel=0.05)
    assert (latents.abs().max() <= 1) == (prior == "uniform")


def test_real_images_are_in_the_generators_range(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """The discriminator sees real images on the same scale as generated ones, in grey and in colour."""
    for table, low in (("digit", 0.0), ("digit_leaky", -1.0)):
        trainer = make_trainer(make_experiment(("digit", "colour"), generator={"table": table}))
        seen: list[dict[str, Tensor]] = []
        trainer.state.discriminator.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0]))
        trainer.step()
        real = list(itertools.chain(seen[0].values()))
        assert [batch.shape[1] for batch in real] == [1, 3]
        assert all(batch.min() == low and batch.max() > 0.9 for batch in real)


Losses = Callable[..., dict[str, float]]


@pytest.fixture
def after_a_step(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> Losses:
    """Return what trains one step of an experiment with changes and returns the losses."""

    def losses(**changes: Any) -> dict[str, float]:
        trainer = make_trainer(make_experiment(**changes))
        trainer.step()
        return trainer.state.means.means()

    return losses


def _gradients(experiment: Experiment, states: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """Return the gradients of both networks, from given weights and images, that one update of each makes."""
    fabric = Machine(accelerator="cpu", threads=1, precision="32-true").fabric()
    state = State(experiment, fabric)
    for network, weights in zip(state.networks.values(), states, strict=True):
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    torch.manual_seed(0)
    latents = torch.randn(4, 8)
    real = {domain.name: torch.linspace(-1, 1, 4 * 784).reshape(4, 1, 28, 28) for domain in experiment.domains}
    view, couplings = DiscriminatorInput(experiment), CouplingLosses((), state, {}, fabric)
    batches = Batches(experiment, {name: torch.zeros(4, 1, 28, 28) for name in real}, {}, fabric)
    auxiliary = AuxiliaryLosses(experiment, state, batches, fabric)
    images = state.generator(latents)
    fixed = {name: batch.detach() for name, batch in images.items()}
    GeneratorUpdate(experiment, state, view, couplings, fabric)(real, GeneratedBatch(images, latents))
    DiscriminatorUpdate(experiment, state, view, auxiliary, fabric)(real, fixed)
    return [
        {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
        for network in state.networks.values()
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_domains_gradient_does_not_depend_on_the_number_of_domains(
    make_experiment: MakeExperiment, loss: str
) -> None:
    """Alone or beside two others, a domain's own layers get the same gradients, with penalties, too.

    The penalty between real and generated images is left out, as its points are random.
    """
    penalties = [{"name": name, "weight": 3.0} for name in ("r1", "r2")]
    changes = {
        "loss": loss,
        "generator": {"shared_layers": 2, "initialisation": "he"},
        "discriminator": {"shared_layers": 1, "initialisation": "he", "penalties": penalties},
    }
    three = make_experiment(("digit", "edge", "negative"), **copy.deepcopy(changes))
    state = State(three, Machine(accelerator="cpu", threads=1, precision="32-true").fabric())
    weights = [network.state_dict() for network in state.networks.values()]
    together = _gradients(three, weights)
    alone = _gradients(make_experiment(("digit",), **copy.deepcopy(changes)), weights)
    for of_three, of_one in zip(together, alone, strict=True):
        own = [name for name in of_one if ".digit." in name]
        assert own
        for name in own:
            torch.testing.assert_close(of_three[name], of_one[name])


@pytest.mark.parametrize(
    ("labels", "loss"), [({}, 1.0), ({"real_label": 0.9}, 0.81), ({"real_label": 0.9, "fake_label": 0.1}, 0.82)]
)
def test_labels_change_the_discriminators_loss(after_a_step: Losses, labels: dict[str, float], loss: float) -> None:
    """A young discriminator's logits are about 0: a label costs half its square, in each of two domains."""
    losses = after_a_step(loss="lsgan", discriminator=labels)
    assert losses["discriminator_loss"] == pytest.approx(loss, abs=0.006)


def test_each_penalty_comes_in_its_own_time(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Several penalties are computed beside one another, each logged by its name when it is due."""
    penalties = [{"name": "r2", "weight": 1.0}, {"name": "gradient_penalty", "weight": 1.0, "every": 2}]
    trainer = make_trainer(make_experiment(discriminator={"penalty": "r1", "penalty_every": 3, "penalties": penalties}))
    due = []
    for _ in range(4):
        trainer.state.means.reset()
        trainer.step()
        due.append([name for name in ("r1", "r2", "gradient_penalty") if name in trainer.state.means.means()])
    assert due == [["r1", "r2", "gradient_penalty"], ["r2"], ["r2", "gradient_penalty"], ["r1", "r2"]]


def test_a_penaltys_weight_counts(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A heavy gradient penalty brings the critic's slopes near 1; without a weight it only looks on."""
    distances = []
    for weight in (0.0, 100.0):
        trainer = make_trainer(
            make_experiment(
                loss="wgan",
                discriminator={
                    "penalties": [{"name": "gradient_penalty", "weight": weight}],
                    "learning_rate": 1e-3,
                    "initialisation": "xavier",
                },
                generator={"learning_rate": 1e-9},
            )
        )
        for _ in range(20):
            trainer.state.means.reset()
            trainer.step()
        distances.append(trainer.state.means.means()["gradient_penalty"])
    assert distances[1] < distances[0] / 2


@pytest.mark.parametrize("limit", [None, 0.01])
def test_clipped_weights_stay_within_their_limit(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, limit: float | None
) -> None:
    """After a step no weight of the critic is greater than the limit; the generator's may be."""
    trainer = make_trainer(make_experiment(loss="wgan", discriminator={"clip_weights": limit, "learning_rate": 0.05}))
    trainer.step()
    greatest = [
        max(weight.abs().max().item() for weight in network.parameters())
        for network in (trainer.state.discriminator, trainer.state.generator)
    ]
    assert greatest[0] == pytest.approx(limit) if limit else greatest[0] > 0.01
    assert greatest[1] > 0.01


def test_weight_decay_shrinks_weights(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A decay far above the gradients takes its share of each weight, as sgd without momentum shows."""
    sgd = {"optimiser": "sgd", "betas": [0.0, 0.9], "learning_rate": 0.01}
    trainer = make_trainer(make_experiment(discriminator=sgd | {"weight_decay": 50.0}))
    before = [weight.clone() for weight in trainer.state.discriminator.parameters() if weight.dim() > 1]
    trainer.step()
    after = [weight for weight in trainer.state.discriminator.parameters() if weight.dim() > 1]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old / 2, rtol=0.0, atol=0.01)


def test_clipped_gradients_bound_the_step(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """With sgd at rate r, gradients of norm 0.001 at most move all weights by r / 1000 at most."""
    moved = []
    for limit in (None, 1e-3):
        sgd = {"optimiser": "sgd", "betas": [0.0, 0.9], "learning_rate": 0.5, "clip_gradients": limit}
        trainer = make_trainer(make_experiment(discriminator=sgd | {"initialisation": "he"}))
        before = torch.cat([weight.flatten() for weight in trainer.state.discriminator.parameters()])
        trainer.step()
        after = torch.cat([weight.flatten() for weight in trainer.state.discriminator.parameters()])
        moved.append((after - before).norm().item())
    assert moved[1] == pytest.approx(0.5e-3, rel=1e-3)
    assert moved[0] > 10 * moved[1]


@pytest.mark.parametrize(("discriminator", "generator"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_a_step_has_the_given_number_of_updates(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, discriminator: int, generator: int
) -> None:
    """Each network is updated so often, on images of its own but for the one batch that both share."""
    trainer = make_trainer(make_experiment(discriminator={"updates": discriminator}, generator={"updates": generator}))
    latents: list[torch.Tensor] = []
    trainer.state.generator.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    trainer.step()
    state = trainer.state.state_dict()
    updates = [int(state[f"{name}_optimiser"]["state"][0]["step"]) for name in ("discriminator", "generator")]
    assert updates == [discriminator, generator]
    assert len(latents) == len({float(batch.sum()) for batch in latents}) == discriminator + generator - 1
    assert trainer.state.steps_done == 1
