"""Columns of one table are pairs, which no two domains learn from and which measure."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.training.data.test_sets import coupled, levels

from tests.training.data.picture_sets import SIZE, Columns, pictures, write_split
from training.config.data import DomainConfig
from training.data.dataset import load_pairs, load_split, load_training_sets


@pytest.fixture
def alphabet(tmp_path: Path) -> Path:
    """Return a table of true pairs: 40 rows of an upright, an italic and, not in each, a bold picture."""
    for split, first in (("train", 0), ("test", 200)):
        numbers = range(first, first + 40)
        columns: Columns = {
            "upright": pictures(*numbers),
            "italic": pictures(*numbers, size=(20, 28)),
            "bold": [*pictures(*numbers, size=(28, 20))[:30], *[None] * 10],
            "family": [f"f{number % 8}" for number in numbers],
        }
        write_split(tmp_path / "alphabet", split, columns)
    return tmp_path / "alphabet"


def letters(source: Path, **fields: Any) -> list[dict[str, Any]]:
    """Return domains of the columns of true pairs."""
    return [
        {"name": name, "source": str(source), "image_column": name} | fields for name in ("upright", "italic", "bold")
    ]


def test_a_row_goes_to_one_domain_alone(alphabet: Path, tmp_path: Path) -> None:
    """Columns of one table are pairs, also in a copy: no domain learns another one's counterpart."""
    shutil.copytree(alphabet, tmp_path / "copied")
    domains = letters(alphabet)
    domains[1]["source"] = str(tmp_path / "copied")
    shown = [levels(images) for images in load_training_sets(coupled(*domains)).values()]
    assert sorted(itertools.chain(*shown)) == list(range(40))
    assert [len(part) for part in shown] == [15, 15, 10]


def test_a_group_of_rows_goes_to_one_domain_alone(alphabet: Path) -> None:
    """All letters of a family do, and what is held out is of families that are not learned from."""
    shown = [levels(images) for images in load_training_sets(coupled(*letters(alphabet, group="family"))).values()]
    families = [{level % 8 for level in part} for part in shown]
    assert sorted(itertools.chain(*families)) == list(range(8))
    fields: dict[str, Any] = {"image_column": "upright", "group": "family", "held_out": 0.25}
    domain = DomainConfig("upright", source=str(alphabet), **fields)
    learned, measured = ({level % 8 for level in levels(load_split(domain, use, SIZE))} for use in ("train", "test"))
    assert (len(learned), len(measured)) == (6, 2)
    assert not learned & measured


def test_columns_that_only_share_a_table_are_no_pairs(alphabet: Path) -> None:
    """Sets of the hub that put unpaired images side by side are learned from whole."""
    sets = load_training_sets(coupled(*letters(alphabet, paired_columns=False)))
    assert [len(images.images) for images in sets.values()] == [40, 40, 30]
    assert load_pairs(coupled(*letters(alphabet, paired_columns=False))) == {}


def test_rows_that_are_held_out_are_so_in_all_columns(alphabet: Path) -> None:
    """No counterpart of a picture that is measured against is learned from, though a column has gaps."""
    domains = [DomainConfig(**fields) for fields in letters(alphabet, held_out=0.2)]
    measured = {level for domain in domains for level in levels(load_split(domain, "test", SIZE))}
    learned = {level for domain in domains for level in levels(load_split(domain, "train", SIZE))}
    assert not learned & measured
    assert len(measured) == 8


def test_the_pairs_of_test_rows_are_kept_to_measure(alphabet: Path, tmp_path: Path) -> None:
    """Images of one row are in one place of every domain; domains of other tables have none."""
    other = {"name": "other", "source": str(write_split(tmp_path / "other", "test", {"image": pictures(1)}))}
    pairs = load_pairs(coupled(*letters(alphabet), other))
    assert pairs.keys() == {"upright", "italic", "bold"}
    assert [levels(images) for images in pairs.values()] == [list(range(200, 230))] * 3
    assert load_pairs(coupled(other)) == {}
