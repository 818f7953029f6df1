"""What a step begins with is drawn as its domains ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric

from training.config.experiment import Experiment
from training.engine.batches import Batches
from training.errors import ConfigError

MakeExperiment = Callable[..., Experiment]
LESSONS = [{"name": "labels", "weight": 1.0}]
CLASSES = torch.tensor([0] * 90 + [2] * 9 + [3])


@pytest.mark.parametrize(("balanced", "shares"), [(False, [0.9, 0, 0.09, 0.01]), (True, [1 / 3, 0, 1 / 3, 1 / 3])])
def test_classes_are_drawn_as_often_as_any_other_where_balanced(
    make_experiment: MakeExperiment, balanced: bool, shares: list[float]
) -> None:
    """Either way an image keeps its label, and is drawn as often as others of its class."""
    domain = {"name": "known", "source": "digits", "labelled": True, "balanced": balanced}
    experiment = make_experiment(domains=[domain], lessons=LESSONS, batch_size=20_000)
    values = torch.arange(100, dtype=torch.uint8)
    images = values.reshape(100, 1, 1, 1).expand(100, 1, 28, 28)
    batches = Batches(experiment, {"known": images}, {"known": CLASSES}, Fabric(accelerator="cpu"))
    batches.begin(1)
    drawn, labels = batches.labelled()
    rows = ((drawn["known"][:, 0, 0, 0] + 1) * 127.5).round().long()
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
