"""What the options of an experiment change in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from training.config import Experiment
from training.trainer import Trainer

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
Losses = Callable[..., dict[str, float]]


@pytest.fixture
def after_a_step(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> Losses:
    """Return what trains one step of an experiment with changes and returns the losses."""

    def losses(**changes: Any) -> dict[str, float]:
        trainer = make_trainer(make_experiment(**changes))
        trainer.step()
        return trainer.means.means()

    return losses


@pytest.mark.parametrize(
    ("labels", "loss"),
    [({}, 1 / 2), ({"real_label": 0.9}, 0.81 / 2), ({"real_label": 0.9, "fake_label": 0.1}, 0.82 / 2)],
)
def test_labels_change_the_discriminators_loss(
    after_a_step: Losses, labels: dict[str, float], loss: float
) -> None:
    """A young discriminator's logits are about 0, where a label costs half its square."""
    losses = after_a_step(loss="lsgan", discriminator=labels)
    assert losses["discriminator_loss"] == pytest.approx(loss, abs=0.003)
