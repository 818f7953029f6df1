"""Lessons within a run: who is taught what, when, and from which labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import CPU
from tests.training.test_train import assert_same
from training.config.experiment import Experiment
from training.engine.loss_inputs import check_labels
from training.engine.trainer import Trainer
from training.errors import ConfigError, DataError
from training.losses.adversarial import PENALTIES
from training.losses.auxiliary import LESSONS
from training.losses.coupling import COUPLINGS
from training.train import prepare

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
PAIR = ("known", "edge")
PLAIN = [{"name": "labels", "weight": 10.0}, {"name": "pair_features", "weight": 0.01}]
ALL = [{"name": name, "weight": 1.0} for name in LESSONS]
HE = {"initialisation": "he", "width": 1 / 16}


def losses(trainer: Trainer, steps: int = 1) -> dict[str, float]:
    """Train so many steps, and return the mean losses of the last."""
    for _ in range(steps):
        trainer.state.means.reset()
        trainer.step()
    return trainer.state.means.means()


@pytest.mark.parametrize("names", [PAIR, ("edge", "known", "colour"), ("known",)])
def test_any_number_of_domains_is_taught(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, names: tuple[str, ...]
) -> None:
    """One labelled domain beside none, one or two that are not: each lesson is logged by its own name."""
    lessons = ALL if len(names) > 1 else PLAIN
    measured = losses(make_trainer(make_experiment(names, lessons=lessons)))
    assert {lesson["name"] for lesson in lessons} <= measured.keys()
    assert measured["labels"] == pytest.approx(math.log(10), abs=0.1)  # nothing is known yet


def test_a_discriminator_learns_classes(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Sixty steps halve the cost of labels, and where the weight is 0 they do not."""
    costs = []
    for weight in (10.0, 0.0):
        lessons = [{"name": "labels", "weight": weight}]
        discriminator = HE | {"learning_rate": 5e-3}
        experiment = make_experiment(PAIR, lessons=lessons, discriminator=discriminator, batch_size=16)
        costs.append(losses(make_trainer(experiment), 60)["labels"])
    assert costs[0] < costs[1] / 2


def test_a_lesson_begins_when_it_should(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """With half of four steps to pass, the third is the first that has it."""
    lessons = [*PLAIN, {"name": "pseudo_labels", "weight": 1.0, "begins": 0.5}]
    trainer = make_trainer(make_experiment(PAIR, lessons=lessons, steps=4))
    assert ["pseudo_labels" in losses(trainer) for _ in range(4)] == [False, False, True, True]


def test_lessons_have_a_batch_of_their_own(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Their number of images is what the classifier says, and pairs are as many as in every step."""
    trainer = make_trainer(make_experiment(PAIR, lessons=ALL, classifier={"batch_size": 7}))
    seen: list[int] = []
    trainer.state.discriminator.stems["known"].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    trainer.step()
    assert seen.count(7) == 1  # labels; the rest is judged, or read in pairs
    assert set(seen) == {4, 7}


def test_labels_of_other_domains_are_never_read(
    make_experiment: MakeExperiment, digits_folder: Path, tmp_path: Path
) -> None:
    """A run is the same to the bit where the images of the unlabelled domain have no classes at all."""
    for place in ("train", "test"):
        (tmp_path / "bare" / place).mkdir(parents=True)
        for number, file in enumerate(sorted((digits_folder / place).rglob("*.png"))):
            (tmp_path / "bare" / place / f"{number:05d}.png").symlink_to(file)
    states = []
    for source in (digits_folder, tmp_path / "bare"):
        domains = [
            {"name": "known", "source": str(digits_folder), "labelled": True, "train_split": "test"},
            {"name": "digit", "source": str(source)},
        ]
        experiment = make_experiment(domains=domains, lessons=ALL, classifier={"confidence": 0.0})
        trainer = prepare(experiment, CPU).trainer
        losses(trainer, 2)
        states.append(trainer.state.state_dict())
    assert_same(states[0], states[1])


def test_the_teacher_is_the_averaged_discriminator(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A decay of 0 makes it the last iterate, as in the official code; without lessons there is none."""
    trainer = make_trainer(make_experiment(PAIR, lessons=PLAIN, classifier={"ema": 0.0}))
    losses(trainer, 2)
    state = trainer.state.state_dict()
    assert_same(dict(state["teacher"]), dict(state["discriminator"]))
    slow = make_trainer(make_experiment(PAIR, lessons=PLAIN, classifier={"ema": 0.9}))
    losses(slow, 2)
    weights = [slow.state.state_dict()[name]["stems.known.0.weight"] for name in ("teacher", "discriminator")]
    assert not torch.equal(*weights)
    assert "teacher" not in make_trainer(make_experiment()).state.state_dict()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lessons": [*PLAIN, PLAIN[0]]}, "lessons repeat: ['labels', 'pair_features', 'labels']"),
        ({"lessons": []}, "lessons are none and labelled domains ['known']: each needs the other"),
        (
            {"discriminator": {"shared_layers": 0}},
            "shared_layers = 0, own_last_layers = 0: lessons need",
        ),
        (
            {"discriminator": {"own_last_layers": 1}},
            "own_last_layers = 1: lessons need a last layer",
        ),
        ({"lessons": [{"name": "sums", "weight": 1.0}]}, "lessons.0.name = 'sums': must be one of labels, "),
        ({"classifier": {"classes": 1}}, "classifier.classes = 1"),
        ({"classifier": {"confidence": 1.5}}, "classifier.confidence = 1.5"),
    ],
)
def test_lessons_that_fit_nothing_are_refused(
    make_experiment: MakeExperiment, changes: dict[str, Any], said: str
) -> None:
    """The error names the field, its value and what is allowed."""
    with pytest.raises(ConfigError) as error:
        make_experiment(PAIR, **({"lessons": PLAIN} | changes))
    assert said in str(error.value)


def test_lessons_of_unlabelled_images_need_some(make_experiment: MakeExperiment) -> None:
    """Where every domain is labelled, they are refused by name."""
    with pytest.raises(ConfigError, match=r"lessons \['pair_labels', .+\] need a domain that is not labelled"):
        make_experiment(("known",), lessons=ALL)


def test_labels_must_be_there_and_be_classes(make_experiment: MakeExperiment) -> None:
    """Missing and too great labels are refused with the domain, the column and what is allowed."""
    experiment = make_experiment(PAIR, lessons=PLAIN, classifier={"classes": 4})
    with pytest.raises(DataError, match=r"domain known: lessons .+ 'train' of .+ has no column 'label'"):
        check_labels(experiment, {"known": None, "edge": None})
    with pytest.raises(DataError, match=r"column 'label' .+ holds 0 to 4; classifier.classes = 4 allows 0 to 3"):
        check_labels(experiment, {"known": torch.arange(5), "edge": None})
    assert check_labels(experiment, {"known": torch.arange(4), "edge": torch.arange(5)}).keys() == {"known"}


def test_no_loss_is_logged_under_another_one_s_name() -> None:
    """A run may have all lessons, couplings and penalties at once: their names differ."""
    names = [*LESSONS, *COUPLINGS, *PENALTIES]
    assert len(set(names)) == len(names)
