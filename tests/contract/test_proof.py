"""Pairs that a proof learns from are those of a data set, and its page is what the results say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from service.generation import pairs
from service.synthesize import Synthesis, synthesize
from tests.contract.committed import MODELS
from training import prove
from training.config.experiment import parse_kept
from training.engine.machine import Machine
from training.pretrained.exported import model_file, read_metadata
from training.prove import ProofOptions, draw_pairs, served_classifiers
from training.runs import proof_page
from training.sample import open_source

DOCS = Path(__file__).parents[2] / "docs"


def test_pairs_are_those_of_a_filtered_data_set(tmp_path: Path) -> None:
    """`cogan-synthesize` with the same filters makes the same images, at most a level apart."""
    options = {
        "model": "digit_edge",
        "models": MODELS,
        "pairs": 40,
        "size": 40,
        "processes": 1,
        "to": str(tmp_path / "to"),
    }
    filters = {"min_confidence": 0.99, "agree": True}
    synthesize(Synthesis.model_validate(options | filters | {"format": "imagefolder"}))
    machine = Machine(accelerator="cpu", threads=1)
    file = model_file(MODELS / "digit_edge")
    metadata = read_metadata(file)
    chosen = ProofOptions(models=MODELS, pairs=40, min_confidence=0.99, machine=machine)
    classifiers = served_classifiers({metadata.name}, parse_kept(metadata.provenance.experiment), chosen)
    taken = draw_pairs(open_source(file, machine), classifiers, chosen)
    assert taken.tried > 40
    for name in ("digit", "edge"):
        for seed, image in zip(taken.seeds.tolist(), taken.images[name], strict=True):
            with Image.open(next((tmp_path / "to").rglob(f"{seed}.{name}.png"))) as expected:
                assert np.abs(np.asarray(expected, int) - image[0].int().numpy()).max() <= 1


def test_candidates_are_those_of_the_service() -> None:
    """As many of a seed are tried, and confidences have as many decimals."""
    assert (prove.MAX_CANDIDATES, prove.DECIMALS) == (pairs.MAX_CANDIDATES, pairs.DECIMALS)


def test_the_page_says_what_was_measured() -> None:
    """docs/proof.md is what `training.prove` writes from docs/proof, to the letter."""
    assert (DOCS / "proof.md").read_text() == proof_page.page(DOCS / "proof")
