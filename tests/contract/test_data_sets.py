"""Data sets of pairs as people's own tools read them: `datasets`, `webdataset`, a torch loader; S3; Ray."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.synthesize import Synthesis, synthesize
from tests.contract.committed import MODELS
from tests.running import Service, services

pytest.importorskip("webdataset", reason="webdataset is not installed: pip install 'cogan[test-datasets]'")
import webdataset  # after the line that skips without it

pytestmark = [
    pytest.mark.timeout(300),  # seconds: other people's libraries take a while to start
    pytest.mark.filterwarnings("default"),  # theirs
]
OPTIONS: dict[str, Any] = {"model": "digit_edge", "models": MODELS, "pairs": 30, "size": 10, "processes": 1}
DOCUMENT = (Path(__file__).parents[2] / "docs/data_sets.md").read_text()


@pytest.fixture(scope="module")
def served() -> Iterator[Service]:
    """Serve the committed models."""
    with services(MODELS) as start:
        yield start()


def make(to: Path | str, **options: Any) -> str:
    """Make a small data set of the committed digits and edges, and return where it is."""
    synthesize(Synthesis.model_validate(OPTIONS | {"to": str(to)} | options))
    return str(to)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "parquet"])
def test_datasets_reads_every_format(tmp_path: Path, form: str) -> None:
    """`load_dataset` on the folder gives a column of images a domain, and seeds, classes and agreement."""
    import datasets

    make(tmp_path / form, format=form, labels=True, agree=True)
    found = datasets.load_dataset(make(tmp_path / form, format=form, labels=True, agree=True))["train"]
    assert len(found) == 30
    suffix = ".png" if form == "webdataset" else ""
    rows = sorted(((row.get("json", row), row) for row in found), key=lambda pair: pair[0]["seed"])  # in any order
    for i, (facts, row) in enumerate(rows):
        assert facts["seed"] == i
        assert facts["agree"] is True
        assert facts["labels"]["digit"]["class"] == facts["labels"]["edge"]["class"]
        assert (row[f"digit{suffix}"].size, row[f"edge{suffix}"].size) == ((28, 28), (28, 28))


def test_all_formats_have_the_same_pixels(tmp_path: Path) -> None:
    """A pair is the same in a tar, in a folder and in a table."""
    import datasets

    columns = []
    for form in ("webdataset", "imagefolder", "parquet"):
        found = datasets.load_dataset(make(tmp_path / form, format=form))["train"]
        pairs = [
            (row["json"]["seed"], row["edge.png"]) if "json" in row else (row["seed"], row["edge"]) for row in found
        ]
        columns.append(np.stack([np.asarray(image) for _, image in sorted(pairs, key=lambda pair: pair[0])]))
    assert all(np.array_equal(columns[0], other) for other in columns[1:])


def test_webdataset_and_torch_read_a_running_service(served: Service) -> None:
    """Shards by URL go through a torch loader with workers, in batches of tensors."""
    import torch

    url = f"{served.url}/shards/{{000000..000001}}.tar?model=digit_edge&size=20&labels=true&class=7"
    loaded = webdataset.WebDataset(url, shardshuffle=False).decode("torch").to_tuple("digit.png", "edge.png", "json")
    batches = list(torch.utils.data.DataLoader(loaded.batched(8), batch_size=None, num_workers=1))
    assert sum(len(facts) for _, _, facts in batches) == 40
    for digit, edge, facts in batches:
        assert digit.shape == edge.shape == (len(facts), 3, 28, 28)
        assert {one["labels"]["digit"]["class"] for one in facts} == {"7"}


def test_both_readers_pass_over_the_list_of_skipped_seeds(tmp_path: Path) -> None:
    """A shard with filters has a last member that is no sample of `webdataset` nor a row of `datasets`."""
    import datasets

    folder = make(tmp_path / "pairs", class_name="7", min_confidence=0.9)
    loaded = list(webdataset.WebDataset(f"{folder}/{{000000..000002}}.tar", shardshuffle=False))
    assert [one["__key__"] for one in loaded] == [str(seed) for seed in range(30)]
    assert len(datasets.load_dataset(folder)["train"]) == 30


def test_datasets_streams_from_a_running_service(served: Service) -> None:
    """`load_dataset` by URL, streamed, gives the pairs of two shards one after the other."""
    import datasets

    urls = [f"{served.url}/shards/{number:06d}.tar?model=digit_edge&size=6" for number in range(2)]
    found = datasets.load_dataset("webdataset", data_files={"train": urls}, split="train", streaming=True)
    assert [row["json"]["seed"] for row in found] == list(range(12))


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """Run an S3 server, moto's, and return the file system of it."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'cogan[test-datasets]'")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'cogan[test-datasets]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    account = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (account | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            patch.setenv(name, value)
        try:
            _wait_for(f"http://127.0.0.1:{port}")
            yield s3fs.S3FileSystem()
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str) -> None:
    for _ in range(600):
        try:
            httpx.get(address, timeout=1)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"{address} did not answer within 60 s")


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "parquet"])
def test_an_object_store_gets_the_same_files(store: Any, tmp_path: Path, form: str) -> None:
    """Made on S3 in two parts, a data set has the files of a local folder; starting again makes nothing again."""
    make(tmp_path / "local", format=form)
    store.mkdir(form)
    for part in ("1/2", "2/2"):
        make(f"s3://{form}/pairs", format=form, shards=part)
    before = store.find(f"{form}/pairs", detail=True)
    make(f"s3://{form}/pairs", format=form)
    store.invalidate_cache()
    after = store.find(f"{form}/pairs", detail=True)
    again = {name for name in after if after[name]["LastModified"] != before[name]["LastModified"]}
    assert again <= {f"{form}/pairs/manifest.json", f"{form}/pairs/README.md"}
    assert {name.removeprefix(f"{form}/pairs/"): store.cat_file(name) for name in after} == files(tmp_path / "local")


def test_ray_makes_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a local Ray cluster of two actors, the bytes are those of one process."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'cogan[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    make(tmp_path / "alone", labels=True)
    try:
        ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
        make(tmp_path / "ray", labels=True, engine="ray", processes=2)
    finally:
        ray.shutdown()
    assert files(tmp_path / "ray") == files(tmp_path / "alone")


def _recipe(title: str, language: str) -> str:
    section = DOCUMENT.split(f"## {title}")[1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, title
    return found[1]


@pytest.mark.parametrize(
    ("title", "language"),
    [("Download with curl", "sh"), ("Stream into a torch loader", "python"), ("Train pix2pix", "python")],
)
def test_the_recipes_of_the_document_run(served: Service, tmp_path: Path, title: str, language: str) -> None:
    """Each is run as it is printed, but for the address and a small number of pairs."""
    text = _recipe(title, language).replace("http://localhost:8000", served.url)
    text = text.replace("size=1000", "size=20").replace("--pairs 20_000", "--pairs 64 --processes 1")
    text = text.replace("digit_edge --", f"digit_edge --models {MODELS} --")
    script = tmp_path / "bin" / "cogan-synthesize"  # as an installation makes it
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.synthesize "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
