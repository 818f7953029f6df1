"""Shards: the pairs of a range of seeds, as a tar, a folder of images or a parquet table.

The service and `cogan-synthesize` make the same ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from service.generation import images
from service.generation.images import Pixels
from service.generation.pairs import MAX_CANDIDATES, ROWS, dump, generate, run_here
from service.generation.spec import GenerationSpec, LatentSpec

ENCODERS: dict[str, Callable[[Pixels], bytes]] = {"png": images.png, "webp": images.webp, "npy": images.npy}
SKIPPED = "__skipped__"  # readers pass over a name without a dot, and over one with underscores around it
METADATA = "metadata.jsonl"  # of a folder of images, written last: with it the folder is complete
BLOCK = 512  # bytes, the unit of a tar
RECORD = 20 * BLOCK  # a tar's size is a multiple of it


class ShardPair(NamedTuple):
    """Facts about a pair (seed, index, digest, and labels if requested), and its encoded images by domain."""

    facts: dict[str, Any]
    images: dict[str, tuple[str, bytes]]  # the name of a file and its content


@dataclass(frozen=True)
class ShardSpec:
    """One pair of each seed: image 0, or the first candidate that passes the filters of `pairs`.

    `pairs` is of no latents. `suffix` names the encoding of an image.
    """

    pairs: GenerationSpec
    seeds: range
    suffix: str

    @property
    def key(self) -> str:
        """Identifier of the tar's bytes: equal specs, models, engines and encoders have equal keys."""
        return hashlib.sha256(f"{self.pairs.key} {self.seeds!r} {self.suffix}".encode()).hexdigest()[:32]

    def generate(self) -> Iterator[ShardPair | None]:
        """Generate the pairs in the order of seeds; yield None after every run of a model."""
        encode, digest = ENCODERS[self.suffix], self.pairs.model.digest
        for start in range(0, len(self.seeds), ROWS):
            latents = tuple(LatentSpec(0, seed) for seed in self.seeds[start : start + ROWS])
            for block in run_here(generate(replace(self.pairs, latents=latents))):
                if block is None:
                    yield None
                    continue
                for i, one in enumerate(block.spec.latents):
                    facts = {"seed": one.seed, "index": one.index, "digest": digest}
                    if block.labels:
                        facts |= block.labels[i].as_json()
                    files = {d: (f"{one.seed}.{d}.{self.suffix}", encode(c[i])) for d, c in block.images.items()}
                    yield ShardPair(facts, files)


def tar(shard: ShardSpec, count_pair: Callable[[], object] = lambda: None) -> Iterator[bytes]:
    """Yield a POSIX tar in parts, empty ones while models run: <seed>.<domain>.<suffix> and <seed>.json of every seed.

    `count_pair` is called for every pair. With filters the last member, SKIPPED, lists the seeds without a
    candidate that passes.
    """
    size, found = 0, set[int]()
    for pair in shard.generate():
        if pair is None:
            yield b""
            continue
        seed = pair.facts["seed"]
        files = (*pair.images.values(), (f"{seed}.json", dump(pair.facts).encode()))
        members = b"".join([_member(name, content) for name, content in files])
        size += len(members)
        found.add(seed)
        count_pair()
        yield members
    if shard.pairs.filters is not None:
        skipped = {"candidates": MAX_CANDIDATES, "seeds": [seed for seed in shard.seeds if seed not in found]}
        yield (last := _member(SKIPPED, dump(skipped).encode()))
        size += len(last)
    yield bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


def _member(name: str, content: bytes) -> bytes:
    """Return a file in a tar, as POSIX.1-1988 (ustar) defines it: of no owner, and dated 1970.

    `tarfile` writes the same bytes in ten times the time.
    """
    start, rest, known = _header(len(name))
    named, length = name.encode(), b"%011o\0" % len(content)
    checksum = b"%06o\0 " % (known + sum(named) + sum(length))
    head = b"".join((named, start, length, b"%011o\0" % 0, checksum, rest))
    return b"".join((head, content, bytes(-len(content) % BLOCK)))


@cache
def _header(name_length: int) -> tuple[bytes, bytes, int]:
    """Return a header's bytes between name and size, those behind the checksum, and the sum of all fixed ones."""
    start = bytes(100 - name_length) + b"0000644\0" + b"0000000\0" * 2
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    return start, rest, sum(start) + sum(rest) + sum(b"%011o\0" % 0) + sum(b" " * 8)


class FileFormat(NamedTuple):
    """A file format of shards: suffix of a name, pattern of the files to read, and the function that writes one.

    It returns the number of pairs, of which filters may leave none.
    """

    suffix: str
    data_files: str
    write: Callable[[ShardSpec, Path], int]


def _write_tar(shard: ShardSpec, path: Path) -> int:
    pairs = count()
    with path.open("wb") as file:
        file.writelines(tar(shard, partial(next, pairs)))
    return next(pairs)


def _write_folder(shard: ShardSpec, path: Path) -> int:
    """Write <seed>.<domain>.png, and of each pair a line with a column `<domain>_file_name` a domain."""
    path.mkdir()
    lines = list[str]()
    for facts, files in filter(None, shard.generate()):
        for name, content in files.values():
            (path / name).write_bytes(content)
        lines.append(dump({f"{domain}_file_name": name for domain, (name, _) in files.items()} | facts) + "\n")
    (path / METADATA).write_text("".join(lines))
    return len(lines)


def _write_parquet(shard: ShardSpec, path: Path) -> int:
    """Write a column of images a domain, in the form that `datasets` knows, and those of the facts."""
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("seed", pa.int64()), ("index", pa.int64()), ("digest", pa.string())]
    if shard.pairs.labels and shard.pairs.classifiers:  # parquet knows no struct without fields
        label = pa.struct([("class", pa.string()), ("confidence", pa.float64())])
        labels = pa.struct([(model.domains[0], label) for model in shard.pairs.classifiers])
        columns += [("labels", labels), ("agree", pa.bool_())]
    features = {name: {"_type": "Image"} for name in shard.pairs.domains}
    features |= {name: _feature(kind) for name, kind in columns}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([*((name, image) for name in shard.pairs.domains), *columns], about)
    rows = [
        facts | {domain: {"bytes": content, "path": name} for domain, (name, content) in files.items()}
        for facts, files in filter(None, shard.generate())
    ]
    parquet.write_table(pa.Table.from_pylist(rows, schema), path)
    return len(rows)


def _feature(kind: Any) -> dict[str, Any]:
    """Return a type of pyarrow as a feature of `datasets`."""
    if kind.num_fields:
        return {field.name: _feature(field.type) for field in kind.fields}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


FORMATS = {
    "webdataset": FileFormat(".tar", "*.tar", _write_tar),
    "imagefolder": FileFormat("", "*/*", _write_folder),
    "parquet": FileFormat(".parquet", "*.parquet", _write_parquet),
}
