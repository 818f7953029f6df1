"""Formats of an answer: what was drawn -> the bytes of JSON, a sheet, an animation or an archive.

Axes: B batch, Z latent, H height, W width, C channels.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service import images
from service.images import Pixels
from service.onnx_model import Latents
from service.orders import Order, Source


@dataclass(frozen=True)
class Drawing:
    """What was drawn for an order: latents, float32 [B, Z], and {domain: uint8 [B, H, W, C]}."""

    order: Order
    latents: Latents
    images: Mapping[str, Pixels]


@dataclass(frozen=True)
class Format:
    """A format: its media type, and how a drawing becomes its bytes."""

    media_type: str
    encode: Callable[[Drawing], bytes]


def _json(drawing: Drawing) -> bytes:
    order = drawing.order
    head = {
        "model": order.model.name,
        "version": order.model.version,
        "digest": order.model.digest,
        "domains": order.domains,
    }
    if order.walk:
        origins = [{"t": sum(order.walk.position(i))} for i in range(order.size)]
    else:
        origins = [_origin(source) for source in order.sources]
    parts = [origin | {"images": _data_urls(drawing, i)} for i, origin in enumerate(origins)]
    body = head | {"frames" if order.walk else "pairs": parts}
    return json.dumps(body, separators=(",", ":")).encode()


def _origin(source: Source) -> dict[str, Any]:
    return {"index": source.index} if source.seed is None else {"seed": source.seed, "index": source.index}


def _data_urls(drawing: Drawing, i: int) -> dict[str, str]:
    return {
        name: "data:image/png;base64," + b64encode(images.png(column[i])).decode()
        for name, column in drawing.images.items()
    }


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
    "webp": Format("image/webp", _sheet(images.webp)),
    "zip": Format("application/zip", _zip),
    "npz": Format("application/x-npz", _npz),
}
FRAME_FORMATS = {
    "json": PAIR_FORMATS["json"],
    "gif": Format("image/gif", _animation(images.gif)),
    "webp": Format("image/webp", _animation(images.animated_webp)),
    "png": Format("image/png", _animation(images.animated_png)),
    "zip": PAIR_FORMATS["zip"],
    "npz": PAIR_FORMATS["npz"],
}
