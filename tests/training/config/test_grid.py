"""The points of a sweep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from training.config.experiment import Experiment
from training.errors import ConfigError
from training.sweep import move, read_points

MakeExperiment = Callable[..., Experiment]


def test_points_are_all_combinations() -> None:
    """The last field changes first; values are numbers, words, truths or nothing."""
    assert read_points(["generator.shared_layers=0,null", "loss=ce,wgan", "warmdown=0.5"]) == [
        {"generator.shared_layers": shared, "loss": loss, "warmdown": 0.5}
        for shared in (0, None)
        for loss in ("ce", "wgan")
    ]


def test_a_value_may_be_a_list() -> None:
    """A comma within brackets parts no values."""
    assert [*read_points(["generator.betas=[0.5,0.9],[0.0,0.9]"])] == [
        {"generator.betas": betas} for betas in ([0.5, 0.9], [0.0, 0.9])
    ]


def test_a_point_changes_its_fields_alone(make_experiment: MakeExperiment) -> None:
    """Fields of networks and of numbered entries are reached, and the rest stays as it was."""
    experiment = make_experiment(couplings=[{"name": "weights", "weight": 1.0}], generator={"shared_layers": 2})
    point = {
        "generator.shared_layers": 0,
        "domains.1.transform": "negative",
        "couplings.0.weight": 5,
        "seed": 3,
    }
    expected = make_experiment(couplings=[{"name": "weights", "weight": 5.0}], generator={"shared_layers": 0}, seed=3)
    moved = move(experiment, point)
    assert moved.domains[1].transform == "negative"
    assert move(moved, {"domains.1.transform": "edge"}) == expected


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ([], "name one field or more"),
        (["seed=1", "seed=2"], r"over = \['seed', 'seed'\].+each once"),
        (["seed"], "'seed': must be FIELD=VALUE,VALUE"),
        (["=1"], "'=1': must be FIELD=VALUE"),
        (["genrator.width=1"], "'genrator.width': an experiment has no such field"),
        (["domains.7.name=a"], "'domains.7.name': an experiment has no such field"),
        (["seed.deep=1"], "'seed.deep': an experiment has no such field"),
        (["generator.wdth=1"], "generator.wdth = 1: Unexpected"),
        (["generator.shared_layers=9"], "generator.shared_layers = 9"),
        (["loss=huber"], "loss = 'huber': must be one of"),
    ],
)
def test_a_wrong_point_is_refused(make_experiment: MakeExperiment, over: list[str], said: str) -> None:
    """What is said names the field, the value and what is allowed."""
    with pytest.raises(ConfigError, match=said):
        move(make_experiment(), read_points(over)[0])
