"""`cogan-synthesize`: a data set of pairs in shards, without a server. It may stop at any time, and be started again.

cogan-synthesize digit_edge --pairs 1_000_000 --to pairs/
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source
from tqdm import tqdm

from service.card import write_card
from service.engine.models import ModelRepository
from service.engine.onnx_model import OnnxModel, require_provider
from service.errors import RequestError, StartError
from service.generation.files import FORMATS
from service.generation.generator import check_domains
from service.generation.images import ENCODER_ID
from service.generation.pairs import check_filters, classifiers_of
from service.generation.shards import ShardSpec
from service.generation.spec import Filters, GenerationSpec
from service.generation.storage import Storage
from service.latents import MAX_SEED, MIN_TRUNCATION
from service.metadata import describe_errors
from service.settings import available_cpus

MANIFEST, CARD = "manifest.json", "README.md"


class SynthesisError(StartError):
    """The data set cannot be made; the command exits with status 2."""


class Synthesis(BaseSettings):
    """Generate pairs of a model into a folder or URL, in shards. Started again, it goes on where it stopped."""

    model_config = SettingsConfigDict(
        cli_prog_name="cogan-synthesize",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
        frozen=True,
        populate_by_name=True,
    )

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # it is called by names, and needs one of them
        cls, _: object, *, init_settings: Source, **__: object
    ) -> tuple[Source, ...]:
        """Read the command line alone: a variable such as SIZE is somebody else's."""
        return (init_settings,)

    model: CliPositionalArg[str]
    """Name of the generator."""
    pairs: int = Field(ge=1, le=MAX_SEED)
    """Pairs: of each seed from 0 on one. With filters, fewer if no candidate of a seed passes."""
    to: str
    """Folder or URL (s3://, gs://, hf://) to write to."""
    format: Literal["webdataset", "imagefolder", "parquet"] = "webdataset"
    """Tars of images and JSON, folders of images and metadata.jsonl, or parquet tables."""
    size: int = Field(default=1000, ge=1, le=100_000)
    """Pairs of a shard."""
    shards: Annotated[str, Field(pattern="^[1-9][0-9]*/[1-9][0-9]*$")] = "1/1"
    """Which part of the shards to make here: 3/10 is the third of ten."""
    domains: list[str] | None = None
    """Domains, in this order; otherwise all."""
    truncation: float | None = Field(default=None, ge=MIN_TRUNCATION)
    """Bound on every value of a latent."""
    labels: bool = False
    """Whether to label the images: class, confidence, agreement."""
    class_name: str | None = Field(default=None, alias="class")
    """Take pairs of this class only, in the first domain that has a classifier."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Take pairs with at least this confidence in every domain that has a classifier."""
    agree: bool = False
    """Take pairs whose classes are equal."""
    models: Path = Path("models")
    """Folder that holds <name>/<version>/model.onnx."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """Where models run."""
    processes: int = Field(default_factory=available_cpus, ge=1)
    """Processes (with ray: actors) that share the work; by default the processors."""
    engine: Literal["local", "ray"] = "local"
    """local processes, or the Ray cluster that `ray.init()` finds."""

    @property
    def numbers(self) -> range:
        """Numbers of all shards of the data set."""
        return range(-(-self.pairs // self.size))

    @property
    def own(self) -> range:
        """Numbers of the shards to make here. Raises SynthesisError for a part that does not exist."""
        part, parts = map(int, self.shards.split("/"))
        if part > parts:
            raise SynthesisError(f"--shards {self.shards}: allowed are 1/{parts} to {parts}/{parts}")
        return self.numbers[part - 1 :: parts]

    def name(self, number: int) -> str:
        """Return the name of a shard."""
        return f"{number:06d}{FORMATS[self.format].suffix}"


class ShardWriter:
    """Makes shards of a data set, in whichever process; the models are opened once."""

    def __init__(self, synthesis: Synthesis) -> None:
        self.synthesis = synthesis

    @cached_property
    def spec(self) -> GenerationSpec:
        """What is generated. Raises SynthesisError and RequestError."""
        wanted = self.synthesis
        require_provider(wanted.provider)
        models = _open_models(wanted)
        filters = Filters(wanted.class_name, wanted.min_confidence, wanted.agree)
        chosen = filters if filters != Filters() else None
        model = models[wanted.model]
        domains = check_domains(model, wanted.domains, "command line")
        classifiers = classifiers_of(model, domains, list(models.values())) if chosen or wanted.labels else ()
        spec = GenerationSpec(
            model,
            domains,
            (),
            wanted.truncation,
            None,
            "json",
            labels=wanted.labels,
            filters=chosen,
            classifiers=classifiers,
        )
        if chosen is not None:
            check_filters(spec, chosen, "command line")
        return spec

    @cached_property
    def storage(self) -> Storage:
        """Where shards go. Raises SynthesisError for a URL that nothing installed knows."""
        try:
            return Storage(self.synthesis.to)
        except (ImportError, ValueError) as error:
            raise SynthesisError(
                f"--to {self.synthesis.to}: {error}; install fsspec and the package it names"
            ) from error

    def __call__(self, row: dict[str, int]) -> dict[str, Any]:
        """Make shard `number` of a row; return its number, digest and pairs."""
        wanted, number = self.synthesis, row["number"]
        seeds = range(number * wanted.size, min((number + 1) * wanted.size, wanted.pairs))
        shard = ShardSpec(self.spec, seeds, "png")
        digest = self.storage.put(wanted.name(number), lambda path: FORMATS[wanted.format].write(shard, path))
        return {"number": number, "digest": digest, "pairs": len(seeds)}


def _open_models(wanted: Synthesis) -> dict[str, OnnxModel]:
    """Open the generator, and the classifiers if they are needed."""
    repository = ModelRepository(wanted.models, wanted.provider, 16 if wanted.provider == "cuda" else 64)
    results = {name: repository.load(name, None) for name in repository.names()}
    models = {name: model for name, (model, _) in results.items() if model is not None}
    if not results:
        raise SynthesisError(f"--models {wanted.models}: {repository.unavailable_reason()}")
    if wanted.model not in models or models[wanted.model].metadata.kind != "generator":
        known = [name for name, model in models.items() if model.metadata.kind == "generator"]
        _, errors = results.get(wanted.model, (None, []))
        reasons = "; ".join(error.reason for error in errors)
        detail = f" ({reasons})" if reasons else ""
        raise SynthesisError(f"no generator {wanted.model!r} in {wanted.models}{detail}; there are {', '.join(known)}")
    return models


def synthesize(synthesis: Synthesis) -> None:
    """Make the shards that are missing; then, if all are there, the manifest and the data set card.

    Raises SynthesisError, and RequestError for filters and domains that do not fit.
    """
    writer = ShardWriter(synthesis)
    own, storage, plan = synthesis.own, writer.storage, _plan(writer)
    _check_plan(storage, plan)
    there, digests = storage.names(), dict[int, str]()
    missing = [number for number in own if synthesis.name(number) not in there]
    engine = {"local": _run_locally, "ray": _run_on_ray}[synthesis.engine]
    total = sum(min(synthesis.size, synthesis.pairs - number * synthesis.size) for number in own)
    done = total - sum(min(synthesis.size, synthesis.pairs - number * synthesis.size) for number in missing)
    with tqdm(total=total, initial=done, unit=" pairs", unit_scale=True, mininterval=0.5) as bar:
        for made in engine(writer, missing):
            digests[made["number"]] = made["digest"]
            bar.update(made["pairs"])
    there = storage.names()
    if all(synthesis.name(number) in there for number in synthesis.numbers):
        _finish(synthesis, storage, plan, digests)


def _plan(writer: ShardWriter) -> dict[str, Any]:
    """Return what determines the bytes of the shards."""
    wanted, spec = writer.synthesis, writer.spec
    filters = spec.filters or Filters()
    return {
        "model": {"name": spec.model.name, "version": spec.model.version, "digest": spec.model.digest},
        "classifiers": {one.domains[0]: {"name": one.name, "digest": one.digest} for one in spec.classifiers},
        "engine": spec.model.engine,
        "encoder": ENCODER_ID,
        "format": wanted.format,
        "pairs": wanted.pairs,
        "size": wanted.size,
        "domains": list(spec.domains),
        "truncation": spec.truncation,
        "labels": spec.labels,
        "filters": {"class": filters.class_name, "min_confidence": filters.min_confidence, "agree": filters.agree},
        "quality": spec.model.metadata.quality,
        "data_license": spec.model.metadata.data_license,
    }


def _check_plan(storage: Storage, plan: dict[str, Any]) -> None:
    """Write the plan, or compare it with the one of the shards that are there."""
    if MANIFEST not in storage.names():
        storage.write(MANIFEST, _dump(plan))
        return
    found = json.loads(storage.read(MANIFEST))
    other = [f"{name} {found.get(name)!r:.80}" for name in plan if found.get(name) != plan[name]]
    if other:
        raise SynthesisError(f"{storage.path} has shards of other pairs: {', '.join(other)}; choose another place")


def _finish(synthesis: Synthesis, storage: Storage, plan: dict[str, Any], digests: dict[int, str]) -> None:
    """Write the manifest with the digest of every shard, and the card."""
    names = {number: synthesis.name(number) for number in synthesis.numbers}
    shards = [{"name": name, "digest": digests.get(n) or storage.digest(name)} for n, name in names.items()]
    storage.write(MANIFEST, _dump(plan | {"shards": shards}))
    storage.write(CARD, write_card(plan, FORMATS[synthesis.format].data_files).encode())


def _dump(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


_writer: ShardWriter  # of a worker process


def _run_locally(writer: ShardWriter, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Make shards in this process, or in several."""
    processes = min(writer.synthesis.processes, len(numbers))
    rows = [{"number": number} for number in numbers]
    if processes <= 1:
        yield from map(writer, rows)
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _open_writer, (writer.synthesis,)) as pool:
        yield from pool.map(_write_shard, rows)


def _open_writer(synthesis: Synthesis) -> None:
    global _writer  # a pool has no other place for what its processes keep
    _writer = ShardWriter(synthesis)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent has ended, however: a pool's process would wait for work for ever."""
    parent = parent_process()
    assert parent is not None, "in a worker process"
    connection.wait([parent.sentinel])
    os._exit(1)


def _write_shard(row: dict[str, int]) -> dict[str, Any]:
    return _writer(row)


def _run_on_ray(writer: ShardWriter, numbers: list[int]) -> Iterable[dict[str, Any]]:
    """Make shards in actors of a Ray cluster, each of which opens the models once."""
    try:
        import ray.data
    except ImportError as error:
        raise SynthesisError("--engine ray needs Ray: pip install 'cogan[ray]'") from error
    if not numbers:
        return []
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one
    rows: Any = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    actors = ray.data.ActorPoolStrategy(size=min(writer.synthesis.processes, len(numbers)))
    made: Iterable[dict[str, Any]] = rows.map(
        ShardWriter, fn_constructor_args=(writer.synthesis,), compute=actors, num_cpus=1
    ).iter_rows()
    return made


def main() -> None:
    """Run the command line; exit with status 2 and one line for what is wrong."""
    try:
        synthesize(CliApp.run(Synthesis, sys.argv[1:]))
    except ValidationError as error:
        sys.exit(_refuse(describe_errors(error)))
    except (StartError, RequestError) as error:
        sys.exit(_refuse(error.detail if isinstance(error, RequestError) else str(error)))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


def _refuse(reason: str) -> int:
    print(f"cogan-synthesize: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
