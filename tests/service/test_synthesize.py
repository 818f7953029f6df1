"""cogan-synthesize makes the shards that the service serves, whole or not at all, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from service.errors import InvalidRequest
from service.storage import KEEP_PART_S, Storage
from service.synthesize import Synthesis, SynthesisError, synthesize
from tests.running import wait_until
from tests.service.conftest import DIRECTIONS

SMALL = {"pairs": 25, "size": 10, "processes": 1}
MakeModel = Callable[..., Path]


@pytest.fixture
def make(tiny_model: MakeModel, models_dir: Path, tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Return what makes a data set of a tiny model with a classifier, and returns its files."""
    tiny_model(("digit", "edge"))
    tiny_model(("digit",), name="reader", kind="classifier", goes_with=("tiny",))

    def make(to: str = "pairs", **options: object) -> dict[str, bytes]:
        place = to if not to or ":/" in to else str(tmp_path / to)
        fields = {"model": "tiny", "to": place, "models": models_dir} | SMALL | options
        synthesize(Synthesis.model_validate(fields))
        return files(tmp_path / to)

    return make


def files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, those of no name yet, too."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def whole(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder that are whole."""
    return {name: content for name, content in files(folder).items() if not name.startswith(".")}


def run(models_dir: Path, to: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command."""
    command = [sys.executable, "-m", "service.synthesize", "tiny", "--to", str(to), "--models", str(models_dir)]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


@pytest.mark.anyio
async def test_its_shards_are_those_of_the_service(
    make: Callable[..., dict[str, bytes]], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Both have the same bytes, with filters and labels as well."""
    made = make(class_name="two", labels=True)
    served = await connect().get("/shards/1.tar?size=10&class=two&labels=true")
    assert made["000001.tar"] == served.content
    assert sorted(made) == ["000000.tar", "000001.tar", "000002.tar", "README.md", "manifest.json"]


@pytest.mark.anyio
async def test_directions_are_those_of_the_service(
    tiny_model: MakeModel, models_dir: Path, tmp_path: Path, connect: Callable[..., httpx.AsyncClient]
) -> None:
    """The manifest has them, and without them the shards would be others."""
    tiny_model(directions=DIRECTIONS)
    fields = {"model": "tiny", "to": str(tmp_path / "pairs"), "models": models_dir, "pairs": 5, "processes": 1}
    synthesize(Synthesis.model_validate(fields | {"directions": "thickness:-1,1:2"}))
    served = await connect().get("/shards/0.tar?size=5&directions=1:2,thickness:-1")
    assert (tmp_path / "pairs" / "000000.tar").read_bytes() == served.content
    assert json.loads((tmp_path / "pairs" / "manifest.json").read_text())["directions"] == {"1": 2.0, "2": -1.0}
    with pytest.raises(SynthesisError, match=r"is of other pairs: directions \{'1': 2.0"):
        synthesize(Synthesis.model_validate(fields))


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_processes_and_parts_change_nothing(make: Callable[..., dict[str, bytes]], form: str) -> None:
    """One process, two, and two parts made one after the other give the same files."""
    alone = make("alone", format=form)
    assert make("two", format=form, processes=2) == alone
    first = make("parts", format=form, shards="1/2")
    assert "README.md" not in first  # as shards are missing
    assert make("parts", format=form, shards="2/2") == alone


def test_the_manifest_says_what_determines_the_bytes(make: Callable[..., dict[str, bytes]]) -> None:
    """It has the digests of models and shards, filters and quality; the card has licence and size."""
    made = make(agree=True)
    manifest = json.loads(made["manifest.json"])
    assert manifest["filters"] == {"class": None, "min_confidence": 0.0, "agree": True}
    assert manifest["classifiers"]["digit"]["name"] == "reader"
    assert manifest["quality"] == {"pixel_agreement": 0.96}
    assert [shard["name"] for shard in manifest["shards"]] == ["000000.tar", "000001.tar", "000002.tar"]
    card = made["README.md"].decode()
    assert card.startswith("---\n")
    assert "size_categories: [n<1K]" in card
    assert "none: made for tests" in card
    assert "of each the first of 1,000 candidates that passes, if one does; filters: agree True" in card


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "parquet"])
def test_pairs_that_the_filters_leave_out_are_counted(
    make: Callable[..., dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    """A seed without a pair is no failure, and is said."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("service.generation.pairs.MAX_CANDIDATES", 2)
    make("all", format=form)
    assert capsys.readouterr().out == ""
    made = make("some", format=form, class_name="two")
    told = re.fullmatch(r"(\d+) of 25 seeds have no pair that.*: (\d+) pairs were made\n", capsys.readouterr().out)
    assert told
    assert int(told[1]) + int(told[2]) == 25
    images = sum(name.endswith("digit.png") for name in made)
    assert int(told[2]) == images if form == "imagefolder" else 0 < int(told[2]) < 25


@pytest.mark.parametrize("processes", ["1", "2"])
def test_after_a_kill_the_rest_is_made(tiny_model: MakeModel, models_dir: Path, tmp_path: Path, processes: str) -> None:
    """Killed in the middle and started again, it leaves the files of a run that nobody killed."""
    tiny_model(("digit", "edge"), turns=10_000)
    options = ("--pairs", "400", "--size", "20", "--processes", processes)
    for _ in range(5):  # this process may be halted until all is made
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        killed = run(models_dir, tmp_path / "killed", *options)
        wait_until((tmp_path / "killed" / "000001.tar").exists)
        killed.kill()
        killed.communicate()
        if "README.md" not in (made := files(tmp_path / "killed")):
            break
    assert "README.md" not in made
    before = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in made if name.endswith("0.tar")}
    for folder in ("killed", "whole"):
        again = run(models_dir, tmp_path / folder, *options)
        _, errors = again.communicate(timeout=100)
        assert again.returncode == 0, errors
    assert whole(tmp_path / "killed") == files(tmp_path / "whole")
    kept = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in before}
    assert kept == before


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_runs_may_overlap(make: Callable[..., dict[str, bytes]], models_dir: Path, tmp_path: Path, form: str) -> None:
    """Two runs of one command at the same time leave the files of one."""
    options = ("--pairs", "300", "--size", "10", "--processes", "1", "--format", form)
    runs = [run(models_dir, tmp_path / "both", *options) for _ in range(2)]
    for one in runs:
        _, errors = one.communicate(timeout=100)
        assert one.returncode == 0, errors
    assert files(tmp_path / "both") == make("alone", pairs=300, format=form)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_shard_that_two_write_is_whole(tmp_path: Path, form: str) -> None:
    """Each has a part of its own, though one begins and ends in the middle of the other, and both have its digest."""
    storage = Storage(str(tmp_path / "pairs"))

    def write(path: Path, meanwhile: Callable[[], object]) -> None:
        if form == "folder":
            path.mkdir()
            path /= "metadata.jsonl"
        with path.open("wb") as file:
            file.write(b"one ")
            meanwhile()
            file.write(b"two")

    def put(meanwhile: Callable[[], object]) -> None:
        digests.append(storage.put("x", lambda path: write(path, meanwhile)))

    digests = list[str]()
    put(lambda: put(lambda: None))
    assert digests == [storage.digest("x")] * 2
    assert list(files(tmp_path / "pairs").values()) == [b"one two"]


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its part is removed, a file as well as a folder."""
    storage = Storage(str(tmp_path / "pairs"))

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "0.digit.png").write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.put("000000", fail)
    with pytest.raises(ZeroDivisionError):
        storage.put("000000.tar", lambda path: path.write_bytes(b"half") / 0)
    assert list((tmp_path / "pairs").iterdir()) == []


def test_old_parts_of_killed_runs_are_removed(make: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    """Those of a run that may still write stay, and so does whatever else is hidden."""
    make()
    part, mine = f".000001.tar.{'a' * 32}.part", ".mine.part"
    old, fresh = tmp_path / "pairs" / part, tmp_path / "pairs" / part.replace("a", "b")
    folder = tmp_path / "pairs" / f".000001.{'c' * 32}.part"
    folder.mkdir()
    for path in (old, fresh, folder / "1.digit.png", tmp_path / "pairs" / mine):
        path.write_bytes(b"half")
    long_ago = time.time() - KEEP_PART_S - 60
    for path in (old, folder, tmp_path / "pairs" / mine):
        os.utime(path, (long_ago, long_ago))
    assert {name for name in make() if name.startswith(".")} == {fresh.name, mine}


def test_shards_of_other_pairs_are_left_alone(make: Callable[..., dict[str, bytes]]) -> None:
    """Other filters in the same folder are refused, with what differs."""
    before = make()
    with pytest.raises(SynthesisError, match=r"size 10; choose another place"):
        make(size=5)
    assert make() == before


def test_a_plan_without_shards_is_not_called_shards(make: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    """A part may have none of few shards; the error names its manifest, and that it can be removed."""
    assert list(make(pairs=2, shards="3/3")) == ["manifest.json"]
    with pytest.raises(SynthesisError, match=r"/manifest\.json is of other pairs: pairs 2; .+ or remove it"):
        make(pairs=3)
    (tmp_path / "pairs" / "manifest.json").unlink()
    assert "README.md" in make(pairs=3)


def test_notes_on_a_card_stay(make: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    """Also those in a README.md of one's own that was there before the last shard."""
    make()
    card = tmp_path / "pairs" / "README.md"
    card.write_text(card.read_text() + "my note\n")
    assert make()["README.md"].endswith(b"my note\n")
    make("parts", shards="1/2")
    (tmp_path / "parts" / "README.md").write_text("MY OWN")
    assert make("parts", shards="2/2")["README.md"] == b"MY OWN"


@pytest.mark.parametrize(
    ("data_license", "name"),
    [
        ("drawings, CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("photos CC BY 4.0, drawings CC BY 4.0", "cc-by-4.0"),
        ("photos CC BY 4.0, drawings CC BY-NC-ND 4.0", "other"),
        ("photos CC BY 4.0; drawings, for research alone", "other"),
    ],
)
def test_a_card_names_a_licence_only_if_all_data_have_it(
    make: Callable[..., dict[str, bytes]], tiny_model: MakeModel, data_license: str, name: str
) -> None:
    """Of several licences none holds alone, so the hub gets `other` and the sentence."""
    tiny_model(("digit", "edge"), name="mixed", data_license=data_license)
    card = make(model="mixed")["README.md"].decode()
    assert f"\nlicense: {name}\n" in card
    assert (f'license_name: "{data_license}"' in card) == (name == "other")


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_a_damaged_shard_is_named(make: Callable[..., dict[str, bytes]], tmp_path: Path, form: str) -> None:
    """Its recorded digest stays, and the error says that removing it is enough."""
    before = make(format=form)
    shard = tmp_path / "pairs" / ("000000.tar" if form == "webdataset" else "000000")
    if form == "webdataset":
        os.truncate(shard, 0)
    else:
        (shard / "3.edge.png").unlink()
    digest = "sha256:[0-9a-f]{64}"
    wrong = rf"damaged shards: {shard.name} \(recorded {digest}, found {digest}\); remove .+ the same command makes it"
    with pytest.raises(SynthesisError, match=wrong):
        make(format=form)
    assert (tmp_path / "pairs" / "manifest.json").read_bytes() == before["manifest.json"]
    shutil.rmtree(shard) if form == "imagefolder" else shard.unlink()
    assert make(format=form) == before


def test_a_file_is_on_the_disk_before_it_has_its_name(
    make: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power failure could leave an empty file with a name that says it is whole."""
    flushed, flush, replace = set[int](), os.fsync, Path.replace

    def note(descriptor: int) -> None:
        flush(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def check(part: Path, target: Path) -> Path:
        parts = [path for path in (part, *part.rglob("*")) if path.is_file()]
        assert parts
        assert {path.stat().st_ino for path in parts} <= flushed
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", check)
    for form in ("webdataset", "imagefolder"):
        assert "README.md" in make(form, format=form)


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_file_url_is_a_folder(make: Callable[..., dict[str, bytes]], tmp_path: Path, host: str) -> None:
    """It has the same files, whole or not at all."""
    make(to=f"file://{host}{tmp_path}/a%20place")
    assert files(tmp_path / "a place") == make()


@pytest.mark.parametrize("call", ["find", "cat_file", "get", "put_file"])
def test_errors_of_a_store_are_one_line(
    make: Callable[..., dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Each library has errors of its own, in whichever call, and none is an OSError."""
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    make(to=f"memory://{tmp_path}")
    if call == "put_file":
        memory().rm(f"{tmp_path}/000001.tar")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nroute")

    monkeypatch.setattr(memory, call, fail)
    with pytest.raises(SynthesisError, match=r"--to memory://\S+: RuntimeError: no route; check .+ goes on$"):
        make(to=f"memory://{tmp_path}")


def test_an_object_store_without_credentials_is_one_line(
    make: Callable[..., dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line has the name of the error and what to check."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'cogan[test-datasets]'")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SynthesisError, match=r"--to s3://bucket/x: NoCredentialsError: .+; check the .+, credentials"):
        make(to="s3://bucket/x")


def test_a_killed_process_is_one_line(tiny_model: MakeModel, models_dir: Path, tmp_path: Path) -> None:
    """It says that memory may lack, with status 2, and the same command goes on."""
    tiny_model(("digit", "edge"), turns=200_000)
    options = ("--pairs", "400", "--size", "20", "--processes", "2")
    ran = run(models_dir, tmp_path / "pairs", *options)
    wait_until((tmp_path / "pairs" / "000001.tar").exists)
    children = Path(f"/proc/{ran.pid}/task/{ran.pid}/children").read_text().split()
    worker = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(worker), signal.SIGKILL)
    _, errors = ran.communicate(timeout=60)
    assert ran.returncode == 2, errors
    assert "--processes 2: a process was killed, perhaps for want of memory; take fewer" in errors
    assert "Traceback" not in errors


def test_a_store_with_real_folders_gets_them(make: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    """Those above the data set, and those of its shards."""
    make(to=f"local://{tmp_path}/a/place", format="imagefolder")
    assert files(tmp_path / "a" / "place") == make(format="imagefolder")


@pytest.mark.parametrize(
    ("options", "package", "message"),
    [
        (
            {"format": "parquet"},
            "pyarrow",
            r"--format parquet needs, in a checkout: pip install -e '\.\[cpu,datasets\]'",
        ),
        ({"engine": "ray"}, "ray", r"--engine ray needs, in a checkout: pip install -e '\.\[cpu,ray\]'"),
    ],
)
def test_a_missing_package_is_named_first(
    make: Callable[..., dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    package: str,
    message: str,
) -> None:
    """Before anything is written."""
    for name in {package, *(one for one in sys.modules if one.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SynthesisError, match=message):
        make(**options)
    assert not (tmp_path / "pairs").exists()


def test_labels_without_classifiers_have_no_column(make: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    """Parquet has no type for labels of no domain."""
    parquet = pytest.importorskip("pyarrow.parquet")
    make(format="parquet", labels=True, domains=["edge"])
    assert parquet.read_table(tmp_path / "pairs" / "000000.parquet").column_names == ["edge", "seed", "index", "digest"]
    make("others", format="parquet", labels=True)
    names = parquet.read_table(tmp_path / "others" / "000000.parquet").column_names
    assert names == ["digit", "edge", "seed", "index", "digest", "labels", "agree"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs", b"a file", r"--to .+/pairs: (File exists|Not a directory) .+; choose a place that can be written"),
        ("pairs/manifest.json", b"{", r"manifest\.json is no manifest of shards \(.+\); choose another place"),
        ("pairs/manifest.json", b"[]", r"it is no JSON object"),
        (
            "pairs/manifest.json",
            b'{"name": "My app"}',
            r"it has no 'model', so another program .+; choose another place",
        ),
        ("pairs/manifest.json/x", b"", r"is no manifest of shards"),
        ("pairs/README.md", b"MY OWN", r"has README\.md and no manifest\.json, .+, or move README\.md"),
        ("pairs/000001.tar", b"", r"has 000001\.tar and no manifest\.json"),
    ],
)
def test_a_place_that_holds_something_else_is_named(
    make: Callable[..., dict[str, bytes]], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """The error is one line with the place, the cause and the remedy, and nothing is changed."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SynthesisError, match=message):
        make()
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": ""}, ValidationError, "to"),
        ({"truncation": float("inf")}, ValidationError, "truncation"),
        ({"model": "nobody"}, SynthesisError, "no generator 'nobody'.*there are tiny"),
        ({"model": "reader"}, SynthesisError, "no generator 'reader'"),
        ({"shards": "3/2"}, SynthesisError, "allowed are 1/2 to 2/2"),
        ({"class_name": "nine"}, InvalidRequest, "those of domain 'digit' are zero, one, two"),
        ({"domains": ["edge"], "agree": True}, InvalidRequest, "no classifier of edge goes with model 'tiny'"),
        ({"domains": ["dog"]}, InvalidRequest, "are digit, edge"),
        ({"domains": []}, ValidationError, "at least 1 item"),
        ({"to": "nowhere://x"}, SynthesisError, "--to nowhere://x: ValueError: Protocol not known"),
        ({"to": "s3:/bucket/x"}, SynthesisError, "--to s3:/bucket/x: it is no URL; write s3://"),
        ({"to": "file://pairs/x"}, SynthesisError, "--to file://pairs/x: 'pairs' is read as a host.*write file:///"),
        ({"models": "hf://USER/models"}, ValidationError, "allowed is a folder; copy the models of a URL to one"),
        ({"models": Path("/nowhere")}, SynthesisError, "--models /nowhere: the models folder '/nowhere' cannot be"),
    ],
)
def test_bad_input_is_named(
    make: Callable[..., dict[str, bytes]], options: dict[str, object], error: type[Exception], message: str
) -> None:
    """What does not fit is refused before any work."""
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--pairs", "0"), ("--size", "0"), ("--format", "csv"), ("--shards", "0/2")),
        *(("--min-confidence", "2"), ("--directions", "foo"), ("--directions", "1:11")),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, option: str, value: str) -> None:
    """A wrong option is status 2 and a line that names it."""
    options = {"--pairs": "5"} | {option: value}
    process = run(tmp_path, tmp_path / "pairs", *(word for pair in options.items() for word in pair))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith(f"cogan-synthesize: {option} '{value}': ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors


def test_the_command_names_its_own_options(models_dir: Path, tiny_model: MakeModel, tmp_path: Path) -> None:
    """An option that does not fit the model is named as it was typed, not as a field of a request."""
    tiny_model(("digit",))
    for option, value in (("--domains", "nope"), ("--class", "one")):
        _, errors = run(models_dir, tmp_path / "pairs", "--pairs", "5", option, value).communicate(timeout=60)
        assert f"cogan-synthesize: {option} {value}: " in errors


def test_its_memory_is_bounded(tiny_model: MakeModel, models_dir: Path, tmp_path: Path) -> None:
    """The resident memory of one process stays below 400 MB, also with large shards."""
    tiny_model(("digit", "edge"))
    process = run(models_dir, tmp_path / "pairs", "--pairs", "20000", "--size", "20000", "--processes", "1")
    most = 0
    while process.poll() is None:  # not by wait4: its figure includes this process, which the other is forked from
        with contextlib.suppress(OSError, TypeError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]  # none while it ends
        time.sleep(0.05)
    process.communicate()
    assert process.returncode == 0
    assert 0 < most < 400 * 1024
