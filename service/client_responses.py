"""Responses of the service as the Python client returns them: pairs of numpy arrays, cards of models, errors.

Each `read_…` gets a response and the fields of its request, and raises whatever its decoder raises; `checked` makes
that an OtherError. Axes: B pairs or frames, H height, W width, C channels (1 grey or 3 RGB), Z latent dimension.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast, overload

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import FieldError, OtherError, RequestError

MAX_DETAIL = 200  # characters of a response that is not the service's
MADE_WITH = ("model", "truncation", "directions")  # what the images of a seed and an index depend on
TAR_END = bytes(1024)  # without it, something between service and client has cut the tar
FACTS = ("seed", "index", "t", "labels", "agree")

Fields = Mapping[str, Any]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)  # arrays have no single truth
class Pair:
    """The coupled images of one latent: `pair["edge"]` is uint8 [H, W, C], `pair.image("edge")` a PIL image."""

    images: Mapping[str, Pixels]
    seed: int | None = None  # None of a given latent, and of a frame
    index: int | None = None  # which image of the seed, or which of the given latents
    t: float | None = None  # position of a frame: 1.0 is the second key frame
    labels: Mapping[str, Mapping[str, Any]] | None = None  # `class` and `confidence` by domain, if requested
    agree: bool | None = None  # whether all classes are equal
    model: str | None = None  # that generated it
    truncation: float | None = None  # as requested
    directions: Mapping[str, float] | None = None  # as requested

    def __getitem__(self, domain: str) -> Pixels:
        return self.images[domain]

    def image(self, domain: str) -> Image.Image:
        """Return a domain's image."""
        return as_picture(self.images[domain])


@dataclass(frozen=True, eq=False)  # arrays have no single truth
class Pairs:
    """Pairs of a response, or frames of a walk: `pairs["edge"]` is uint8 [B, H, W, C], `pairs[0]` the first one."""

    model: str
    version: str
    digest: str  # sha256 of the model file
    domains: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @overload
    def __getitem__(self, key: str) -> Pixels: ...
    @overload
    def __getitem__(self, key: int) -> Pair: ...
    def __getitem__(self, key: str | int) -> Pixels | Pair:
        return np.stack([pair[key] for pair in self.pairs]) if isinstance(key, str) else self.pairs[key]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def image(self, domain: str, number: int = 0) -> Image.Image:
        """Return a domain's image in one of the pairs."""
        return self.pairs[number].image(domain)


@dataclass(frozen=True, eq=False)
class Translation(Pairs):
    """One pair with the counterparts of an image. Its image in the domain `source` is the reconstruction."""

    source: str  # domain of the image, as given or as found
    latent: NDArray[np.float32]  # [Z], as `generate` and `interpolate` take it
    error: float  # root mean squared difference of image and reconstruction, in levels of 0 to 255
    likeness: str | None  # whether the model knows such images, if that was measured


def as_picture(pixels: Pixels) -> Image.Image:
    """Return pixels [H, W] or [H, W, C] as a PIL image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def read_pairs(response: httpx.Response, fields: Fields) -> Pairs:
    """Return the pairs or frames of JSON."""
    answer, pairs = response.json(), list[Pair]()
    for one in answer.get("pairs") or answer["frames"]:
        urls: dict[str, str] = one["images"]
        images = {name: _pixels(base64.b64decode(url.partition(",")[2])) for name, url in urls.items()}
        pairs.append(_pair(images, one, fields, answer["model"]))
    return Pairs(answer["model"], answer["version"], answer["digest"], tuple(answer["domains"]), tuple(pairs))


def read_shard(response: httpx.Response, fields: Fields) -> Iterator[Pair]:
    """Yield the pairs of a tar: of each come first the images, <seed>.<domain>.<format>, last <seed>.json.

    Raises OtherError for what is no such tar.
    """
    images, name = dict[str, Pixels](), response.headers.get("Content-Disposition", "")
    model = re.search(r'filename="(.+)-\d+\.tar"', name)
    with checked(response), tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        if not response.content.endswith(TAR_END):
            raise EOFError("the end of the tar is missing")
        for member in archive:
            content = cast("IO[bytes]", archive.extractfile(member)).read()
            domain, _, kind = member.name.partition(".")[2].rpartition(".")
            if domain:
                images[domain] = np.load(io.BytesIO(content)) if kind == "npy" else _pixels(content)
            elif kind == "json":
                yield _pair(images, json.loads(content), fields, model[1] if model else fields.get("model"))
                images = {}


def read_models(response: httpx.Response, _: Fields) -> dict[str, dict[str, Any]]:
    """Return the cards of a list of models by name, the default one first."""
    answer = response.json()
    cards = sorted(answer["models"], key=lambda card: bool(card["name"] != answer["default"]))  # stable
    return {card["name"]: card for card in cards}


def read_translation(response: httpx.Response, fields: Fields) -> Translation:
    """Return a pair with what was found of its image."""
    answer, pairs = response.json(), read_pairs(response, fields)
    found = {name: answer[name] for name in ("error", "likeness")}
    return Translation(**vars(pairs), **found, source=answer["from"], latent=np.array(answer["latent"], np.float32))


def _pixels(content: bytes) -> Pixels:
    """Decode a picture: uint8 [H, W, C]."""
    pixels = np.array(Image.open(io.BytesIO(content)))
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _pair(images: Mapping[str, Pixels], facts: Mapping[str, Any], fields: Fields, model: str | None) -> Pair:
    made = {name: fields.get(name) for name in MADE_WITH} | {"model": model}
    return Pair(images, **{name: facts.get(name) for name in FACTS}, **made)


@contextmanager
def checked(response: httpx.Response) -> Iterator[None]:
    """Raise OtherError if a successful response cannot be read: it is a login page, or another service's."""
    try:
        yield
    except Exception as error:  # each decoder has errors of its own
        kind = response.headers.get("Content-Type", "no Content-Type")
        start = response.content[:MAX_DETAIL].decode(errors="replace")
        detail = f"{response.url} answered {kind}, which the client cannot read; check the address and proxies: {start}"
        raise OtherError(response.status_code, detail, dict(response.headers)) from error


def problem_error(response: httpx.Response) -> RequestError:
    """Return a problem as the error that the service raised; of an unknown code, or without one, as OtherError."""
    headers, known = dict(response.headers), {error.code: error for error in RequestError.__subclasses__()}
    try:
        problem = response.json()
        if problem["code"] == OtherError.code:
            return OtherError(response.status_code, problem["detail"], headers)
        return known[problem["code"]](problem["detail"], [FieldError(**one) for one in problem["errors"]], headers)
    except (ValueError, KeyError, TypeError):  # a proxy's, or of a newer service
        detail = f"{response.url} answered {response.status_code} {response.reason_phrase}"
        if response.has_redirect_location:
            detail = f"{detail}, a redirect to {headers['location']}; give the client that address"
        return OtherError(response.status_code, f"{detail}: {response.text[:MAX_DETAIL]}", headers)
