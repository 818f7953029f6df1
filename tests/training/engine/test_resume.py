"""Training goes on exactly, whatever an experiment asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.training.test_train import assert_same
from training.config.experiment import Experiment
from training.engine.trainer import Trainer

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lazy penalty, falling rates": {"discriminator": {"penalty": "r1", "penalty_every": 2}, "warmdown": 1.0},
    "halved rates": {"halve_every": 3},
    "penalties": {
        "discriminator": {
            "penalties": [
                {"name": "r1", "weight": 0.1},
                {"name": "r2", "weight": 0.1, "every": 3},
                {"name": "gradient_penalty", "weight": 10.0, "every": 2},
            ]
        }
    },
    "clipped critic": {"loss": "wgan", "discriminator": {"clip_weights": 0.01, "optimiser": "rmsprop"}},
    "spectral": {"loss": "hinge", "discriminator": {"table": "digit_spectral", "penalty": "r1"}},
    "couplings": {
        "generator": {"shared_layers": 2},
        "encoder": {"width": 1 / 32},
        "couplings": [
            {"name": "weights", "weight": 1.0},
            {"name": "features", "weight": 1.0, "layers": 2},
            {"name": "cycle", "weight": 10.0},
        ],
    },
    "looks that fade": {
        "couplings": [
            {"name": "semantic", "weight": 10.0},
            {"name": "content", "weight": 1.0},
            {"name": "style", "weight": 100.0, "until": 1.0, "remains": 0.1},
            {"name": "reconstruction", "weight": 10.0, "until": 0.5},
        ],
        "steps": 6,
    },
    "several updates": {"discriminator": {"updates": 3}, "generator": {"updates": 2}},
    "altered images": {
        "discriminator": {
            "augmentations": ["color", "translation", "cutout"],
            "noise": 0.1,
            "penalty": "r1",
            "real_label": 0.9,
        },
        "loss": "lsgan",
        "steps": 5,
    },
    "lessons": {
        "names": ("known", "edge", "negative"),
        "lessons": [
            {"name": "labels", "weight": 1.0},
            {"name": "pair_features", "weight": 0.1},
            {"name": "pseudo_labels", "weight": 1.0, "begins": 0.5},
        ],
        "classifier": {"augmentations": ["affine"], "confidence": 0.0, "batch_size": 3},
        "steps": 4,
    },
    "sgd": {"generator": {"optimiser": "sgd", "weight_decay": 0.01, "clip_gradients": 1.0}},
    "balanced": {"names": ("balanced", "edge", "negative"), "lessons": [{"name": "labels", "weight": 1.0}]},
    "uniform prior": {"prior": "uniform"},
    "relativistic": {"loss": "relativistic", "discriminator": {"penalty": "r1", "penalty_every": 2}},
}


def run_on(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Train so many steps, and return a copy of all that the next depends on."""
    for _ in range(steps):
        trainer.step()
    return copy.deepcopy(trainer.state.state_dict())


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_a_trainer_resumes_exactly(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, changes: dict[str, Any]
) -> None:
    """Over three domains, four steps equal two, saved and loaded elsewhere, and two more."""
    experiment = make_experiment(**({"names": ("digit", "edge", "negative")} | copy.deepcopy(changes)))
    expect_exact_resume(partial(make_trainer, experiment))


def test_half_precision_resumes_exactly(make_experiment: MakeExperiment, make_trainer: Callable[..., Trainer]) -> None:
    """The state is whole, whatever the arithmetic."""
    expect_exact_resume(partial(make_trainer, make_experiment(("digit", "edge", "negative")), "bf16-mixed"))


def expect_exact_resume(make: Callable[[], Trainer]) -> None:
    """Compare a trainer of four steps with one of two that another one goes on from."""
    expected = run_on(make(), 4)
    state = run_on(make(), 2)
    resumed = make()
    resumed.step()  # whatever it did before is forgotten
    resumed.state.load_state_dict(state)
    assert_same(run_on(resumed, 2), expected)
