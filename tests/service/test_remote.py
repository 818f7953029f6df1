"""Models from a URL: copied from a real S3 server, checked, kept while it is away, never served by halves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fsspec.core import url_to_fs

from service.errors import SettingsError
from service.remote import COPIES, DIGEST, PART, ModelStore, StoreError, local_models
from service.settings import Settings
from tests.conftest import write_model
from tests.running import START, Service, killed

URL = "s3://bucket/models"
VARIABLES = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """A bucket of an S3 server that is a process of its own."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.endpoint, self.process = f"http://127.0.0.1:{port}", process
        self.files, _ = url_to_fs(URL, endpoint_url=self.endpoint, skip_instance_cache=True)

    def put(self, path: str, content: bytes) -> None:
        """Write an object, whole."""
        self.files.pipe_file(f"{URL}/{path}", content)

    def upload(self, path: str, model: Path) -> None:
        """Upload a model and its digest."""
        self.put(path, model.read_bytes())
        self.put(path + DIGEST, f"{hashlib.sha256(model.read_bytes()).hexdigest()}  model.onnx\n".encode())

    def remove(self, path: str) -> None:
        """Remove an object."""
        self.files.rm_file(f"{URL}/{path}")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run an S3 server on a free port."""
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", "0"]
    with killed(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "Running on" in line)
        yield int(line.rpartition(":")[2]), process


@pytest.fixture
def bucket(server: tuple[int, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Give an empty bucket, which the service's variables lead to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server[0]}")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(*server)
    bucket.files.mkdir("bucket")
    yield bucket
    with suppress(ProcessLookupError):
        os.kill(bucket.process.pid, signal.SIGCONT)
    bucket.files.rm("bucket", recursive=True)


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> ModelStore:  # noqa: ARG001  # it is there
    """Return the store of the bucket, with an empty folder of copies."""
    return ModelStore(URL, tmp_path / "copies")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a tiny model outside the folder of copies."""
    return lambda **changes: write_model(tmp_path / "made", **changes)


def copies(tmp_path: Path) -> list[str]:
    """Return the files of the folder of copies, without the list of them."""
    folder = tmp_path / "copies"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != COPIES)


def test_models_are_copied_and_removed_as_in_the_store(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """Every version is copied, byte by byte, and what is no model is not; what the store no longer holds goes."""
    first, second = make(), make(version="2")
    bucket.upload("tiny/1/model.onnx", first)
    bucket.put("tiny/README.md", b"# tiny")
    bucket.put("tiny/x/model.onnx", b"no version")
    store.copy()
    assert copies(tmp_path) == ["tiny/1/model.onnx"]
    assert (tmp_path / "copies/tiny/1/model.onnx").read_bytes() == first.read_bytes()
    bucket.put("tiny/2/model.onnx", second.read_bytes())  # without a digest
    bucket.remove("tiny/1/model.onnx")
    store.copy()
    assert copies(tmp_path) == ["tiny/2/model.onnx"]


def test_what_has_not_changed_is_not_copied_again(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """A second look leaves the file alone, so that the service does not load it again."""
    bucket.upload("tiny/1/model.onnx", make())
    store.copy()
    before = (tmp_path / "copies/tiny/1/model.onnx").stat()
    store.copy()
    assert (tmp_path / "copies/tiny/1/model.onnx").stat() == before


def test_a_published_folder_is_one_model(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """Versions at the top of the URL, as a hub's repository has them, get the name of their metadata."""
    bucket.upload("1/model.onnx", make(name="pairs"))
    store.copy()
    assert copies(tmp_path) == ["pairs/1/model.onnx"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_half_upload_is_not_served(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path, share: float
) -> None:
    """Cut anywhere, with or without a digest, it is refused, and nothing else changes until it is whole."""
    bucket.upload("tiny/1/model.onnx", make())
    store.copy()
    second = make(version="2")
    whole = second.read_bytes()
    for digest in (False, True):
        bucket.upload("tiny/2/model.onnx", second)
        if not digest:
            bucket.remove("tiny/2/model.onnx" + DIGEST)
        bucket.put("tiny/2/model.onnx", whole[: int(share * len(whole))])
        bucket.files.rm_file(f"{URL}/tiny/1/model.onnx")  # and the old version goes before the new one is there
        with pytest.raises(StoreError, match=r"tiny/2/model.onnx is not served"):
            store.copy()
        assert copies(tmp_path) == ["tiny/1/model.onnx"]
    bucket.upload("tiny/2/model.onnx", second)
    store.copy()
    assert copies(tmp_path) == ["tiny/2/model.onnx"]


def test_a_wrong_digest_is_refused(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """A whole, valid model whose bytes are not those that the digest names is not taken."""
    bucket.put("tiny/1/model.onnx", make().read_bytes())
    bucket.put("tiny/1/model.onnx" + DIGEST, b"0" * 64 + b"  model.onnx\n")
    with pytest.raises(StoreError, match=r"its digest is [0-9a-f]{64}, and .sha256 beside it says 000"):
        store.copy()
    assert copies(tmp_path) == []


def test_an_emptied_store_changes_nothing(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """No model at all is taken for a wrong URL or a store in trouble."""
    bucket.upload("tiny/1/model.onnx", make())
    store.copy()
    bucket.remove("tiny/1/model.onnx")
    with pytest.raises(StoreError, match=f"{URL} holds no <name>/<version>/model.onnx"):
        store.copy()
    assert copies(tmp_path) == ["tiny/1/model.onnx"]


def test_a_kept_copy_is_served_while_the_store_is_away(
    bucket: Bucket, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With COGAN_MODELS_CACHE a start needs the store only once; without a copy it fails and says why."""
    bucket.upload("tiny/1/model.onnx", make())
    cached = Settings(models_dir=URL, models_cache=tmp_path / "copies")
    with local_models(cached) as folder:
        assert folder == tmp_path / "copies"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with local_models(cached):
        assert copies(tmp_path) == ["tiny/1/model.onnx"]
    with pytest.raises(StoreError, match=f"{URL} cannot be read"), local_models(Settings(models_dir=URL)):
        pass


def test_a_cache_with_other_models_is_refused(bucket: Bucket, make: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing is removed from it, and the error names the variable and a model."""
    bucket.upload("tiny/1/model.onnx", make())
    other = write_model(tmp_path / "copies", name="other")
    with (
        pytest.raises(SettingsError, match=r"COGAN_MODELS_CACHE = '.+': it has other/1/model\.onnx, which was not"),
        local_models(Settings(models_dir=URL, models_cache=tmp_path / "copies")),
    ):
        pass
    assert copies(tmp_path) == [str(other.relative_to(tmp_path / "copies"))]


def test_models_that_were_not_copied_stay(
    bucket: Bucket, store: ModelStore, make: Callable[..., Path], tmp_path: Path
) -> None:
    """A model that is added to the folder by hand is neither removed nor replaced, and the error says so."""
    bucket.upload("tiny/1/model.onnx", make())
    store.copy()
    other = write_model(tmp_path / "copies", name="other")
    before = other.read_bytes()
    store.copy()
    assert copies(tmp_path) == ["other/1/model.onnx", "tiny/1/model.onnx"]
    bucket.upload("other/1/model.onnx", make(name="other", quality={"pixel_agreement": 1.0}))
    with pytest.raises(StoreError, match=r"other/1/model\.onnx is there, and was not copied from a URL"):
        store.copy()
    assert other.read_bytes() == before


def test_what_a_killed_start_left_is_copied_anew(bucket: Bucket, make: Callable[..., Path], tmp_path: Path) -> None:
    """Neither a half file nor a listed copy that never came is a model of somebody else."""
    bucket.upload("1/model.onnx", make())
    (tmp_path / "copies" / PART / "1").mkdir(parents=True)
    (tmp_path / "copies" / PART / "1" / "model.onnx").write_bytes(b"half")
    (tmp_path / "copies" / COPIES).write_text('["tiny/1/model.onnx"]')
    for _ in range(2):
        with local_models(Settings(models_dir=URL, models_cache=tmp_path / "copies")):
            assert copies(tmp_path) == ["tiny/1/model.onnx"]


@pytest.mark.parametrize("content", ["{", "1", "[[]]"])
def test_a_damaged_list_of_copies_is_named(tmp_path: Path, content: str) -> None:
    """Without the list nobody knows what was copied."""
    (tmp_path / COPIES).write_text(content)
    with pytest.raises(SettingsError, match=r"is no list of copied models; name an empty folder"):
        ModelStore(URL, tmp_path)


@pytest.mark.parametrize("url", ["none://bucket/models", "sftp2://host/models"])
def test_an_unknown_protocol_is_a_wrong_setting(url: str, tmp_path: Path) -> None:
    """The error names the variable, its value and the remedy."""
    with pytest.raises(SettingsError, match=rf"COGAN_MODELS_DIR = '{url}': .* install the extra `remote`"):
        ModelStore(url, tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_service_follows_the_store(
    bucket: Bucket, make: Callable[..., Path], start: Callable[..., Service], processes: int
) -> None:
    """It serves a new version of the store soon, and goes on while the store hangs."""
    bucket.upload("tiny/1/model.onnx", make())
    service = start({"COGAN_MODELS_DIR": URL}, models_refresh_s=0.2, processes=processes)

    def version() -> str:
        return str(httpx.post(f"{service.url}/generate", json={"seed": 1}).json()["version"])

    assert version() == "1"
    bucket.upload("tiny/2/model.onnx", make(version="2"))
    end = time.monotonic() + START
    while {version() for _ in range(8)} != {"2"}:
        assert time.monotonic() < end
        time.sleep(0.05)
    bucket.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    assert version() == "2"
    service.process.terminate()
    assert service.process.wait(START) == 0


@pytest.mark.usefixtures("bucket")
def test_a_start_without_the_store_ends_in_one_line() -> None:
    """Nothing was ever copied, so there is nothing to serve."""
    environment = os.environ | {"COGAN_MODELS_DIR": "s3://nothing/here", "COGAN_PORT": "0"}
    command = [sys.executable, "-m", "service"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=START)
    assert ended.returncode == 2
    *logged, last = ended.stderr.splitlines()
    assert last.startswith("cogan-serve: s3://nothing/here ")
    assert all(json.loads(line) for line in logged)  # what the store's library reports
