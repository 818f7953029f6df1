"""`cogan-synthesize`: a data set of pairs in shards, without a server. It may stop at any time, and be started again.

cogan-synthesize digit_edge --pairs 1_000_000 --to pairs/
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source
from tqdm import tqdm

from service.api.schemas import QuerySteps
from service.engine.models import ModelRepository
from service.engine.onnx_model import OnnxModel, require_provider
from service.errors import RequestError, StartError
from service.generation.generator import check_directions, check_domains
from service.generation.images import ENCODER_ID
from service.generation.pairs import MAX_CANDIDATES, add_classifiers
from service.generation.shards import FORMATS, ShardSpec
from service.generation.spec import Filters, GenerationSpec
from service.latents import MAX_SEED, MIN_TRUNCATION
from service.metadata import describe_errors
from service.settings import available_cpus
from service.storage import Storage, StorageError

MANIFEST, CARD = "manifest.json", "README.md"
Row = dict[str, Any]  # `number` of a shard to make; `name`, `digest`, `seeds` and `pairs` of one that is made
PACKAGES = {"parquet": ("--format", "pyarrow.parquet", "datasets"), "ray": ("--engine", "ray.data", "ray")}
LICENSE = re.compile(r"\bCC (BY(?:-[A-Z]{2})*) (\d\.\d)")
STEPS = TypeAdapter[Any](QuerySteps)
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}


class SynthesisError(StartError):
    """The data set cannot be made; the command exits with status 2."""


def _check_place(to: str) -> str:
    if not to.strip():
        raise ValueError("allowed is a folder, or a URL such as s3://bucket/pairs")
    return to


def _check_folder(models: Any) -> Any:
    if "://" in str(models):
        raise ValueError("allowed is a folder; copy the models of a URL to one")
    return models


def _check_steps(directions: str) -> str:
    try:
        STEPS.validate_python(directions)
    except ValidationError as error:
        raise ValueError(describe_errors(error)) from error
    return directions


def _check_part(shards: str) -> str:
    if not re.fullmatch("[1-9][0-9]*/[1-9][0-9]*", shards):
        raise ValueError("allowed is PART/PARTS, such as 3/10, from 1/10 to 10/10")
    return shards


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
    to: Annotated[str, AfterValidator(_check_place)]
    """Folder or URL (s3://, gs://, hf://) to write to."""
    format: Literal["webdataset", "imagefolder", "parquet"] = "webdataset"
    """Tars of images and JSON, folders of images and metadata.jsonl, or parquet tables."""
    size: int = Field(default=1000, ge=1, le=100_000)
    """Pairs of a shard."""
    shards: Annotated[str, AfterValidator(_check_part)] = "1/1"
    """Part of the shards to make here: 3/10 is the third of ten."""
    domains: Annotated[list[str], Field(min_length=1)] | None = None
    """Domains, in this order; otherwise all."""
    truncation: float | None = Field(default=None, ge=MIN_TRUNCATION, allow_inf_nan=False)
    """Bound on every value of a latent."""
    directions: Annotated[str, AfterValidator(_check_steps)] | None = None
    """Spreads to move along directions of the model, by number or name: 1:2,thickness:-1."""
    labels: bool = False
    """Label the images: class, confidence, agreement."""
    class_name: str | None = Field(default=None, alias="class")
    """Take pairs of this class only, in the first domain that has a classifier."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Take pairs with at least this confidence in every domain that has a classifier."""
    agree: bool = False
    """Take pairs whose classes are equal."""
    models: Annotated[Path, BeforeValidator(_check_folder)] = Path("models")
    """Folder that holds <name>/<version>/model.onnx."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """Device that models run on."""
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

    def seeds(self, number: int) -> range:
        """Return the seeds of a shard."""
        return range(number * self.size, min((number + 1) * self.size, self.pairs))


class ShardWriter:
    """Makes shards of a data set, in whichever process; the models are opened once."""

    def __init__(self, synthesis: Synthesis) -> None:
        self.synthesis = synthesis

    @cached_property
    def spec(self) -> GenerationSpec:
        """Specification of the pairs. Raises SynthesisError and RequestError."""
        wanted, place = self.synthesis, "command line"
        require_provider(wanted.provider)
        models = _open_models(wanted)
        model = models[wanted.model]
        filters = Filters(wanted.class_name, wanted.min_confidence, wanted.agree) or None
        domains = check_domains(model, wanted.domains, place)
        steps = check_directions(model, STEPS.validate_python(wanted.directions), place)
        spec = GenerationSpec(
            model, domains, (), wanted.truncation, directions=steps, labels=wanted.labels, filters=filters
        )
        return add_classifiers(spec, list(models.values()), place) if wanted.labels or filters else spec

    @cached_property
    def storage(self) -> Storage:
        """Storage of the shards. Raises StorageError for a URL that nothing installed knows."""
        return Storage(self.synthesis.to)

    def __call__(self, row: Row) -> Row:
        """Make a shard. Raises StorageError and OSError if it cannot be written."""
        wanted, name = self.synthesis, self.synthesis.name(row["number"])
        shard = ShardSpec(self.spec, wanted.seeds(row["number"]), "png")
        pairs = list[int]()
        digest = self.storage.put(name, lambda path: pairs.append(FORMATS[wanted.format].write(shard, path)))
        return {"name": name, "digest": digest, "seeds": len(shard.seeds), "pairs": pairs[-1]}


def _open_models(wanted: Synthesis) -> dict[str, OnnxModel]:
    """Open the generator, and the classifiers if they are needed."""
    repository = ModelRepository(wanted.models, wanted.provider, 16 if wanted.provider == "cuda" else 64)
    results = {name: repository.load(name, None) for name in repository.fingerprint() or ()}
    models = {name: model for name, (model, _) in results.items() if model is not None}
    if not results:
        raise SynthesisError(f"--models {wanted.models}: {repository.unavailable_reason()}")
    known = [name for name, model in models.items() if model.metadata.kind == "generator"]
    if wanted.model not in known:
        _, errors = results.get(wanted.model, (None, [one for _, errors in results.values() for one in errors]))
        detail = f" ({'; '.join(error.reason for error in errors)})" if errors else ""
        raise SynthesisError(f"no generator {wanted.model!r} in {wanted.models}{detail}; there are {', '.join(known)}")
    return models


def synthesize(synthesis: Synthesis) -> None:
    """Make the shards that are missing; then, if all are there, the manifest and the data set card.

    Raises SynthesisError, and RequestError for filters and domains that do not fit.
    """
    try:
        _synthesize(synthesis)
    except StorageError as error:
        raise SynthesisError(f"--to {synthesis.to}: {error}") from error
    except BrokenProcessPool as error:
        why = "a process was killed, perhaps for want of memory; take fewer; the same command goes on"
        raise SynthesisError(f"--processes {synthesis.processes}: {why}") from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "choose a place that can be written and has room; the same command goes on"
        raise SynthesisError(f"--to {synthesis.to}: {error.strerror or error}{where}; {remedy}") from error


def _synthesize(synthesis: Synthesis) -> None:
    _require_packages(synthesis)
    writer = ShardWriter(synthesis)
    own, storage, plan = synthesis.own, writer.storage, _plan(writer)
    digests = _check_shards(storage, _check_plan(storage, plan, synthesis))
    storage.remove_old_parts()
    there = storage.names()
    missing = [number for number in own if synthesis.name(number) not in there]
    make_shards = _run_on_ray if synthesis.engine == "ray" else _run_locally
    total, left = (sum(len(synthesis.seeds(number)) for number in numbers) for numbers in (own, missing))
    pairs = 0
    with tqdm(total=total, initial=total - left, unit=" pairs", unit_scale=True, mininterval=0.5) as bar:
        for made in make_shards(writer, [{"number": number} for number in missing]):
            digests[made["name"]] = made["digest"]
            pairs += made["pairs"]
            bar.update(made["seeds"])
    if pairs < left:
        print(f"{left - pairs:,} of {left:,} seeds have no pair that passes the filters: {pairs:,} pairs were made")
    names = [synthesis.name(number) for number in synthesis.numbers]
    if (there := storage.names()).issuperset(names):
        shards = [{"name": name, "digest": digests.get(name) or storage.digest(name)} for name in names]
        _write_manifest(storage, plan | {"shards": shards})
        if CARD not in there:  # one that is there may have notes of its owner's
            card = _write_card(plan, FORMATS[synthesis.format].data_files)
            storage.put(CARD, lambda path: path.write_text(card, "utf-8"))


def _require_packages(wanted: Synthesis) -> None:
    """Raise SynthesisError if a package of the format or the engine is missing."""
    for choice in (wanted.format, wanted.engine):
        if choice in PACKAGES:
            option, module, extra = PACKAGES[choice]
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise SynthesisError(
                    f"{option} {choice} needs, in a checkout: pip install -e '.[cpu,{extra}]' ({error})"
                ) from error


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
        **({"directions": {str(i + 1): value for i, value in spec.directions}} if spec.directions else {}),
    }


def _check_plan(storage: Storage, plan: dict[str, Any], synthesis: Synthesis) -> dict[str, str]:
    """Write the plan, or compare it with the one that is there; return the digests of shards that it records.

    Raises SynthesisError for files that this command has not made, and for a plan of other pairs.
    """
    if MANIFEST not in (there := storage.names()):
        if unknown := next((name for name in (CARD, *map(synthesis.name, synthesis.numbers)) if name in there), None):
            remedy = f"choose another place, or move {unknown} to one"
            raise SynthesisError(
                f"{storage.path} has {unknown} and no {MANIFEST}, so this command did not make it; {remedy}"
            )
        _write_manifest(storage, plan)
        return {}
    try:
        found = json.loads(storage.read(MANIFEST))
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        if lacking := [name for name in plan if name not in found]:
            raise ValueError(f"it has no {lacking[0]!r}, so another program or release wrote it")
        recorded = {shard["name"]: shard["digest"] for shard in found.get("shards", ())}
    except (ValueError, TypeError, KeyError, IsADirectoryError) as error:
        remedy = "choose another place, or remove it with its shards"
        raise SynthesisError(f"{storage.path}/{MANIFEST} is no manifest of shards ({error}); {remedy}") from error
    known = {"directions": None} | plan  # which only shards with some record
    if other := [f"{name} {found.get(name)!r:.80}" for name in known if found.get(name) != known[name]]:
        remedy = "choose another place, or remove it with its shards, if there are any"
        raise SynthesisError(f"{storage.path}/{MANIFEST} is of other pairs: {', '.join(other)}; {remedy}")
    return recorded


def _check_shards(storage: Storage, recorded: dict[str, str]) -> dict[str, str]:
    """Return the digests of the recorded shards that are there. Raises SynthesisError if any has changed."""
    digests = {name: storage.digest(name) for name in sorted(storage.names() & recorded.keys())}
    changed = [
        f"{name} (recorded {recorded[name]}, found {digest})"
        for name, digest in digests.items()
        if digest != recorded[name]
    ]
    if changed:
        remedy = "remove what is damaged; the same command makes it again"
        raise SynthesisError(f"{storage.path} has damaged shards: {', '.join(changed)}; {remedy}")
    return digests


def _write_manifest(storage: Storage, content: dict[str, Any]) -> None:
    storage.put(MANIFEST, lambda path: path.write_text(json.dumps(content, indent=1) + "\n"))


_writer: ShardWriter  # of a worker process


def _run_locally(writer: ShardWriter, rows: list[Row]) -> Iterator[Row]:
    """Make shards in this process, or in several."""
    processes = min(writer.synthesis.processes, len(rows))
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
    parent.join()
    os._exit(1)


def _write_shard(row: Row) -> Row:
    return _writer(row)


def _run_on_ray(writer: ShardWriter, rows: list[Row]) -> Iterable[Row]:
    """Make shards in actors of a Ray cluster, each of which opens the models once."""
    import ray.data

    if not rows:
        return []
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one
    actors = ray.data.ActorPoolStrategy(size=min(writer.synthesis.processes, len(rows)))
    made: Iterable[Row] = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(ShardWriter, fn_constructor_args=(writer.synthesis,), compute=actors, num_cpus=1)
        .iter_rows()
    )
    return made


def _write_card(plan: dict[str, Any], data_files: str) -> str:
    """Return the card of a data set: licence, size and files for machines, and what it is for people."""
    model, domains = plan["model"], plan["domains"]
    named = [LICENSE.findall(part) or [None] for part in plan["data_license"].split(";")]  # of each source's data
    found, *others = {one for part in named for one in part}
    terms = f"cc-{found[0].lower()}-{found[1]}" if found and not others else "other"
    size = next((name for most, name in SIZES.items() if plan["pairs"] < most), "n>10M")
    front = [
        f"pretty_name: Pairs of {model['name']}",
        f"license: {terms}",
        *([f"license_name: {json.dumps(plan['data_license'])}"] if terms == "other" else []),
        "tags: [synthetic, coupled-gan]",
        f"size_categories: [{size}]",
        f"configs: [{{config_name: default, data_files: {json.dumps(data_files)}}}]",
    ]
    filters = ", ".join(f"{name} {value}" for name, value in plan["filters"].items() if value) or "none"
    each = (
        "one pair each"
        if filters == "none"
        else f"of each the first of {MAX_CANDIDATES:,} candidates that passes, if one does"
    )
    text = [
        f"# Pairs of {model['name']}",
        f"Generated images of {', '.join(domains)}: those of a pair have one latent, so the same content.",
        f"- Model: `{model['name']}` version {model['version']}, `{model['digest']}`, a coupled GAN (Liu & Tuzel 2016)",
        f"- Seeds: 0 to {plan['pairs'] - 1}, {each}; filters: {filters}",
        f"- Training data of the model, whose licence holds for these images: {plan['data_license']}",
        "- `manifest.json` has the digests of models and shards, and the measured quality of the model:",
        "```json\n" + json.dumps(plan["quality"], indent=1) + "\n```",
    ]
    return "---\n" + "\n".join(front) + "\n---\n\n" + "\n\n".join(text) + "\n"


def _describe_options(error: ValidationError) -> str:
    """Return what is wrong with options, each by its name on the command line."""
    lines = list[str]()
    for one in error.errors():
        value = "" if one["type"] == "missing" else f" {one['input']!r:.80}"
        option = str(one["loc"][0]).replace("_", "-")
        lines.append(f"--{option}{value}: {one['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def main() -> None:
    """Run the command line; exit with status 2 and one line for what is wrong."""
    try:
        synthesize(CliApp.run(Synthesis, sys.argv[1:]))
    except (StartError, RequestError, ValidationError) as error:
        reason = _describe_options(error) if isinstance(error, ValidationError) else str(error)
        for wrong in error.errors[:1] if isinstance(error, RequestError) else ():  # fields of a request are options
            option = wrong.pointer[1:].partition("/")[0].replace("_", "-")
            if option not in ("", "model"):  # which is none, and in the message
                reason = f"--{option} {wrong.value}: {reason}"
        print(f"cogan-synthesize: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
