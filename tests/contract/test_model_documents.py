"""What the committed experiments and models/README.md say of the models is what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.metadata import ModelMetadata
from tests.contract.committed import METADATA, MODELS, model_files
from training.config.experiment import load_experiment, parse_kept

ROOT = Path(__file__).parents[2]
PAPER = {"edge": 0.952, "negative": 0.967}  # pixel agreement, Liu & Tuzel 2016
LEAST_KEPT = {"digit": 0.875}  # of print, which no pixel couples to a hand; else 0.95
FILES = model_files("generator")


def quality_rows(metadata: ModelMetadata) -> list[str]:
    """Return the model's rows of the README's tables: of domains that classifiers read, and of the others."""
    quality: dict[str, Any] = metadata.quality
    by_class, names = quality.get("class_balance", {}), [domain.name for domain in metadata.domains]
    rows = [classified_row(metadata, name) for name in names if name in by_class]
    return rows + [label_free_row(metadata, name) for name in names if name not in by_class]


def classified_row(metadata: ModelMetadata, domain: str) -> str:
    """Return the row of a domain whose images a classifier reads."""
    quality: dict[str, Any] = metadata.quality
    pixels, shares = quality["pixel_agreement"].get(domain), ["-"] * 3
    if pixels:
        names = ("binarised", "within_51", "within_25")
        shares = [f"{pixels[name]:.4f} ({pixels['floor'][name]:.3f})" for name in names]
    agreement, true = (quality.get(key, {}).get(domain) for key in ("class_agreement", "class_agreement_of_real_pairs"))
    doubtful = quality.get("doubtful_images", {}).get(domain)
    distance = quality["frechet_distance"][domain]
    cells = [
        *(metadata.name, domain, *shares),
        "-" if agreement is None else f"{agreement:.4f}" + ("" if true is None else f" ({true:.4f})"),
        "-" if doubtful is None else f"{doubtful['generated']:.4f} ({doubtful['real']:.4f})",
        f"{quality['class_balance'][domain]:.4f}",
        f"{distance['drawn']:.2f} ({distance['floor']:.2f})",
        f"{quality['classifier_accuracy'][domain]:.2%}",
    ]
    return f"| {' | '.join(cells)} |"


def label_free_row(metadata: ModelMetadata, domain: str) -> str:
    """Return the row of a domain that is measured without labels."""
    quality: dict[str, Any] = metadata.quality
    measured = quality["without_labels"]["domains"][domain]
    pair = quality.get("counterpart_distance", {}).get(domain)
    both = {key: measured[key] for key in ("frechet_distance", "precision", "recall", "nearest_training_image")}
    cells = [
        *(metadata.name, domain),
        *(f"{one['generated']:.3f} ({one['floor']:.3f})" for one in both.values()),
        f"{measured['recognised']['generated']:.3f} ({measured['recognised']['real']:.3f})",
        "-" if pair is None else f"{pair['generated']:.3f} ({pair['true_distance']:.3f}, {pair['true_floor']:.3f})",
    ]
    return f"| {' | '.join(cells)} |"


def headline_row(metadata: ModelMetadata) -> str:
    """Return the model's row of the table in the project's README."""
    quality: dict[str, Any] = metadata.quality
    shape, pixels = metadata.domains[0], quality["pixel_agreement"].items()
    colours = dict.fromkeys("colour" if domain.channels == 3 else "grey" for domain in metadata.domains)
    true = quality.get("class_agreement_of_real_pairs", {})
    agreement = [f"pixels of {name} {measured['binarised']:.3f} ({PAPER[name]})" for name, measured in pixels]
    agreement += [
        f"classes of {name} {share:.3f}" + (f" ({true[name]:.3f})" if name in true else "")
        for name, share in quality.get("class_agreement", {}).items()
    ]
    if "class_agreement" not in quality:
        distances = quality["counterpart_distance"].items()
        agreement = [f"distance to {n} {one['generated']:.3f} ({one['true_distance']:.3f})" for n, one in distances]
    recipe: Any = metadata.provenance.experiment
    seen = any(one["name"] in {"semantic", "classes"} for one in recipe.get("couplings", ()))
    cells = [
        f"`{metadata.name}`",
        f"{shape.height}x{shape.width} {' and '.join(colours)}",
        ", ".join(domain.name for domain in metadata.domains),
        ", ".join(agreement),
        "its coupling" if seen else "no",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parts[-3])
def test_the_project_readme_states_the_headline(file: Path) -> None:
    """The project's README has a row for each model, and its figures are the file's."""
    row = headline_row(METADATA[file])
    assert row in (ROOT / "README.md").read_text(), row


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parts[-3])
def test_the_readme_states_the_quality_that_the_file_states(file: Path) -> None:
    """Every row of the table is what the model's own metadata give."""
    text = (MODELS / "README.md").read_text()
    rows = quality_rows(METADATA[file])
    assert all(row in text for row in rows), "\n".join(rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parts[-3])
def test_the_readme_shows_a_sheet_of_each_model(file: Path) -> None:
    """Each model's folder has a sheet of samples, and models/README.md shows it."""
    sheet = file.parents[1] / "sheet.png"
    assert sheet.is_file()
    assert f"({sheet.relative_to(MODELS)})" in (MODELS / "README.md").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parts[-3])
def test_the_experiment_that_made_a_model_is_committed(file: Path) -> None:
    """The experiment in a model's metadata is the committed one of its name, to the last field."""
    metadata = METADATA[file]
    committed = load_experiment(ROOT / f"training/recipes/{metadata.name}.toml")
    assert parse_kept(metadata.provenance.experiment) == committed


def classifier_row(metadata: ModelMetadata, size: int) -> str:
    """Return a classifier's row of the README's table."""
    quality: dict[str, Any] = metadata.quality
    worst = min(quality["accuracy_by_class"], key=quality["accuracy_by_class"].__getitem__)
    cells = [
        metadata.name,
        metadata.domains[0].name,
        f"{quality['accuracy']:.2%}",
        f"{quality['accuracy_by_class'][worst]:.2%}, of {worst}",
        f"{size / 1e6:.2f} MB",
        ", ".join(metadata.goes_with),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("file", model_files("classifier"), ids=lambda file: file.parts[-3])
def test_the_readme_states_the_accuracy_that_a_classifier_states(file: Path) -> None:
    """Every classifier has its row, with the figures of its own metadata."""
    row = classifier_row(METADATA[file], file.stat().st_size)
    assert row in (MODELS / "README.md").read_text(), row


@pytest.mark.parametrize("file", model_files("classifier"), ids=lambda file: file.parts[-3])
def test_the_readme_has_the_commands_that_made_a_classifier(file: Path) -> None:
    """The options of the training command are those of the metadata, and the export names the same generators."""
    metadata, text = METADATA[file], (MODELS / "README.md").read_text()
    recipe: Any = metadata.provenance.experiment
    options = f"--table {recipe['table']} --seed {metadata.provenance.seed} --epochs {recipe['epochs']}"
    options += f" --augmentations {' '.join(recipe['augmentations'])}" if recipe["augmentations"] else "\n"
    assert options in text
    assert f"--name {metadata.name} --goes-with {' '.join(metadata.goes_with)}\n" in text


def encoder_rows(metadata: ModelMetadata, size: int) -> list[str]:
    """Return an encoder's rows of the README's table, one a counterpart."""
    quality: dict[str, Any] = metadata.quality
    rows = []
    for name, found in quality["encoder"].items():
        floor, ceiling = quality["floor"][name], quality["ceiling"][name]
        keys = ("class_kept", "recognised", "pixel_agreement", "distance")
        cells = [f"{found[key]:.3f} ({floor[key]:.3f}, {ceiling[key]:.3f})" if key in found else "-" for key in keys]
        what = [metadata.name, f"{metadata.domains[0].name} to {name}", f"{size / 1e6:.2f} MB", *cells]
        rows.append(f"| {' | '.join(what)} |")
    return rows


@pytest.mark.parametrize("file", model_files("encoder"), ids=lambda file: file.parts[-3])
def test_the_readme_states_what_an_encoder_keeps(file: Path) -> None:
    """Every encoder has its rows, with floor and ceiling beside, keeps classes better than the floor, and is small."""
    rows = encoder_rows(METADATA[file], file.stat().st_size)
    assert all(row in (MODELS / "README.md").read_text() for row in rows), "\n".join(rows)
    assert file.stat().st_size <= 8_000_000
    quality: Any = METADATA[file].quality
    for name, found in quality["encoder"].items():
        assert found.get("recognised", 1.0) >= 0.95
        if "class_kept" in found:
            assert found["class_kept"] >= max(LEAST_KEPT.get(name, 0.95), quality["floor"][name]["class_kept"])
        assert found.get("distance", 0.0) <= quality["floor"][name].get("distance", 0.0)
