"""Coupling and auxiliary losses within a run: when they count, how they are logged, what they change."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tests.training.conftest import CPU
from tests.training.test_train import assert_same
from training.config.experiment import Experiment
from training.data.dataset import ImageSet, load_training_sets
from training.engine.state import WeightedLosses
from training.engine.trainer import Trainer, check_labels
from training.errors import ConfigError, DataError, RunError
from training.losses.adversarial import PENALTIES
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS, GeneratedBatch
from training.pretrained.classifier import Classifier, classifier_file, fit, save_classifier
from training.pretrained.features import load_loss_networks
from training.train import prepare

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
    weights, losses = [], trainer._couplings.losses

    def look(generated: GeneratedBatch, done: float) -> WeightedLosses:
        measured = losses(generated, done)
        weights.append(measured["reconstruction"][0])
        return measured

    trainer._couplings.losses = look  # type: ignore[method-assign,assignment]  # to see what it says
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


def test_generated_images_show_their_domain(make_experiment: MakeExperiment, fabric: Fabric) -> None:
    """A heavy `recognised` makes dark digits of one head and light ones of the other, which began as equals."""
    ends = []
    for weight in (0.0, 1e3):
        generator = APART | {"learning_rate": 5e-3, "equal_heads": True}
        couplings = coupled("recognised", weight=weight)
        experiment = make_experiment(("digit", "negative"), generator=generator, batch_size=8, couplings=couplings)
        images = {name: loaded.images for name, loaded in load_training_sets(experiment).items()}
        networks = load_loss_networks(experiment, images, fabric.device)
        losses = train(Trainer(experiment, images, fabric, networks), 20)
        ends.append(losses[-1]["recognised"])
    assert ends[1] < 0.5 * ends[0]


def test_semantic_asks_classifiers_that_stay(make_experiment: MakeExperiment, fabric: Fabric) -> None:
    """Classes that differ cost the generator, and the classifiers that say so learn nothing from it."""
    experiment = make_experiment(couplings=coupled("semantic"), generator={"initialisation": "he"})
    images = {d.name: torch.randint(256, (9, 1, 28, 28), dtype=torch.uint8) for d in experiment.domains}
    classifiers = {name: Classifier("digit_small", 1, 10).eval() for name in images}
    before = {name: copy.deepcopy(one.state_dict()) for name, one in classifiers.items()}
    losses = train(Trainer(experiment, images, fabric, {"semantic": classifiers}), 1)[0]
    assert losses["semantic"] > 0
    assert_same({name: one.state_dict() for name, one in classifiers.items()}, before)


def test_choices_show_their_classes(make_experiment: MakeExperiment, fabric: Fabric, tmp_path: Path) -> None:
    """A heavy `classes` lowers the cost of images that are not of the class of their latent's choice."""
    ends = []
    for weight in (0.0, 1e3):
        couplings = [one | {"classifiers": str(tmp_path)} for one in coupled("classes", weight=weight)]
        generator = APART | {"learning_rate": 5e-3, "choices": 12}
        experiment = make_experiment(latent_dim=16, generator=generator, batch_size=16, couplings=couplings)
        sets = load_training_sets(experiment)
        images = {name: loaded.images for name, loaded in sets.items()}
        write_classifiers(experiment, tmp_path, sets=sets)
        networks = load_loss_networks(experiment, images, fabric.device)
        losses = train(Trainer(experiment, images, fabric, networks), 20)
        ends.append(losses[-1]["classes"])
    assert ends[1] < 0.9 * ends[0], ends


def test_choices_are_as_many_as_classes(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Fewer leave a class out, and attributes are none: both are told before a step is made."""
    couplings = [one | {"classifiers": str(tmp_path)} for one in coupled("classes")]
    for fields, labels in ({"choices": 7}, "10 classes, and generator.choices = 7"), ({}, "attributes, not classes"):
        experiment = make_experiment(generator=fields, couplings=couplings)
        write_classifiers(experiment, tmp_path, () if fields else ("old", "young"))
        images = {domain.name: torch.zeros(3, 1, 28, 28, dtype=torch.uint8) for domain in experiment.domains}
        with pytest.raises(ConfigError, match=f"domain digit has {labels}"):
            load_loss_networks(experiment, images, torch.device("cpu"))


def write_classifiers(
    experiment: Experiment, folder: Path, attributes: tuple[str, ...] = (), sets: dict[str, ImageSet] | None = None
) -> None:
    """Write a classifier of each domain, of attributes or of ten classes, trained on its images if there are any."""
    torch.manual_seed(0)
    for domain in experiment.domains:
        classifier = Classifier("digit_small", domain.channels, len(attributes) or 10, attributes)
        if sets:
            fit(classifier, sets[domain.name], epochs=20, seed=0)
        save_classifier(classifier, classifier_file(folder, domain, experiment.size))


def test_classifiers_are_read_for_those_who_ask(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A cycle needs none; missing loss networks are named with their path."""
    assert load_loss_networks(make_experiment(couplings=coupled("cycle")), {}, torch.device("cpu")) == {}
    for name, message in (("semantic", "train_classifier"), ("content", r"vgg\.pth is missing")):
        missing = coupled(name)[0] | {"classifiers": str(tmp_path), "feature_network": str(tmp_path / "vgg.pth")}
        with pytest.raises(RunError, match=message):
            load_loss_networks(make_experiment(couplings=[missing]), {"digit": torch.empty(0)}, torch.device("cpu"))


def test_features_are_those_of_the_generated_pairs(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """What the coupling sees is each head's first layers, run on the same latents, from the border on."""
    trainer = make_trainer(make_experiment(generator=APART, couplings=coupled("features", layers=2)))
    trainer.state.generator.eval()
    latents = torch.randn(3, 8)
    generated = trainer._couplings.generated(latents, trainer.state.generator(latents))
    values: Tensor = trainer.state.generator.trunk(latents[:, :, None, None])
    for name, head in trainer.state.generator.heads.items():
        first = nn.Sequential(*list(head.children())[:3])
        torch.testing.assert_close(generated.features[name][0], first(values))  # deconvolution, norm, activation
        assert torch.equal(generated.features[name][-1], generated.images[name])
        assert len(generated.features[name]) == 4


PAIR = ("known", "edge")
PLAIN = [{"name": "labels", "weight": 10.0}, {"name": "pair_features", "weight": 0.01}]
ALL = [{"name": name, "weight": 1.0} for name in AUXILIARY_LOSSES]
HE = {"initialisation": "he", "width": 1 / 16}


def losses(trainer: Trainer, steps: int = 1) -> dict[str, float]:
    """Train so many steps, and return the mean losses of the last."""
    for _ in range(steps):
        trainer.state.means.reset()
        trainer.step()
    return trainer.state.means.means()


@pytest.mark.parametrize("names", [PAIR, ("edge", "known", "colour"), ("known",)])
def test_auxiliary_losses_take_any_number_of_domains(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, names: tuple[str, ...]
) -> None:
    """One labelled domain beside none, one or two that are not: each auxiliary loss is logged by its own name."""
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


def test_an_auxiliary_loss_begins_on_time(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """With half of four steps to pass, the third is the first that has it."""
    lessons = [*PLAIN, {"name": "pseudo_labels", "weight": 1.0, "begins": 0.5}]
    trainer = make_trainer(make_experiment(PAIR, lessons=lessons, steps=4))
    assert ["pseudo_labels" in losses(trainer) for _ in range(4)] == [False, False, True, True]


def test_auxiliary_losses_have_a_batch_of_their_own(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Their number of images is what the classifier says, and pairs are as many as in every step."""
    trainer = make_trainer(make_experiment(PAIR, lessons=ALL, classifier={"batch_size": 7}))
    seen: list[int] = []
    trainer.state.discriminator.stems["known"].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    trainer.step()
    assert seen.count(7) == 1  # labels; the rest is judged, or read in pairs
    assert set(seen) == {4, 7, 8}  # 8 are real and generated images together


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


def test_the_ema_discriminator_is_the_average(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """A decay of 0 makes it the last iterate, as in the official code; without auxiliary losses there is none."""
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
    ("changes", "message"),
    [
        ({"lessons": [*PLAIN, PLAIN[0]]}, "lessons repeat: ['labels', 'pair_features', 'labels']"),
        ({"lessons": []}, "lessons are none and labelled domains ['known']: each needs the other"),
        ({"discriminator": {"shared_layers": 0}}, "shared_layers = 0, own_last_layers = 0: lessons need"),
        ({"discriminator": {"own_last_layers": 1}}, "own_last_layers = 1: lessons need a last layer"),
        ({"lessons": [{"name": "sums", "weight": 1.0}]}, "lessons.0.name = 'sums': must be one of labels, "),
        ({"classifier": {"classes": 1}}, "classifier.classes = 1"),
        ({"classifier": {"confidence": 1.5}}, "classifier.confidence = 1.5"),
    ],
)
def test_auxiliary_losses_that_do_not_fit_are_refused(
    make_experiment: MakeExperiment, changes: dict[str, Any], message: str
) -> None:
    """The error names the field, its value and what is allowed."""
    with pytest.raises(ConfigError) as error:
        make_experiment(PAIR, **({"lessons": PLAIN} | changes))
    assert message in str(error.value)


def test_auxiliary_losses_of_unlabelled_images_need_some(make_experiment: MakeExperiment) -> None:
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
    """A run may have all auxiliary losses, couplings and penalties at once: their names differ."""
    names = [*AUXILIARY_LOSSES, *COUPLINGS, *PENALTIES]
    assert len(set(names)) == len(names)
