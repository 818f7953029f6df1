"""The verb `sample`: files of pairs, of a run and of an exported model, and translations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from service.latents import draw_latent
from service.metadata import Prior
from training import export, sample, train
from training.files import write_json
from training.networks.coupled import generate
from training.runs.folder import RunFolder, load_average
from training.sample import latents_of_seed, walk

RunVerb = Callable[..., None]
DOMAINS = ("digit", "edge", "negative")
NORMAL = Prior(distribution="normal", latent_dim=8)


@pytest.fixture
def run(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> Path:
    """Return the folder of a run of a few steps."""
    network = ["--generator.initialisation", "he", "--generator.width", 0.03]  # so that images differ
    run_verb(train, write_experiment, "--runs", tmp_path, *network)
    return tmp_path / "00000_tiny"


def pixels(file: Path) -> np.ndarray:
    """Read an image."""
    with Image.open(file) as image:
        return np.asarray(image)


def test_latents_are_those_of_the_service() -> None:
    """Index 0, 1, 2, ... of a seed, to the bit; a walk passes its seeds and has so many frames between."""
    latents = latents_of_seed(NORMAL, 7, 3, truncation=1.5)
    for index in range(3):
        assert np.array_equal(latents[index].numpy(), draw_latent(NORMAL, 7, index, 1.5))
    assert latents_of_seed(NORMAL, 7, 1)[0, :2].tolist() == pytest.approx([-0.63006794, 1.4650847])  # golden
    path = walk(NORMAL, (1, 2, 3), steps=5, loop=False)
    assert len(path) == 9
    for frame, seed in ((0, 1), (4, 2), (8, 3)):
        assert np.array_equal(path[frame].numpy(), draw_latent(NORMAL, seed))
    around = walk(NORMAL, (1, 2, 3), steps=5, loop=True)
    assert torch.equal(around[:8], path[:8])
    assert len(around) == 12


def test_pairs_are_written_in_every_format(run_verb: RunVerb, run: Path, tmp_path: Path) -> None:
    """A grid, single images and arrays hold the same pixels, those of the averaged generator."""
    formats = ["--formats", "grid", "png", "npz", "hdf5"]
    run_verb(sample, run, "--to", tmp_path / "to", "--seed", 7, "--count", 3, "--columns", 2, *formats)
    generator, _ = load_average(RunFolder.open(run))
    pairs = generate(generator, latents_of_seed(NORMAL, 7, 3))
    with np.load(tmp_path / "to/pairs.npz") as arrays, h5py.File(tmp_path / "to/pairs.h5") as archive:
        assert set(arrays) == set(archive) == {*DOMAINS, "latent"}
        for name in DOMAINS:
            expected = pairs[name].movedim(1, -1).numpy()
            assert np.array_equal(arrays[name], expected)
            assert np.array_equal(archive[name][:], expected)
            assert np.array_equal(pixels(tmp_path / f"to/{name}/7-2.png"), expected[2, ..., 0])
        assert np.array_equal(arrays["latent"], latents_of_seed(NORMAL, 7, 3).numpy())
    grid = pixels(tmp_path / "to/grid.png")
    assert grid.shape == (2 * 28, 2 * 3 * 28)
    assert np.array_equal(grid[:28, 28:56], pairs["edge"][0, 0].numpy())


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_a_walk_shows_all_domains(run_verb: RunVerb, run: Path, tmp_path: Path, form: str) -> None:
    """Its first and last frame are the pairs of its seeds; without formats nothing else is written."""
    run_verb(sample, run, "--to", tmp_path / "to", "--walk", 1, 2, "--steps", 4, "--scale", 2, "--walk-format", form)
    assert [file.name for file in (tmp_path / "to").iterdir()] == [f"walk.{form}"]
    generator, _ = load_average(RunFolder.open(run))
    pairs = generate(generator, torch.stack([torch.from_numpy(draw_latent(NORMAL, seed)) for seed in (1, 2)]))
    with Image.open(tmp_path / f"to/walk.{form}") as film:
        frames = [np.asarray(frame.convert("L")).astype(int) for frame in ImageSequence.Iterator(film)]
    assert len(frames) == 4
    for place, pair in ((0, 0), (-1, 1)):
        expected = torch.cat([images[pair, 0] for images in pairs.values()], 1)
        assert np.abs(frames[place][::2, ::2] - expected.int().numpy()).max() <= 1


def test_an_exported_model_draws_the_same(run_verb: RunVerb, run: Path, tmp_path: Path) -> None:
    """By its folder, its version's or its file: the bytes are the run's, at most 1 apart, of any number of pairs."""
    write_json(run / "quality.json", {"steps": 5})
    run_verb(export, run, "--models", tmp_path / "models")
    model = tmp_path / "models/tiny"
    for number, target in enumerate((run, model, model / "1", model / "1/model.onnx")):
        run_verb(sample, target, "--to", tmp_path / str(number), "--formats", "npz", "--count", 65)
    with np.load(tmp_path / "0/pairs.npz") as expected:
        for number in (1, 2, 3):
            with np.load(tmp_path / f"{number}/pairs.npz") as arrays:
                assert set(arrays) == set(expected)
                for name in DOMAINS:
                    assert np.abs(arrays[name].astype(int) - expected[name]).max() <= 1


def test_given_images_are_translated(run_verb: RunVerb, run: Path, tmp_path: Path) -> None:
    """Files and folders, of any size and colour: pairs, the distance of each image, and a sheet with what was given."""
    given = tmp_path / "given"
    given.mkdir()
    Image.new("RGB", (50, 40), "white").save(given / "white.png")
    Image.new("L", (28, 28), 0).save(given / "black.png")
    options = ["--domain", "edge", "--descent", 3, "--restarts", 2]
    run_verb(sample, run, "--to", tmp_path / "to", "--translate", given, given / "black.png", *options)
    folder = tmp_path / "to/translations"
    report = json.loads((folder / "distances.json").read_text())
    assert report["domain"] == "edge"
    assert [Path(one["file"]).name for one in report["images"]] == ["black.png", "white.png", "black.png"]
    assert all(0 < one["distance"] <= one["nearest_candidate"] < 1 for one in report["images"])
    assert report["mean_distance"] == pytest.approx(np.mean([one["distance"] for one in report["images"]]))
    sheet = pixels(folder / "given_and_pairs.png")
    assert sheet.shape == (3 * 28, (1 + len(DOMAINS)) * 28)
    assert sheet[28:56, :28].min() == 255
    generator, _ = load_average(RunFolder.open(run))
    pairs = generate(generator, torch.tensor([one["latent"] for one in report["images"]]))
    for name in DOMAINS:
        assert np.array_equal(pixels(folder / name / "1-white.png"), pairs[name][1, 0].numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--walk", "1"], "walk = (1,): name two seeds or more"),
        (["--truncation", "0.01"], "truncation = 0.01"),
        (["--translate", "nowhere.png"], "translate = nowhere.png: there is no image that can be read"),
        (["--translate", "EMPTY"], "there is no image that can be read: name files, or folders of them"),
        (["--translate", "PACKED"], "there is no image that can be read; left out 1 ("),
        (["--translate", "TEXT"], "cannot be read"),
        (["--translate", "IMAGE", "--domain", "cats"], "domain = 'cats': must be one of digit, edge, negative"),
    ],
)
def test_wrong_options_are_named(
    run_verb: RunVerb, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """One line names the option, its value and what is allowed."""
    places = {"EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text.png", "IMAGE": tmp_path / "image.png"}
    places["EMPTY"].mkdir()
    places["PACKED"] = tmp_path / "packed"
    places["PACKED"].mkdir()
    (places["PACKED"] / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    places["TEXT"].write_text("no image")
    Image.new("L", (4, 4)).save(places["IMAGE"])
    with pytest.raises(SystemExit, match="2"):
        run_verb(sample, run, "--to", tmp_path / "to", *(places.get(one, one) for one in arguments))
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_model_cannot_be_inverted_and_nothing_draws_nothing(
    run_verb: RunVerb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exported model has no gradients; a folder that is neither run nor model is named."""
    Image.new("L", (4, 4)).save(tmp_path / "image.png")
    models = Path(__file__).parents[2] / "models"
    for target, options, message in (
        (models / "digit_edge", ["--translate", tmp_path / "image.png"], "translate needs gradients"),
        (models / "digit_classifier", [], "is a classifier, and only generators draw"),
        (tmp_path, [], "is neither a run folder nor an exported model"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run_verb(sample, target, "--to", tmp_path / "to", *options)
        assert message in capsys.readouterr().err
