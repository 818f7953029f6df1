"""Formats of a response: generated images -> the bytes of JSON, a sheet, an animation or an archive.

Axes: B batch, Z latent, H height, W width, C channels.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.generation import images
from service.generation.images import Encoding, Pixels, sheet_rows
from service.generation.pairs import GeneratedImages, dump
from service.generation.spec import GenerationSpec, LatentSpec
from service.metadata import LATENT

IMAGE_S, PIXEL_S = 12e-6, 30e-9  # what encoding takes, roughly: by image and by pixel of weight 1


@dataclass(frozen=True)
class Format:
    """A format of a response."""

    media_type: str
    encode: Callable[[GeneratedImages], Encoding]
    max_side: float = math.inf
    weight: int = 1  # how many pixels one of its counts as, by the time it takes

    @property
    def picture(self) -> bool:
        """True if it is a picture, which may be scaled and has no room for labels."""
        return self.media_type.startswith("image/")

    def seconds(self, spec: GenerationSpec) -> float:
        """Return roughly the seconds that encoding takes."""
        return spec.size * len(spec.domains) * IMAGE_S + spec.pixels * self.weight * PIXEL_S


def _json(generated: GeneratedImages) -> Encoding:
    """Write JSON by hand around the images, of which it mostly consists."""
    spec, parts = generated.spec, list[str]()
    columns = [(f'"{name}":"data:image/png;base64,', column) for name, column in generated.images.items()]
    for i in range(spec.size):
        if spec.path is not None:
            origin = f'"t":{sum(spec.path.position(i))}'
        else:
            latent = spec.latents[i]
            origin = ("" if latent.seed is None else f'"seed":{latent.seed},') + f'"index":{latent.index}'
        if generated.labels:
            origin += "," + dump(generated.labels[i].as_json())[1:-1]
        encoded = ",".join([f'{before}{b64encode(images.png(column[i])).decode()}"' for before, column in columns])
        parts.append(f'{{{origin},"images":{{{encoded}}}}}')
        yield
    start = _json_start(spec.model.name, spec.model.version, spec.model.digest, spec.domains)
    return f'{start},"{"frames" if spec.path else "pairs"}":[{",".join(parts)}]}}'.encode()


@lru_cache
def _json_start(model: str, version: str, digest: str, domains: tuple[str, ...]) -> str:
    return dump({"model": model, "version": version, "digest": digest, "domains": domains})[:-1]


def _zip(generated: GeneratedImages) -> Encoding:
    def files() -> Iterator[tuple[str, bytes]]:
        for i, folder in enumerate(_folders(generated.spec)):
            for name, column in generated.images.items():
                yield f"{folder}/{name}.png", images.png(column[i])
            if generated.labels:
                yield f"{folder}/labels.json", dump(generated.labels[i].as_json()).encode()

    return images.zipped(files())


def _folders(spec: GenerationSpec) -> Iterator[str]:
    """Yield a folder for each latent: its frame, <seed>-<index> or index; a repeated one gets a number."""
    seen = Counter[str]()
    for i in range(spec.size):
        one = spec.latents[i] if spec.path is None else LatentSpec(i)
        name = f"{one.index:05d}" if one.seed is None else f"{one.seed}-{one.index}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-again{seen[name] - 1}"


def _npz(generated: GeneratedImages) -> Encoding:
    """Pack an array uint8 [B, H, W, C] a domain, and the latents, float32 [B, Z], as `latent`; and what is requested.

    Names of further arrays have a dot, which no domain has.
    """
    spec, labels = generated.spec, generated.labels
    arrays: dict[str, NDArray[Any]] = {**generated.images, LATENT: generated.inputs[LATENT]}
    if spec.filters is not None:
        arrays["pair.seed"] = np.array([one.seed for one in spec.latents])
        arrays["pair.index"] = np.array([one.index for one in spec.latents])
    if labels and labels[0]:
        for domain in labels[0]:
            arrays[f"{domain}.class"] = np.array([one[domain].class_name for one in labels])
            arrays[f"{domain}.confidence"] = np.array([one[domain].confidence for one in labels])
        arrays["pair.agree"] = np.array([one.agree is True for one in labels])
    return images.npz(arrays)


def _webp_sheet(generated: GeneratedImages) -> Encoding:
    rows = list[Pixels]()
    for row in _rows(generated):
        rows.append(row)
        yield
    return images.webp(np.concatenate(rows))


def _png_sheet(generated: GeneratedImages) -> Encoding:
    spec = generated.spec
    height = spec.size * spec.scale * max(one.height for one in spec.shapes)
    return images.png_of_rows(_rows(generated), height)


def _rows(generated: GeneratedImages) -> Iterator[Pixels]:
    return sheet_rows(generated.images, generated.spec.scale)


PAIR_FORMATS = {
    "json": Format("application/json", _json),
    "png": Format("image/png", _png_sheet),
    "webp": Format("image/webp", _webp_sheet, images.WEBP_SIDE, weight=2),
    "zip": Format("application/zip", _zip),
    "npz": Format("application/x-npz", _npz),
}
FRAME_FORMATS = {
    "json": PAIR_FORMATS["json"],
    "gif": Format("image/gif", lambda g: images.gif(_rows(g)), images.GIF_SIDE, weight=8),
    "webp": Format("image/webp", lambda g: images.animated_webp(_rows(g)), images.WEBP_SIDE, weight=2),
    "png": Format("image/png", lambda g: images.animated_png(_rows(g), g.spec.size)),
    "zip": PAIR_FORMATS["zip"],
    "npz": PAIR_FORMATS["npz"],
}
