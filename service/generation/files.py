"""Shards as files of a data set: a tar for `webdataset`, a folder of images, or a parquet table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.generation.images import png
from service.generation.pairs import dump
from service.generation.shards import ShardSpec, tar

METADATA = "metadata.jsonl"  # of a folder of images; it is what makes the folder complete


class FileFormat(NamedTuple):
    """A form of shards: the suffix of a shard's name, which of its files a reader takes, and what writes it."""

    suffix: str
    data_files: str
    write: Callable[[ShardSpec, Path], None]


def _write_tar(shard: ShardSpec, path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(tar(shard))


def _pairs(shard: ShardSpec) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Yield the facts and the PNGs of every pair."""
    for block in filter(None, shard.blocks()):
        for i in range(block.spec.size):
            yield shard.facts(block, i), {name: png(column[i]) for name, column in block.images.items()}


def _write_folder(shard: ShardSpec, path: Path) -> None:
    """Write <seed>.<domain>.png, and of each pair a line with a column `<domain>_file_name` a domain."""
    path.mkdir()
    lines = list[str]()
    for facts, images in _pairs(shard):
        files = {domain: f"{facts['seed']}.{domain}.png" for domain in images}
        for domain, content in images.items():
            (path / files[domain]).write_bytes(content)
        lines.append(dump({f"{domain}_file_name": name for domain, name in files.items()} | facts) + "\n")
    (path / METADATA).write_text("".join(lines))


def _write_parquet(shard: ShardSpec, path: Path) -> None:
    """Write a column of images a domain, in the form that `datasets` knows, and those of the facts."""
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("seed", pa.int64()), ("index", pa.int64()), ("digest", pa.string())]
    if shard.pairs.labels:
        label = pa.struct([("class", pa.string()), ("confidence", pa.float64())])
        read = [model.domains[0] for model in shard.pairs.classifiers]
        columns += [("labels", pa.struct([(name, label) for name in read])), ("agree", pa.bool_())]
    features = {name: {"_type": "Image"} for name in shard.pairs.domains}
    features |= {name: _feature(kind) for name, kind in columns}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([*((name, image) for name in shard.pairs.domains), *columns], about)
    rows = [
        facts | {d: {"bytes": content, "path": f"{facts['seed']}.{d}.png"} for d, content in images.items()}
        for facts, images in _pairs(shard)
    ]
    parquet.write_table(pa.Table.from_pylist(rows, schema), path)


def _feature(kind: Any) -> dict[str, Any]:
    """Return a type of pyarrow as a feature of `datasets`."""
    names = {"double": "float64"}
    if kind.num_fields:
        return {field.name: _feature(field.type) for field in kind.fields}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


FORMATS = {
    "webdataset": FileFormat(".tar", "*.tar", _write_tar),
    "imagefolder": FileFormat("", "*/*", _write_folder),
    "parquet": FileFormat(".parquet", "*.parquet", _write_parquet),
}
