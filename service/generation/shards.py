"""Shards: the pairs of a range of seeds, and as a tar. The service and `cogan-synthesize` make the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from service.generation import images
from service.generation.images import Pixels
from service.generation.pairs import MAX_CANDIDATES, ROWS, GeneratedImages, dump, generate, run_here
from service.generation.spec import GenerationSpec, LatentSpec

ENCODERS: dict[str, Callable[[Pixels], bytes]] = {"png": images.png, "webp": images.webp, "npy": images.npy}
SKIPPED = "__skipped__"  # readers pass over a name without a dot, and over one with underscores around it
BLOCK = 512  # bytes, the unit of a tar
RECORD = 20 * BLOCK  # a tar's size is a multiple of it


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
        what = f"{self.pairs.key} {self.seeds!r} {self.suffix}"
        return hashlib.sha256(what.encode()).hexdigest()[:32]

    def blocks(self) -> Iterator[GeneratedImages | None]:
        """Generate the pairs, some at a time and in the order of seeds; yield None after every run of a model."""
        for start in range(0, len(self.seeds), ROWS):
            latents = tuple(LatentSpec(0, seed) for seed in self.seeds[start : start + ROWS])
            yield from run_here(generate(replace(self.pairs, latents=latents)))

    def facts(self, block: GeneratedImages, i: int) -> dict[str, Any]:
        """Return what is known of a pair: seed, index, digest, and labels if they are requested."""
        one = block.spec.latents[i]
        facts = {"seed": one.seed, "index": one.index, "digest": self.pairs.model.digest}
        return facts | (block.labels[i].as_json() if block.labels is not None else {})


def tar(shard: ShardSpec, count: Callable[[], object] = lambda: None) -> Iterator[bytes]:
    """Yield a POSIX tar in parts, empty ones while models run: <seed>.<domain>.<suffix> and <seed>.json of every seed.

    `count` is called for every pair. With filters the last member, SKIPPED, lists the seeds without a
    candidate that passes.
    """
    encode, size, found = ENCODERS[shard.suffix], 0, set[int | None]()
    for block in shard.blocks():
        if block is None:
            yield b""
            continue
        for i, latent in enumerate(block.spec.latents):
            parts = [_member(f"{latent.seed}.{d}.{shard.suffix}", encode(c[i])) for d, c in block.images.items()]
            parts.append(_member(f"{latent.seed}.json", dump(shard.facts(block, i)).encode()))
            size += sum(map(len, parts))
            found.add(latent.seed)
            count()
            yield b"".join(parts)
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
