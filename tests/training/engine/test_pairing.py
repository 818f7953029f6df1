"""Couplings within a run: each takes part, is logged by its name, and holds what it says together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tests.training.test_train import assert_same
from training.config.experiment import Experiment
from training.engine.state import Costs
from training.engine.trainer import Trainer
from training.errors import RunError
from training.losses.coupling import COUPLINGS, Drawn
from training.pretrained.classifier import Classifier
from training.pretrained.loss_networks import load_couplers

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
NAMES = ("digit", "edge", "colour")
ENCODER = {"width": 1 / 8, "learning_rate": 5e-3, "initialisation": "he"}
APART = {"shared_layers": 1, "initialisation": "he"}


def coupled(*names: str, weight: float = 1.0, layers: int = 1) -> list[dict[str, Any]]:
    """Ask for couplings of one weight."""
    return [{"name": name, "weight": weight, "layers": layers} for name in names]


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Return the losses of each of so many steps."""
    losses = []
    for _ in range(steps):
        trainer.state.means.reset()
        trainer.step()
        losses.append(trainer.state.means.means())
    return losses


@pytest.mark.parametrize("count", [1, 2, 3])
def test_couplings_are_combined_freely(make_experiment: MakeExperiment, make_trainer: MakeTrainer, count: int) -> None:
    """Grey and colour domains, one or many: each coupling is logged by its own name."""
    couplings = coupled("weights", "features", "cycle", layers=3)
    experiment = make_experiment(NAMES[:count], generator=APART, couplings=couplings, encoder={"width": 1 / 32})
    losses = train(make_trainer(experiment), 1)[0]
    assert losses.keys() >= {"weights", "features", "cycle"}
    assert (losses["weights"] == 0) == (losses["features"] == 0) == (count == 1)


def test_every_coupling_is_logged_by_its_name(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """All that are registered, together, over grey and colour domains, and each says a number."""
    couplings = coupled(*COUPLINGS)
    experiment = make_experiment(NAMES, generator=APART, couplings=couplings, encoder={"width": 1 / 32})
    losses = train(make_trainer(experiment), 1)[0]
    assert all(losses[name] > 0 for name in COUPLINGS)


@pytest.mark.parametrize(("name", "weight"), [("reconstruction", 1e3), ("style", 1e3), ("content", 1e3)])
def test_a_heavy_look_is_followed(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, name: str, weight: float
) -> None:
    """With a great weight what the images look like comes nearer to what is asked than without one."""
    ends = []
    for asked in (0.0, weight):
        experiment = make_experiment(
            generator=APART | {"learning_rate": 5e-3}, batch_size=8, couplings=coupled(name, weight=asked)
        )
        ends.append(train(make_trainer(experiment), 15)[-1][name])
    assert ends[1] < 0.9 * ends[0]


def test_a_weight_fades_to_what_remains(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Over the first half of eight steps it falls linearly, then stays at a tenth."""
    asked = coupled("reconstruction", weight=2.0)[0] | {"until": 0.5, "remains": 0.1}
    trainer = make_trainer(make_experiment(couplings=[asked], steps=8))
    weights, apart = [], trainer._pairing.apart

    def look(drawn: Drawn, done: float) -> Costs:
        measured = apart(drawn, done)
        weights.append(measured["reconstruction"][0])
        return measured

    trainer._pairing.apart = look  # type: ignore[method-assign,assignment]  # to see what it says
    train(trainer, 6)
    assert weights == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.2, 0.2])


@pytest.mark.parametrize("name", ["weights", "features", "cycle"])
def test_a_heavy_coupling_draws_together(make_experiment: MakeExperiment, make_trainer: MakeTrainer, name: str) -> None:
    """With a great weight what a coupling measures falls, and without one it does not as much."""
    ends = []
    for weight in (0.0, 1e3):
        changes: dict[str, Any] = {"couplings": coupled(name, weight=weight), "encoder": ENCODER}
        experiment = make_experiment(generator=APART | {"learning_rate": 5e-3}, batch_size=16, **changes)
        losses = train(make_trainer(experiment), 30)
        ends.append(losses[-1][name] / losses[0][name])
    assert ends[1] < 0.9 * ends[0]


def test_semantic_asks_classifiers_that_stay(make_experiment: MakeExperiment, fabric: Fabric) -> None:
    """Classes that differ cost the generator, and the classifiers that say so learn nothing from it."""
    experiment = make_experiment(couplings=coupled("semantic"), generator={"initialisation": "he"})
    images = {d.name: torch.randint(256, (9, 1, 28, 28), dtype=torch.uint8) for d in experiment.domains}
    classifiers = {name: Classifier("digit_small", 1, 10).eval() for name in images}
    before = {name: copy.deepcopy(one.state_dict()) for name, one in classifiers.items()}
    losses = train(Trainer(experiment, images, fabric, {"semantic": classifiers}), 1)[0]
    assert losses["semantic"] > 0
    assert_same({name: one.state_dict() for name, one in classifiers.items()}, before)


def test_classifiers_are_read_for_those_who_ask(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A cycle needs none; couplings without what they ask are told where it should be."""
    assert load_couplers(make_experiment(couplings=coupled("cycle"))) == {}
    for name, said in (("semantic", "train_classifiers"), ("content", r"vgg\.pth is missing")):
        missing = coupled(name)[0] | {"classifiers": str(tmp_path), "vgg": str(tmp_path / "vgg.pth")}
        with pytest.raises(RunError, match=said):
            load_couplers(make_experiment(couplings=[missing]))


def test_features_are_those_of_the_pairs_drawn(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """What the coupling sees is each head's first layers, run on the same latents, from the border on."""
    trainer = make_trainer(make_experiment(generator=APART, couplings=coupled("features", layers=2)))
    trainer.state.generator.eval()
    latents = torch.randn(3, 8)
    drawn = trainer._pairing.drawn(latents, trainer.state.generator(latents))
    values: Tensor = trainer.state.generator.trunk(latents[:, :, None, None])
    for name, head in trainer.state.generator.heads.items():
        first = nn.Sequential(*list(head.children())[:3])
        torch.testing.assert_close(drawn.features[name][0], first(values))  # deconvolution, norm, activation
        assert torch.equal(drawn.features[name][-1], drawn.images[name])
        assert len(drawn.features[name]) == 4
