"""Formats of an answer: what was drawn -> the bytes of JSON, a sheet, an animation or an archive.

Axes: B batch, Z latent, H height, W width, C channels.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.engine.onnx_model import Latents
from service.generation import images
from service.generation.images import Pixels
from service.generation.orders import Order, Source


@dataclass(frozen=True)
class Drawing:
    """What was drawn for an order: latents, float32 [B, Z], and {domain: uint8 [B, H, W, C]}."""

    order: Order
    latents: Latents
    images: Mapping[str, Pixels]


@dataclass(frozen=True)
class Format:
    """A format: its media type, how a drawing becomes its bytes, and the most pixels that a side has."""

    media_type: str
    encode: Callable[[Drawing], bytes]
    longest_side: float = math.inf


def _json(drawing: Drawing) -> bytes:
    """Write JSON by hand around the images, of which it mostly consists."""
    order = drawing.order
    if order.walk:
        origins = [f'"t":{sum(order.walk.position(i))}' for i in range(order.size)]
    else:
        origins = [_origin(source) for source in order.sources]
    columns = [(f'"{name}":"data:image/png;base64,', column) for name, column in drawing.images.items()]
    parts = [
        f'{{{origin},"images":{{{",".join(before + _base64(column[i]) for before, column in columns)}}}}}'
        for i, origin in enumerate(origins)
    ]
    head = _head(order.model.name, order.model.version, order.model.digest, order.domains)
    return f'{head},"{"frames" if order.walk else "pairs"}":[{",".join(parts)}]}}'.encode()


@lru_cache
def _head(model: str, version: str, digest: str, domains: tuple[str, ...]) -> str:
    head = {"model": model, "version": version, "digest": digest, "domains": domains}
    return json.dumps(head, separators=(",", ":"))[:-1]


def _origin(source: Source) -> str:
    index = f'"index":{source.index}'
    return index if source.seed is None else f'"seed":{source.seed},{index}'


def _base64(pixels: Pixels) -> str:
    return b64encode(images.png(pixels)).decode() + '"'


def _zip(drawing: Drawing) -> bytes:
    order = drawing.order
    if order.walk:
        folders = [f"{i:05d}" for i in range(order.size)]
    else:
        folders = [f"{s.index:05d}" if s.seed is None else f"{s.seed}-{s.index}" for s in order.sources]
    return images.zipped(
        {
            f"{folder}/{name}.png": images.png(column[i])
            for i, folder in enumerate(folders)
            for name, column in drawing.images.items()
        }
    )


def _npz(drawing: Drawing) -> bytes:
    """Pack an array uint8 [B, H, W, C] a domain, and the latents, float32 [B, Z], as `latent`."""
    return images.npz({**drawing.images, "latent": drawing.latents})


def _sheet(write: Callable[[Pixels], bytes]) -> Callable[[Drawing], bytes]:
    return lambda drawing: write(images.sheet(drawing.images))


def _animation(write: Callable[[Sequence[Pixels]], bytes]) -> Callable[[Drawing], bytes]:
    return lambda drawing: write(images.frames(drawing.images))


PAIR_FORMATS = {
    "json": Format("application/json", _json),
    "png": Format("image/png", _sheet(images.png)),
    "webp": Format("image/webp", _sheet(images.webp), images.WEBP_SIDE),
    "zip": Format("application/zip", _zip),
    "npz": Format("application/x-npz", _npz),
}
FRAME_FORMATS = {
    "json": PAIR_FORMATS["json"],
    "gif": Format("image/gif", _animation(images.gif), images.GIF_SIDE),
    "webp": Format("image/webp", _animation(images.animated_webp), images.WEBP_SIDE),
    "png": Format("image/png", _animation(images.animated_png)),
    "zip": PAIR_FORMATS["zip"],
    "npz": PAIR_FORMATS["npz"],
}
