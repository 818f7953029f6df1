"""The verb `prove`: what a tiny exported model's pairs are good for, and what cannot be proven."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.latents import draw_latent
from service.metadata import Provenance
from tests.training.data.picture_sets import pictures, write_split
from training import prove
from training.config.experiment import EXPERIMENT, Experiment, parse_experiment
from training.engine.machine import Machine
from training.pretrained.classifier import Classifier, classifier_file, save_classifier
from training.prove import ProofOptions, ServedClassifier, draw_pairs
from training.runs import proof_page
from training.sample import open_source

RunVerb = Callable[..., None]
MakeModel = Callable[..., Path]
CLASSES = tuple("0123456789")
QUICK = ["--pairs", 20, "--seeds", 0, 1, "--epochs", 1, "--copies", 30, "--images", 6, "--min-confidence", 0]


def describe(experiment: Experiment) -> Provenance:
    """Return what a model's metadata says of the experiment that made it."""
    fields = EXPERIMENT.dump_python(experiment, mode="json")
    return Provenance(experiment=fields, seed=0, steps=0, images_seen=0, commit="", versions={})


def make_models(tiny_model: MakeModel, experiment: Experiment, classified: tuple[str, ...] = ()) -> Path:
    """Write a generator of an experiment's domains, and classifiers of some; return the folder of models."""
    shapes = {domain.name: (*experiment.size, domain.channels) for domain in experiment.domains}
    for name in classified:
        shape = {name: shapes[name]}
        tiny_model(shape, name=f"{name}_classifier", kind="classifier", classes=CLASSES, goes_with=("tiny",))
    return tiny_model(shapes, provenance=describe(experiment)).parents[2]


def read(folder: Path) -> Any:
    """Read the result of the tiny model."""
    return json.loads((folder / "tiny.json").read_text())


def test_a_model_is_proven_by_networks_and_copies(
    run_verb: RunVerb,
    make_experiment: Callable[..., Experiment],
    tiny_model: MakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every network stands beside its floor, real images and what is to be reached, on all test images."""
    models = make_models(tiny_model, experiment := make_experiment(("digit", "edge")), ("digit", "edge"))
    for domain in experiment.domains:
        evaluation = Classifier("digit_small", channels=1, classes=10)
        save_classifier(evaluation, classifier_file(tmp_path / "evaluation", domain, experiment.size))
    places = ["--to", tmp_path / "to", "--models", models, "--classifiers", tmp_path / "evaluation"]
    run_verb(prove, models / "tiny", *places, "--no-agree", *QUICK)
    result = read(tmp_path / "to")
    digit, edge, translation = result["networks"]
    assert (digit["network"], digit["labels"], digit["to_reach"]) == ("classifier of digit", "digit", 0.97)
    assert (edge["network"], edge["labels"], edge["to_reach"]) == ("classifier of edge", "digit", 0.96)
    assert (translation["network"], translation["to_reach"]) == ("translation from digit to edge", 0.9)
    for one, worst in ((digit, 0), (edge, 0), (translation, translation["floor"])):
        assert (one["test_images"], one["images"]) == (100, {"generated": 20, "real": 20})
        generated, real = (np.mean(one[name]) for name in ("generated", "real"))
        assert one["reached"] == pytest.approx((worst - generated) / (worst - real))
        assert len(one["generated"]) == len(one["real"]) == 2
    assert 0.1 <= digit["floor"] < 0.2
    assert result["pairs"] == {"taken": 20, "candidates": 20, "classifiers": ["digit", "edge"]}
    assert result["left_out"] == []
    assert result["copies"]["pairs"] == 30
    assert result["copies"]["equal_to_another"] == 0
    assert result["copies"]["domains"]["edge"]["images"] == {"training": 300, "generated": 30, "test": 100}
    assert result["copies"]["domains"]["digit"]["equal_to_training"] == {"generated": 0, "test": 0}
    assert "classifier of edge, labels of digit" in capsys.readouterr().out
    filters = result["filters"]
    assert filters["filtered"] == filters["all"]  # these filters let every pair pass
    agreement = filters["all"]["class_agreement"]["edge"]
    assert 0 <= agreement == round(agreement * 20) / 20
    run_verb(prove, tmp_path / "to", "--page", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert f"| {digit['floor']:.2%} |" in page
    true = filters["all"]["class_agreement_of_real_pairs"]["edge"]
    assert f"| edge | {agreement:.4f} ({agreement:.4f}, {true:.4f}) |" in page


def test_what_the_data_lack_is_left_out(run_verb: RunVerb, tiny_model: MakeModel, tmp_path: Path) -> None:
    """Columns of a table are true pairs without labels; a domain of another source has none."""
    for name, columns in (("pairs", ("image", "dark")), ("other", ("image",))):
        for split, levels in (("train", range(0, 120, 10)), ("test", range(5, 90, 10))):
            write_split(tmp_path / name, split, {column: pictures(*levels) for column in columns})
    sources = {"plain": ("pairs", "image"), "dark": ("pairs", "dark"), "other": ("other", "image")}
    domains = [
        {"name": name, "source": str(tmp_path / folder), "image_column": column, "channels": 3}
        for name, (folder, column) in sources.items()
    ]
    experiment = parse_experiment({"name": "tiny", "data_license": "none", "domains": domains})
    models = make_models(tiny_model, experiment)
    run_verb(prove, models / "tiny/1", "--to", tmp_path / "to", "--models", models, *QUICK)
    result = read(tmp_path / "to")
    (translation,) = result["networks"]
    assert (translation["network"], translation["to_reach"]) == ("translation from plain to dark", 0.5)
    assert translation["images"] == {"generated": 20, "real": 12}
    assert result["left_out"] == [
        "No classifiers learned from the pairs: none that is served goes with the model.",
        "No translation from plain to other: there are no true pairs.",
    ]
    assert result["filters"] == {}
    assert all(sentence in proof_page.page(tmp_path / "to") for sentence in result["left_out"])


def test_labels_of_other_classes_are_no_use(
    run_verb: RunVerb, tiny_model: MakeModel, make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """If the served classifier calls its classes otherwise than the real images, the reason is in the result."""
    models = make_models(tiny_model, make_experiment(("digit",)))
    tiny_model({"digit": (28, 28, 1)}, name="reader", kind="classifier", classes=("a", "b"), goes_with=("tiny",))
    run_verb(prove, models / "tiny", "--to", tmp_path / "to", "--models", models, *QUICK)
    (sentence,) = read(tmp_path / "to")["left_out"]
    assert sentence.startswith("No classifier of digit learned from the pairs: domain digit has 10 classes")


def test_pairs_are_the_first_candidates_that_pass(tiny_model: MakeModel) -> None:
    """Of every seed the first index whose labels agree and are sure enough, and the number of all that were tried."""
    shapes = {"digit": (8, 6, 1), "edge": (8, 6, 1)}
    file = tiny_model(shapes)
    readers = {
        name: tiny_model({name: shapes[name]}, name=f"{name}_reader", kind="classifier", goes_with=("tiny",))
        for name in shapes
    }
    machine = Machine(accelerator="cpu", threads=1)
    classifiers = {name: ServedClassifier(path, machine) for name, path in readers.items()}
    options = ProofOptions(pairs=12, min_confidence=0.6, machine=machine)
    source = open_source(file, machine)
    pairs = draw_pairs(source, classifiers, options)
    tried = 0
    for i, seed in enumerate(pairs.seeds.tolist()):
        for index in range(1000):
            tried += 1
            images = source.draw(torch.from_numpy(draw_latent(source.prior, seed, index)[None]))
            (digit, sure), (edge, also) = (classifiers[name](images[name]) for name in shapes)
            if digit[0] == edge[0] and min(sure[0], also[0]) >= 0.6:
                break
        assert all(torch.equal(pairs.images[name][i], images[name][0]) for name in shapes)
        assert (pairs.classes["digit"][i], pairs.classes["edge"][i]) == (digit[0], edge[0])
    assert pairs.seeds.tolist() == list(range(12))
    assert pairs.tried == tried > 12
    unfiltered = draw_pairs(source, {}, options)
    assert unfiltered.tried == 12


def test_filters_that_nothing_passes_are_named(
    run_verb: RunVerb,
    make_experiment: Callable[..., Experiment],
    tiny_model: MakeModel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line and status 2, before anything is trained; a folder without a model too."""
    models = make_models(tiny_model, make_experiment(("digit", "edge")), ("digit",))
    tiny_model({"edge": (28, 28, 1)}, name="reader", kind="classifier", classes=("a", "b"), goes_with=("tiny",))
    for target, options, message in (
        ("tiny", ["--pairs", 2], "min_confidence = 0.9, agree = True: none of 2,000 pairs passes the filters"),
        ("digit_classifier", [], "is a classifier, and only generators draw"),
        ("nothing", [], "is neither a run folder nor an exported model"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_verb(prove, models / target, "--models", models, *options)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_a_file_that_is_no_result_is_named(
    run_verb: RunVerb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page of a folder with another file of JSON is not written."""
    (tmp_path / "notes.json").write_text('{"model": "tiny"}')
    with pytest.raises(SystemExit):
        run_verb(prove, tmp_path, "--page", tmp_path / "page.md")
    assert "notes.json does not hold a proof" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(SystemExit):
        run_verb(prove, tmp_path)
    assert f"{tmp_path} is a run: export it, and prove the model" in capsys.readouterr().err
